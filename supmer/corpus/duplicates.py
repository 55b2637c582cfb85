"""Exact duplicates across the whole corpus, without any process holding more than a range of the hashes.

Every part lists a hash of each of its documents and units, sorted. A task gathers one range of hash values from all parts
and names what is not the first of its kind; the first is that of the first part in order, so parallelism changes nothing.
The hashes have 64 bits: among a billion units about 0.03 pairs that differ are taken for equal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import pyarrow as pa

HASHES_PER_RANGE = 4_000_000
"""Hashes that one task holds, at 16 bytes each and as many to sort them."""

KEYS = 2**64

HASH_SCHEMA = pa.schema([("key", pa.uint64()), ("row", pa.int32()), ("is_unit", pa.bool_())])
"""`row` counts the documents of a part, or its units; sorted by key."""

REPEATED_SCHEMA = pa.schema([("part", pa.int32()), ("row", pa.int32()), ("is_unit", pa.bool_())])
"""What is to be dropped, sorted by the number of the part."""


def hash_part(pieces: pa.Table, which: Literal["units", "documents", "none"]) -> pa.Table:
    """Return the HASH_SCHEMA table of a part; a document is known by its units, so that their white space is no matter."""
    texts = pieces["text"].to_pylist()
    documents = [_key("\n".join(texts[start:stop])) for start, stop in document_bounds(pieces)] if which != "none" else []
    units = [_key(text) for text in texts] if which == "units" else []
    keys = np.array(documents + units, dtype=np.uint64)
    rows = np.concatenate([np.arange(len(documents)), np.arange(len(units))])
    order = np.argsort(keys, kind="stable")
    is_unit = np.arange(len(keys)) >= len(documents)
    return pa.table([keys[order], rows[order].astype(np.int32), is_unit[order]], schema=HASH_SCHEMA)


def key_ranges(num_keys: int, per_range: int = HASHES_PER_RANGE) -> list[tuple[int, int]]:
    """Cut the values of a hash into ranges [low, high) that hold about `per_range` of `num_keys` keys each."""
    num_ranges = max(1, -(-num_keys // per_range))
    return list(pairwise([KEYS * number // num_ranges for number in range(num_ranges + 1)]))


def find_repeated(hashes: Sequence[pa.Table]) -> pa.Table:
    """Return the REPEATED_SCHEMA table of a range of hashes, given by part (in order)."""
    parts = np.repeat(np.arange(len(hashes), dtype=np.int32), [len(table) for table in hashes])
    table = pa.concat_tables([HASH_SCHEMA.empty_table(), *hashes])
    keys, rows, is_unit = (table[name].to_numpy() for name in HASH_SCHEMA.names)
    order = np.lexsort((rows, parts, is_unit, keys))
    same = (np.diff(keys[order]) == 0) & (is_unit[order][1:] == is_unit[order][:-1])
    repeated = order[1:][same]
    repeated = repeated[np.argsort(parts[repeated], kind="stable")]
    return pa.table([parts[repeated], rows[repeated], is_unit[repeated]], schema=REPEATED_SCHEMA)


def document_bounds(pieces: pa.Table) -> list[tuple[int, int]]:
    """Return the first row of each document of a part, and the row after its last."""
    counts = pieces["document_row"].combine_chunks().value_counts().field("counts").to_pylist()
    return list(pairwise(np.cumsum([0, *counts]).tolist()))


def _key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
