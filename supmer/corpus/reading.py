"""Documents of a corpus, in shards that tasks of Ray Data or this process read."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from supmer.config import CorpusConfig
from supmer.corpus.cutting import KEY_RANGE, seeded_keys
from supmer.corpus.hub import HubShard, hub_shards, read_hub
from supmer.corpus.records import Record, read_options, read_records
from supmer.errors import setting_error
from supmer.placement import role_resources
from supmer.readers.files import SUFFIXES, FoundFiles, InputFile, list_files
from supmer.readers.rows import check_columns
from supmer.readers.skipped import Skipped

if TYPE_CHECKING:  # takes seconds to import, and a small corpus does without
    from ray.data import Dataset

SHARD_CHARACTERS = 2_000_000
"""Documents travel in shards of about this size: the grain of parallelism, of memory and of resumption."""

logger = logging.getLogger(__name__)

GROUP_BYTES = 32 << 20
"""Small files are read together until they reach this size, so that a folder of many of them needs few tasks."""

READER_CPUS = 0.5
"""Reserved by a reading task. Other than what follows it: Ray would otherwise fuse both into one task per file."""


def read_shards(corpus: CorpusConfig) -> tuple[Dataset, int, str]:
    """Return a lazy dataset of the shards of `read_group`; how many files (or the like) there are, and what these are.

    Rows come in no promised order.

    Raises:
        UserError: there are no files, or one has no text column.
    """
    import ray.data

    quieten_ray_data()
    groups, num_sources, kind = list_groups(corpus)
    shards = ray.data.from_items(groups, override_num_blocks=len(groups)).flat_map(
        read_group, fn_kwargs={"config": corpus}, num_cpus=READER_CPUS, resources=role_resources("data")
    )
    return shards, num_sources, kind


def list_groups(corpus: CorpusConfig) -> tuple[list[dict[str, Any]], int, str]:
    """Return what one task reads after the other, for `read_group`; how many files (or the like) these are, and their kind.

    Raises:
        UserError: there are no files, or one has no text column.
    """
    kind: str
    groups: list[list[Any]]
    if corpus.format == "package_docs":
        if not corpus.packages:
            raise setting_error("corpus.packages", [], "must name at least one package for corpus.format=package_docs")
        kind, groups = "packages", [[package] for package in corpus.packages]
    elif corpus.format == "hub":
        _check_shares(corpus)
        kind, groups = "shards", [[asdict(shard)] for shard in hub_shards(corpus)]
    else:
        kind, groups = "files", [[asdict(file) for file in group] for group in group_files(corpus_files(corpus).files)]
    if corpus.max_documents is not None:  # one task counts them
        groups = [list(itertools.chain(*groups))]
    rows = [{"group": index, "contents": json.dumps({kind: group})} for index, group in enumerate(groups)]
    return rows, sum(len(group) for group in groups), kind


def find_files(config: CorpusConfig) -> FoundFiles:
    """List the files of `corpus.paths`.

    Raises:
        UserError: no paths given, a path does not exist, or there is no readable file.
    """
    if not config.paths:
        allowed = "must name at least one file, folder or glob (or set corpus.format=package_docs)"
        raise setting_error("corpus.paths", [], allowed)
    _check_shares(config)
    found = list_files(config.paths, config.format, "corpus.paths")
    if not found.files:
        known = f"text, JSON, CSV, Parquet or a saved data set ({' '.join(SUFFIXES)}, compressed or not)"
        none = f"none of the {found.num_ignored} files there is named as {known}; corpus.format says it otherwise"
        raise setting_error("corpus.paths", ", ".join(config.paths), none if found.num_ignored else "no files there")
    return found


def corpus_files(config: CorpusConfig) -> FoundFiles:
    """List the input files, and check the text column of the first one and the first Parquet file; others are counted."""
    found = find_files(config)
    firsts = [found.files[0], *(file for file in found.files if file.format == "parquet")][:2]
    for file in dict.fromkeys(firsts):
        if how := check_columns(file, read_options(config), config.text_column, "corpus.text_column"):
            logger.info("%s is read with %s", file.path, how)
    return found


def quieten_ray_data() -> None:
    """No progress bars; and a shard is a block of its own, not a few bytes of a large one that one task works on."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = SHARD_CHARACTERS
    context.raise_original_map_exception = True
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # warns that the bars are off


def group_files(files: Sequence[InputFile], max_bytes: int = GROUP_BYTES) -> Iterator[list[InputFile]]:
    """Cut the list into runs of at most `max_bytes` (or one file), each of which one task reads."""
    group: list[InputFile] = []
    size = 0
    for file in files:
        if group and size + file.size > max_bytes:
            yield group
            group, size = [], 0
        group.append(file)
        size += file.size
    if group:
        yield group


def read_group(row: dict[str, Any], config: CorpusConfig) -> Iterator[dict[str, Any]]:
    """Yield the shards of one group of files or packages (at least one, which carries the counts).

    Columns: `shard` (id; the cut into shards depends on the corpus and its settings only), `documents`, `texts` and
    `sources` (lists of the same length; a source is a path of `corpus.paths`, a data set or a package), `skipped` (JSON,
    counts by reason since the previous shard of the group) and `num_finished` (files that were read to their end with it).
    """
    contents = json.loads(row["contents"])
    skipped = Skipped()
    documents: list[tuple[str, Record]] = []
    size = number = 0

    def shard(num_finished: int) -> dict[str, Any]:
        return {
            "shard": f"{row['group']:06d}-{number:06d}",
            "documents": [name for _, (name, _) in documents],
            "texts": [text for _, (_, text) in documents],
            "sources": [source for source, _ in documents],
            "skipped": skipped.dump(),
            "num_finished": num_finished,
        }

    for document in itertools.islice(_records(contents, config, skipped), config.max_documents):
        documents.append(document)
        size += len(document[1][1])
        if size >= SHARD_CHARACTERS:
            yield shard(num_finished=0)
            documents, size, number = [], 0, number + 1
            skipped.clear()
    yield shard(num_finished=sum(len(group) for group in contents.values()))


def _records(contents: dict[str, Any], config: CorpusConfig, skipped: Skipped) -> Iterator[tuple[str, Record]]:
    """Yield the source and the record of each document of a group that `corpus.shares` keeps."""
    if "packages" in contents:
        from supmer.corpus.package_docs import iter_documents

        for module, text in iter_documents(contents["packages"]):
            yield next(name for name in contents["packages"] if f"{module}.".startswith(f"{name}.")), (module, text)
        return
    shares = dict(zip(config.paths, config.shares, strict=bool(config.shares)))
    shards = [HubShard(**values) for values in contents.get("shards", ())]
    files = [InputFile(**values) for values in contents.get("files", ())]
    sources = [(shard.name, read_hub(shard, config, skipped)) for shard in shards]
    sources += [(file.source, read_records(file, config, skipped)) for file in files]
    for source, records in sources:
        share = shares.get(source, 1.0)
        for record in records:
            if share == 1 or is_drawn(config.seed, record[0], share):
                yield source, record
            else:
                skipped["not_drawn"] += 1


def is_drawn(seed: int, document: str, share: float) -> bool:
    """Return whether a document belongs to the seeded share of its source that is kept."""
    return seeded_keys(seed, document)[1] < share * KEY_RANGE


def _check_shares(config: CorpusConfig) -> None:
    if config.shares and len(config.shares) != len(config.paths):
        allowed = f"must have one number for each of the {len(config.paths)} corpus.paths"
        raise setting_error("corpus.shares", config.shares, allowed)
