"""Data sets by their names on the Hugging Face hub (or folders that `datasets` can load), streamed row by row.

Nothing is downloaded as a whole, and no code of a data set is run. A shard of the stream, one or a few of its files, is
what one task reads.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from supmer.config import CorpusConfig
from supmer.corpus.files import check_shares
from supmer.corpus.records import Record, document_id, usable_records
from supmer.errors import UserError

MAX_SHARDS = 512
"""Tasks of one data set at most: a shard of a larger one has several files."""


@dataclass(frozen=True)
class HubShard:
    """Part `index` of `num_shards` of a data set's stream."""

    name: str
    index: int
    num_shards: int


def hub_shards(config: CorpusConfig) -> list[HubShard]:
    """List the shards of all data sets of `corpus.paths`.

    Raises:
        UserError: no name is given, a data set cannot be opened, or it has no text column.
    """
    if not config.paths:
        raise UserError("corpus.paths=[]: must name at least one data set for corpus.format=hub")
    check_shares(config)
    shards = []
    for name in config.paths:
        stream = _open(name, config)
        columns = stream.column_names
        if columns is not None and config.text_column not in columns:
            raise UserError(f"corpus.text_column={config.text_column}: {name} has no such column, only {', '.join(columns)}")
        num_shards = min(stream.num_shards, MAX_SHARDS)
        shards += [HubShard(name, index, num_shards) for index in range(num_shards)]
    return shards


def read_hub(shard: HubShard, config: CorpusConfig, skipped: Counter[str]) -> Iterator[Record]:
    """Yield (document id, text) of every usable row of a shard; one that breaks off gives the rows before the break."""
    try:
        stream = _open(shard.name, config).shard(shard.num_shards, shard.index)
        yield from usable_records(_rows(stream, shard, config), skipped)
    except (OSError, ValueError, UserError) as error:
        skipped["broken_files"] += 1
        reason = " ".join(str(error).split())[:200]
        logging.getLogger(__name__).warning("%s, shard %d, breaks off: %s", shard.name, shard.index, reason)


def describe_hub(config: CorpusConfig) -> dict[str, list[str]]:
    """Return what identifies the content of each data set: the commit on the hub, or a hash over the files of a folder.

    Raises:
        UserError: a data set cannot be opened.
    """
    from datasets import load_dataset_builder

    identities = []
    for name in config.paths:
        try:
            builder = load_dataset_builder(name, config.hub_subset, revision=config.hub_revision)
        except Exception as error:
            raise _cannot_open(name, error) from error
        identities.append(f"{name} {builder.config_id} {builder.hash}")
    return {"data_sets": identities}


def _open(name: str, config: CorpusConfig) -> Any:
    from datasets import load_dataset  # slow to import, and needed for this format only

    try:
        return load_dataset(name, config.hub_subset, split=config.hub_split, revision=config.hub_revision, streaming=True)
    except Exception as error:  # the library raises many kinds; all mean that the data cannot be had
        raise _cannot_open(name, error) from error


def _cannot_open(name: str, error: Exception) -> UserError:
    return UserError(f"corpus.paths={name}: cannot be opened as a data set ({' '.join(str(error).split())[:200]})")


def _rows(stream: Any, shard: HubShard, config: CorpusConfig) -> Iterator[tuple[str, Any]]:
    source = f"{shard.name}/{config.hub_split}-{shard.index}"
    for row, values in zip(itertools.count(), stream, strict=False):
        yield document_id(source, row, values.get(config.id_column)), values.get(config.text_column)
