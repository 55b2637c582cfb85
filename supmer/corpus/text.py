"""First step of a preparation, over shards: read, cut, drop duplicates, link to neighbours.

What is made of a shard is a file; only names, counts and a tokenizer pass between processes, so memory does not grow with
the corpus, and the outcome does not depend on which process made what. Intermediate files, in the text's work folder:

    excluded.parquet         runs of words that must not occur (EXCLUDED_SCHEMA)
    cut/<shard>.parquet      usable units of a shard (PIECE_SCHEMA), counts in the file's metadata
    hashes/<shard>.parquet   hashes of its documents and units, sorted (HASH_SCHEMA)
    shards.json              all shards with their counts, once the whole corpus is cut
    repeated/<range>.parquet documents and units of a range of hashes that occurred before (REPEATED_SCHEMA)
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from supmer import storage
from supmer.config import Config, CorpusConfig
from supmer.corpus.contamination import ExcludedText, read_excluded
from supmer.corpus.cutting import cut_documents, link_units
from supmer.corpus.duplicates import REPEATED_SCHEMA, find_repeated, hash_part, key_ranges
from supmer.corpus.levels import WORK, Shard, units_path, write_text
from supmer.corpus.reading import list_groups, read_group, read_shards
from supmer.corpus.steps import run_step
from supmer.corpus.tables import read_counts, read_table, with_counts, write_table
from supmer.placement import role_resources
from supmer.progress import Progress
from supmer.readers.skipped import Skipped

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CUT = "units_cut"
"""Count of a shard's units as they are cut, kept with the shard and not reported."""

HASH_ROW_GROUP = 1024
"""Rows read at least for one range of hashes, or for one shard of what is repeated."""


def make_text(config: Config, inputs: dict[str, Any], tokenizer: PreTrainedTokenizerBase, uri: str, here: bool) -> None:
    """Cut the whole corpus into linked units below `uri`, in this process or on Ray; what is finished already is kept."""
    work, corpus = storage.join(uri, WORK), config.corpus
    finished, excluded = storage.join(work, "shards.json"), storage.join(work, "excluded.parquet")
    cut: dict[str, Skipped] = {}  # the shards, with their counts
    if storage.exists(finished):
        cut = {name: Skipped.load(counts) for name, counts in json.loads(storage.read_bytes(finished)).items()}
    else:
        if not storage.exists(excluded):
            write_table(excluded, read_excluded(corpus).to_table())
        rows: Iterable[dict[str, Any]]
        if here:
            groups, num_sources, what = list_groups(corpus)
            rows = (cut_shard(shard, tokenizer, corpus, work) for group in groups for shard in read_group(group, corpus))
        else:
            shards, num_sources, what = read_shards(corpus)
            arguments = {"tokenizer": ray.put(tokenizer), "corpus": corpus, "work": work}
            rows = shards.map(cut_shard, fn_kwargs=arguments, num_cpus=1, resources=role_resources("data")).iter_rows()
        num_units = 0
        with Progress("reading and cutting", num_sources, what) as progress:
            for row in rows:
                cut[row["shard"]] = Skipped.load(row["counts"])
                num_units += cut[row["shard"]][CUT]
                progress.note = f"{num_units:,} sentences"
                progress.add(row["num_finished"])
        cut = dict(sorted(cut.items()))
        storage.write_bytes(finished, json.dumps({name: counts.dump() for name, counts in cut.items()}).encode())

    ranges = [] if corpus.deduplicate == "none" else key_ranges(sum(counts[CUT] for counts in cut.values()))
    if ranges:
        finding = Progress("finding duplicates", len(ranges), "ranges of hashes")
        numbered = [(number, low, high) for number, (low, high) in enumerate(ranges)]
        run_step(finding, find_range, [work, list(cut)], numbered, here)
    linking = Progress("linking sentences to their neighbours", len(cut), "shards")
    parts = list(zip(cut, range(len(cut)), strict=False))
    linked: list[Skipped] = run_step(linking, link_shard, [uri, len(ranges), corpus], parts, here)
    counts = Skipped()
    for one in (*cut.values(), *linked):
        counts.merge(one)
    del counts[CUT]
    write_text(uri, inputs, [Shard(name, one["units"]) for name, one in zip(cut, linked, strict=True)], counts)


def cut_shard(
    row: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase | ray.ObjectRef[PreTrainedTokenizerBase],
    corpus: CorpusConfig,
    work: str,
) -> dict[str, Any]:
    """Cut the documents of a shard of `read_group` into units and write them, unless an earlier attempt did."""
    file = storage.join(work, "cut", f"{row['shard']}.parquet")
    counts = read_counts(file)
    if counts is None:
        documents = list(zip(row["documents"], row["texts"], strict=True))
        excluded = _excluded_text(storage.join(work, "excluded.parquet"))
        known = _fetched(tokenizer) if isinstance(tokenizer, ray.ObjectRef) else tokenizer
        pieces, of_cutting = cut_documents(documents, corpus, known, excluded, row["sources"])
        counts = Skipped.load(row["skipped"])
        counts.merge(of_cutting)
        counts["files_read"] = row["num_finished"]
        counts[CUT] = len(pieces)
        hashes = hash_part(pieces, corpus.deduplicate)
        write_table(_hashes(work, row["shard"]), hashes, HASH_ROW_GROUP)
        write_table(file, with_counts(pieces, counts))
    return {"shard": row["shard"], "counts": counts.dump(), "num_finished": row["num_finished"]}


def find_range(work: str, shards: list[str], number: int, low: int, high: int) -> None:
    """Write what is repeated of the hashes in [low, high); only the row groups that hold some are read."""
    file = _repeated(work, number)
    if storage.exists(file):
        return
    wanted = (pc.field("key") >= pa.scalar(low, pa.uint64())) & (pc.field("key") <= pa.scalar(high - 1, pa.uint64()))
    table = find_repeated([read_table(_hashes(work, shard), filters=wanted) for shard in shards])
    write_table(file, table, HASH_ROW_GROUP)


def link_shard(uri: str, num_ranges: int, corpus: CorpusConfig, name: str, number: int) -> Skipped:
    """Drop repeated documents and units of a shard and give the others their neighbours; return the counts."""
    file, work = units_path(uri, name), storage.join(uri, WORK)
    counts = read_counts(file)
    if counts is None:
        own = pc.field("part") == pa.scalar(number, pa.int32())
        tables = [read_table(_repeated(work, index), filters=own) for index in range(num_ranges)]
        repeated = pa.concat_tables([REPEATED_SCHEMA.empty_table(), *tables])
        units, of_linking = link_units(read_table(storage.join(work, "cut", f"{name}.parquet")), repeated, corpus)
        counts = Skipped(of_linking)
        write_table(file, with_counts(units, counts))
    return counts


def _hashes(work: str, shard: str) -> str:
    return storage.join(work, "hashes", f"{shard}.parquet")


def _repeated(work: str, number: int) -> str:
    return storage.join(work, "repeated", f"{number:06d}.parquet")


@lru_cache(maxsize=1)
def _excluded_text(uri: str) -> ExcludedText:
    return ExcludedText.from_table(read_table(uri))


_fetched = lru_cache(maxsize=1)(ray.get)
"""Fetches the tokenizer that the driver has loaded: that takes less than to find and load it, as one of any model."""
