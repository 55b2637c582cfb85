"""Documents of a corpus as a Ray dataset."""

from __future__ import annotations

import itertools
import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import ray
from ray.data import DataContext, Dataset

from supmer.config import Config, CorpusConfig
from supmer.corpus.cutting import KEY_RANGE, seeded_keys
from supmer.corpus.files import CorpusFile, CorpusFiles, find_files, group_files
from supmer.corpus.hub import HubShard, hub_shards, read_hub
from supmer.corpus.records import Record, check_parquet_column, read_records
from supmer.errors import UserError
from supmer.placement import role_resources

SHARD_CHARACTERS = 2_000_000
"""Documents travel in shards of about this size: the grain of parallelism, of memory and of resumption."""

READER_CPUS = 0.5
"""Reserved by a reading task. Other than what follows it: Ray would otherwise fuse both into one task per file."""


def read_documents(config: Config) -> Dataset:
    """Return the corpus as a lazy dataset with the columns `document` (a stable id) and `text`.

    Rows come in no promised order. Rows that cannot be used are left out here; `read_shards` also counts them.

    Raises:
        UserError: there are no files, or a Parquet file has no text column.
    """
    return read_shards(config.corpus)[0].flat_map(_documents_of)


def read_shards(corpus: CorpusConfig) -> tuple[Dataset, int, str]:
    """Return the corpus as a lazy dataset with one row per shard; how many files (or the like) it has; and what these are.

    Rows come in no promised order. Columns: `shard` (id; the cut into shards depends on the corpus and its settings only),
    `documents` and `texts` (lists of the same length), `skipped` (JSON, counts by reason since the previous shard of the
    same files) and `num_finished` (files that were read to their end with this shard).

    Raises:
        UserError: there are no files, or a Parquet file has no text column.
    """
    quieten_ray_data()
    kind, groups = _sources(corpus)
    if corpus.max_documents is not None:  # one task counts them
        groups = [list(itertools.chain(*groups))]
    rows = [{"group": index, "contents": json.dumps({kind: group})} for index, group in enumerate(groups)]
    shards = ray.data.from_items(rows, override_num_blocks=len(rows)).flat_map(
        _read_group, fn_kwargs={"config": corpus}, num_cpus=READER_CPUS, resources=role_resources("data")
    )
    return shards, sum(len(group) for group in groups), kind


def corpus_files(config: CorpusConfig) -> CorpusFiles:
    """List the input files and check the text column of the first Parquet file (others are counted when they are read)."""
    found = find_files(config)
    parquet = [file for file in found.files if file.format == "parquet"]
    if parquet:
        check_parquet_column(parquet[0], config.text_column)
    return found


def quieten_ray_data() -> None:
    """No progress bars; and a shard is a block of its own, not a few bytes of a large one that one task works on."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = SHARD_CHARACTERS
    context.raise_original_map_exception = True
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # warns that the bars are off


def _sources(config: CorpusConfig) -> tuple[str, list[list[Any]]]:
    """Return the kind of things to read, and what each task reads of them, as JSON values."""
    if config.format == "package_docs":
        if not config.packages:
            raise UserError("corpus.packages=[]: must name at least one package for corpus.format=package_docs")
        return "packages", [[package] for package in config.packages]
    if config.format == "hub":
        return "shards", [[asdict(shard)] for shard in hub_shards(config)]
    return "files", [[asdict(file) for file in group] for group in group_files(corpus_files(config).files)]


def _read_group(row: dict[str, Any], config: CorpusConfig) -> Iterator[dict[str, Any]]:
    """Yield the shards of one group of files or packages (at least one, which carries the counts)."""
    contents = json.loads(row["contents"])
    skipped: Counter[str] = Counter()
    documents: list[Record] = []
    size = number = 0

    def shard(num_finished: int) -> dict[str, Any]:
        return {
            "shard": f"{row['group']:06d}-{number:06d}",
            "documents": [document for document, _ in documents],
            "texts": [text for _, text in documents],
            "skipped": json.dumps(skipped),
            "num_finished": num_finished,
        }

    for document in itertools.islice(_records(contents, config, skipped), config.max_documents):
        documents.append(document)
        size += len(document[1])
        if size >= SHARD_CHARACTERS:
            yield shard(num_finished=0)
            documents, size, number = [], 0, number + 1
            skipped.clear()
    yield shard(num_finished=sum(len(group) for group in contents.values()))


def _records(contents: dict[str, Any], config: CorpusConfig, skipped: Counter[str]) -> Iterator[Record]:
    if "packages" in contents:
        from supmer.corpus.package_docs import iter_documents

        for row in iter_documents(contents["packages"]):
            yield row["document"], row["text"]
        return
    shares = dict(zip(config.paths, config.shares, strict=bool(config.shares)))
    for source, records in _by_source(contents, config, skipped):
        share = shares.get(source, 1.0)
        for document, text in records:
            if share == 1 or is_drawn(config.seed, document, share):
                yield document, text
            else:
                skipped["not_drawn"] += 1


def _by_source(
    contents: dict[str, Any], config: CorpusConfig, skipped: Counter[str]
) -> Iterator[tuple[str, Iterator[Record]]]:
    """Yield the entry of `corpus.paths` and the records of each file or shard of a group."""
    for values in contents.get("shards", ()):
        shard = HubShard(**values)
        yield shard.name, read_hub(shard, config, skipped)
    for values in contents.get("files", ()):
        file = CorpusFile(**values)
        yield file.source, read_records(file, config, skipped)


def is_drawn(seed: int, document: str, share: float) -> bool:
    """Return whether a document belongs to the seeded share of its source that is kept."""
    return seeded_keys(seed, document)[1] < share * KEY_RANGE


def _documents_of(shard: dict[str, Any]) -> list[dict[str, str]]:
    return [
        {"document": str(document), "text": str(text)}
        for document, text in zip(shard["documents"], shard["texts"], strict=True)
    ]
