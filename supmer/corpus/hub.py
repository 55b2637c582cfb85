"""Data sets by their names on the Hugging Face hub (or folders that `datasets` can load), streamed row by row.

Nothing is downloaded as a whole, and no code of a data set is run. A shard of the stream, one or a few of its files, is
what one task reads.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from huggingface_hub import constants, get_session

from supmer.backbone.hub import ANSWER_SECONDS, error_of
from supmer.config import CorpusConfig
from supmer.corpus.records import Record, document_id, usable_records
from supmer.errors import UserError, one_line, setting_error
from supmer.readers.skipped import Skipped
from supmer.readers.values import column_of, decoded

logger = logging.getLogger(__name__)

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
        raise setting_error("corpus.paths", "[]", "must name at least one data set for corpus.format=hub")
    shards = []
    for name in config.paths:
        stream = _open(name, config, split=config.hub_split, streaming=True)
        columns = stream.column_names
        if columns is not None and config.text_column.split(".")[0] not in columns and config.text_column not in columns:
            raise setting_error(
                "corpus.text_column", config.text_column, f"{name} has no such column, only {', '.join(columns)}"
            )
        num_shards = min(stream.num_shards, MAX_SHARDS)
        shards += [HubShard(name, index, num_shards) for index in range(num_shards)]
    return shards


def read_hub(shard: HubShard, config: CorpusConfig, skipped: Skipped) -> Iterator[Record]:
    """Yield (document id, text) of every usable row of a shard; one that breaks off gives the rows before the break."""
    try:
        stream = _open(shard.name, config, split=config.hub_split, streaming=True).shard(shard.num_shards, shard.index)
        source = f"{shard.name}/{config.hub_split}-{shard.index}"
        rows = (
            (
                document_id(source, row, config.id_column and column_of(values, config.id_column)),
                row + 1,
                decoded(column_of(values, config.text_column), config.encoding),
            )
            for row, values in enumerate(stream)
        )
        yield from usable_records(rows, shard.name, skipped)
    except (OSError, ValueError, UserError) as error:
        skipped.add("broken_files", f"{shard.name}, shard {shard.index}")
        logger.warning("%s, shard %d, breaks off: %s", shard.name, shard.index, one_line(error)[:200])


@contextmanager
def answering_hub(name: str) -> Iterator[None]:
    """Look for a data set on the hub; where the hub does not answer soon, only what is cached is read in this block.

    The client's own retries would take half a minute of silence. A folder is no matter of the hub.
    """
    import datasets

    if os.path.isdir(name) or constants.HF_HUB_OFFLINE:
        yield
        return
    logger.info("looking for %s on the hub", name)
    silent = _why_silent()
    if silent:
        logger.warning("%s does not answer (%s): only what is cached is read", constants.ENDPOINT, silent)
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = bool(silent)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = False


@cache
def _why_silent() -> str | None:
    """Return why the hub gave no answer within ANSWER_SECONDS, None if it did."""
    error = error_of(lambda: get_session().head(constants.ENDPOINT, timeout=ANSWER_SECONDS))
    return one_line(error)[:150] if error else None


def describe_hub(config: CorpusConfig) -> dict[str, list[str]]:
    """Return what identifies the content of each data set: the commit on the hub, or a hash over the files of a folder.

    Raises:
        UserError: a data set cannot be opened.
    """
    builders = [_open(name, config, "load_dataset_builder") for name in config.paths]
    identities = zip(config.paths, builders, strict=True)
    return {"data_sets": [f"{name} {builder.config_id} {builder.hash}" for name, builder in identities]}


def _open(name: str, config: CorpusConfig, load: str = "load_dataset", **options: Any) -> Any:
    """Call a function of `datasets` that takes a data set's name, subset and revision."""
    import datasets  # slow, and needed for this format only

    try:
        with answering_hub(name):
            return getattr(datasets, load)(name, config.hub_subset, revision=config.hub_revision, **options)
    except Exception as error:  # the library raises many kinds; all mean that the data cannot be had
        why = f"cannot be opened as a data set ({one_line(error)[:200]})"
        raise setting_error("corpus.paths", name, why) from error
