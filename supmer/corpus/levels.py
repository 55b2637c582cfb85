"""Where a preparation's results lie in `corpus.store_dir`, and when each of them counts as complete.

Three results build on each other, each in a folder named by the fingerprint of what it is made from:

    text-<fingerprint>/                            sentences (units), cut and linked to their neighbours
        text.json                                  shards and counts; written last
        units/<shard>.parquet                      CUT_SCHEMA
        work/                                      intermediate files, deleted when the text is complete
        embeddings-<fingerprint>/                  embeddings of these units by one encoder
            embeddings.json                        written last
            <shard>.npy                            [n, d], of the same rows
    <fingerprint>/                                 a task store: the units sorted by cluster
        manifest.json, centroids.safetensors, split=<split>/cluster=<cluster>/part-<n>.parquet
        work/                                      deleted when the store is complete

So another number of clusters, or another size of episodes, reads no text and embeds nothing. Every file is written whole or
not at all: an interrupted preparation finds again what was finished.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import ray

from supmer import storage
from supmer.config import CorpusConfig
from supmer.readers.skipped import Skipped

logger = logging.getLogger(__name__)

TEXT, EMBEDDINGS, WORK, LAST_USED = "text.json", "embeddings.json", "work", "last_used"
TEXT_PREFIX, EMBEDDINGS_PREFIX = "text-", "embeddings-"

NAME_LETTERS = 16
"""Letters of a fingerprint in the name of a folder."""


class Shard(NamedTuple):
    """About two million characters of the corpus: the grain of parallelism, of memory and of resumption."""

    name: str
    num_units: int


@dataclass(frozen=True)
class CutText:
    """A complete cut text: its shards in order, and counts of what was kept and left out."""

    uri: str
    shards: list[Shard]
    counts: Skipped


def store_path(corpus: CorpusConfig, identity: str) -> str:
    """Return where the store of a fingerprint lies, or would."""
    return storage.join(storage.absolute(corpus.store_dir), identity[:NAME_LETTERS])


def units_path(text_uri: str, shard: str) -> str:
    return storage.join(text_uri, "units", f"{shard}.parquet")


def embeddings_path(uri: str, shard: str) -> str:
    return storage.join(uri, f"{shard}.npy")


def complete(uri: str, last_file: str, what: str, make: Callable[[], None]) -> None:
    """Make what is to lie in a folder, unless it is complete: then its `last_file` is there, which `make` writes last.

    Two jobs may make the same at once. The first to end deletes the intermediate files, which the other then misses; the
    other takes what the first has made.
    """
    mark = storage.join(uri, last_file)
    if storage.exists(mark):
        logger.info("%s %s re-used", what, uri)
    else:
        logger.info("preparing %s %s", what, uri)
        try:
            make()
        except (OSError, ray.exceptions.RayError):
            if not storage.exists(mark):
                raise
            logger.info("%s %s was completed by another job meanwhile", what, uri)
        storage.delete_folder(storage.join(uri, WORK))
    mark_used(uri)


def mark_used(uri: str) -> None:
    """Remember that a result was used now; where nothing can be written, nothing is remembered."""
    try:
        storage.write_bytes(storage.join(uri, LAST_USED), b"")
    except storage.StorageError as error:
        logger.debug("%s", error)


def write_text(uri: str, inputs: dict[str, Any], shards: list[Shard], counts: Skipped) -> None:
    """Complete a cut text; `inputs` says what it was made from."""
    about = {"inputs": inputs, "counts": dict(sorted(counts.items())), "places": counts.places, "read_as": counts.read_as}
    storage.write_bytes(storage.join(uri, TEXT), json.dumps(about | {"shards": shards}, indent=1).encode())


def read_text(uri: str) -> CutText:
    about = json.loads(storage.read_bytes(storage.join(uri, TEXT)))
    counts = Skipped(about["counts"], about["places"], about.get("read_as"))
    return CutText(uri, [Shard(*shard) for shard in about["shards"]], counts)


def write_embeddings(uri: str, num_units: int, encoder: str) -> None:
    """Complete embeddings; the number of units and the encoder's name are for people."""
    storage.write_bytes(storage.join(uri, EMBEDDINGS), json.dumps({"num_units": num_units, "encoder": encoder}).encode())
