"""First step of a preparation, as Ray computations over shards: read, cut, drop duplicates, link to neighbours.

What is made of a shard is a file; only names, counts and a tokenizer pass through Ray, so memory does not grow with the
corpus, and the outcome does not depend on which process made what. Intermediate files, in the text's work folder:

    excluded.parquet         runs of words that must not occur (EXCLUDED_SCHEMA)
    cut/<shard>.parquet      usable units of a shard (PIECE_SCHEMA), counts in the file's metadata
    hashes/<shard>.parquet   hashes of its documents and units, sorted (HASH_SCHEMA)
    shards.json              all shards with their counts, once the whole corpus is cut
    repeated/<range>.parquet documents and units of a range of hashes that occurred before (REPEATED_SCHEMA)
"""

from __future__ import annotations

import json
from collections import Counter
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from supmer import storage
from supmer.config import Config, CorpusConfig
from supmer.corpus.contamination import ExcludedText, read_excluded
from supmer.corpus.cutting import cut_documents, link_units
from supmer.corpus.duplicates import REPEATED_SCHEMA, Repeated, find_repeated, hash_part, key_ranges
from supmer.corpus.levels import WORK, Shard, units_path, write_text
from supmer.corpus.progress import Progress
from supmer.corpus.reading import read_shards
from supmer.corpus.tables import full_row_groups, read_counts, read_table, with_counts, write_table
from supmer.placement import on_data_nodes, role_resources

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CUT = "units_cut"
"""Count of a shard's units as they are cut, kept with the shard and not reported."""

HASH_ROW_GROUP = 1024
"""Rows read at least for one range of hashes, or for one shard of what is repeated."""


def make_text(config: Config, inputs: dict[str, Any], tokenizer: PreTrainedTokenizerBase, uri: str) -> None:
    """Cut the whole corpus into linked units below `uri`; what an earlier attempt finished is kept."""
    work = storage.join(uri, WORK)
    cut = _cut(config, tokenizer, work)
    num_ranges = _find_duplicates(cut, config.corpus, work)
    with Progress("linking sentences to their neighbours", len(cut), "shards") as progress:
        link = on_data_nodes(_link_shard)
        corpus = ray.put(config.corpus)
        tasks = [link.remote(uri, name, number, num_ranges, corpus) for number, (name, _) in enumerate(cut.items())]
        linked: list[Counter[str]] = progress.gather(tasks)
    counts = sum(linked, sum(cut.values(), Counter[str]()))
    del counts[CUT]
    shards = [Shard(name, one["units"]) for name, one in zip(cut, linked, strict=True)]
    write_text(uri, inputs, shards, counts)


def _cut(config: Config, tokenizer: PreTrainedTokenizerBase, work: str) -> dict[str, Counter[str]]:
    """Read and cut the corpus; return the shards in order, with their counts."""
    finished = storage.join(work, "shards.json")
    if storage.exists(finished):
        return {name: Counter(counts) for name, counts in json.loads(storage.read_bytes(finished)).items()}
    excluded = storage.join(work, "excluded.parquet")
    if not storage.exists(excluded):
        write_table(excluded, read_excluded(config.corpus).to_table())
    shards, num_sources, what = read_shards(config.corpus)
    cut_shard = CutShard(ray.put(tokenizer), config.corpus, work)
    cut = {}
    with Progress("reading and cutting", num_sources, what) as progress:
        num_units = 0
        for row in shards.map(cut_shard, num_cpus=1, resources=role_resources("data")).iter_rows():
            cut[row["shard"]] = Counter(json.loads(row["counts"]))
            num_units += cut[row["shard"]][CUT]
            progress.note = f", {num_units:,} sentences"
            progress.add(row["num_finished"])
    cut = dict(sorted(cut.items()))
    storage.write_bytes(finished, json.dumps(cut).encode())
    return cut


class CutShard:
    """Cut the documents of a shard into units and write them, unless an earlier attempt did."""

    def __init__(self, tokenizer: ray.ObjectRef[PreTrainedTokenizerBase], corpus: CorpusConfig, work: str) -> None:
        self.tokenizer = tokenizer
        self.corpus = corpus
        self.work = work

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        file = storage.join(self.work, "cut", f"{row['shard']}.parquet")
        counts = read_counts(file)
        if counts is None:
            documents = list(zip(row["documents"], row["texts"], strict=True))
            excluded = _excluded_text(storage.join(self.work, "excluded.parquet"))
            pieces, counts = cut_documents(documents, self.corpus, _tokenizer(self.tokenizer), excluded)
            counts.update(json.loads(row["skipped"]))
            counts[CUT] = len(pieces)
            hashes = hash_part(pieces, self.corpus.deduplicate)
            write_table(_hashes(self.work, row["shard"]), hashes, full_row_groups(len(hashes), HASH_ROW_GROUP))
            write_table(file, with_counts(pieces, counts))
        return {"shard": row["shard"], "counts": json.dumps(counts), "num_finished": row["num_finished"]}


def _find_duplicates(cut: dict[str, Counter[str]], corpus: CorpusConfig, work: str) -> int:
    """Name the documents and units that occurred before, a range of hashes a task; return the number of ranges."""
    if corpus.deduplicate == "none":
        return 0
    ranges = key_ranges(sum(counts[CUT] for counts in cut.values()))
    names = ray.put(list(cut))
    find = on_data_nodes(_find_range)
    with Progress("finding duplicates", len(ranges), "ranges of hashes") as progress:
        progress.gather([find.remote(work, names, number, low, high) for number, (low, high) in enumerate(ranges)])
    return len(ranges)


def _find_range(work: str, shards: list[str], number: int, low: int, high: int) -> None:
    """Write what is repeated of the hashes in [low, high); only the row groups that hold some are read."""
    file = _repeated(work, number)
    if storage.exists(file):
        return
    wanted = (pc.field("key") >= pa.scalar(low, pa.uint64())) & (pc.field("key") <= pa.scalar(high - 1, pa.uint64()))
    table = find_repeated([read_table(_hashes(work, shard), filters=wanted) for shard in shards])
    write_table(file, table, full_row_groups(len(table), HASH_ROW_GROUP))


def _link_shard(uri: str, name: str, number: int, num_ranges: int, corpus: CorpusConfig) -> Counter[str]:
    """Drop repeated documents and units of a shard and give the others their neighbours; return the counts."""
    file, work = units_path(uri, name), storage.join(uri, WORK)
    counts = read_counts(file)
    if counts is None:
        own = pc.field("part") == pa.scalar(number, pa.int32())
        tables = [read_table(_repeated(work, index), filters=own) for index in range(num_ranges)]
        repeated = Repeated.of(pa.concat_tables([REPEATED_SCHEMA.empty_table(), *tables]))
        units, counts = link_units(read_table(storage.join(work, "cut", f"{name}.parquet")), repeated, corpus)
        write_table(file, with_counts(units, counts))
    return counts


def _hashes(work: str, shard: str) -> str:
    return storage.join(work, "hashes", f"{shard}.parquet")


def _repeated(work: str, number: int) -> str:
    return storage.join(work, "repeated", f"{number:06d}.parquet")


@lru_cache(maxsize=1)
def _excluded_text(uri: str) -> ExcludedText:
    return ExcludedText.from_table(read_table(uri))


@lru_cache(maxsize=1)
def _tokenizer(reference: ray.ObjectRef[PreTrainedTokenizerBase]) -> PreTrainedTokenizerBase:
    """Fetch the tokenizer that the driver has loaded, which takes less than to find and load it as one of any model."""
    return ray.get(reference)
