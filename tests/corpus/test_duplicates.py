"""Duplicates found range by range against a dictionary of everything."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supmer.corpus.cutting import PIECE_SCHEMA
from supmer.corpus.duplicates import KEYS, document_bounds, find_repeated, hash_part, key_ranges

Corpus = list[list[list[str]]]
"""Texts of units by part and document."""

documents = st.lists(st.sampled_from("abcde"), min_size=1, max_size=3)
corpora = st.lists(st.lists(documents, max_size=4), max_size=5)


def pieces_of(part: list[list[str]]) -> pa.Table:
    rows = [
        {"document_row": number, "document": "d", "text": text, "tokens": [1]}
        for number, document in enumerate(part)
        for text in document
    ]
    return pa.Table.from_pylist(rows, schema=PIECE_SCHEMA)


def expected(corpus: Corpus) -> set[tuple[int, int, bool]]:
    """What occurred before, by looking at one document after the other."""
    seen: set[object] = set()
    repeated = set()
    for number, part in enumerate(corpus):
        flat = [text for document in part for text in document]
        for is_unit, items in ((False, [tuple(document) for document in part]), (True, flat)):
            for row, item in enumerate(items):
                if item in seen:
                    repeated.add((number, row, is_unit))
                seen.add(item)
    return repeated


@given(corpora, st.integers(1, 20))
def test_every_later_occurrence_is_named(corpus: Corpus, per_range: int) -> None:
    hashes = [hash_part(pieces_of(part), "units") for part in corpus]
    ranges = key_ranges(sum(map(len, hashes)), per_range)
    assert (ranges[0][0], ranges[-1][1]) == (0, KEYS)
    found = []
    for low, high in ranges:
        inside = [pc.and_(pc.greater_equal(h["key"], pa.scalar(low, pa.uint64())), is_below(h["key"], high)) for h in hashes]
        table = find_repeated([one.filter(mask) for one, mask in zip(hashes, inside, strict=True)])
        assert table["part"].to_pylist() == sorted(table["part"].to_pylist())
        found += [(row["part"], row["row"], row["is_unit"]) for row in table.to_pylist()]
    assert len(found) == len(set(found))
    assert set(found) == expected(corpus)


def is_below(keys: pa.ChunkedArray, high: int) -> pa.ChunkedArray:
    return pc.less_equal(keys, pa.scalar(high - 1, pa.uint64()))


@pytest.mark.parametrize(("which", "documents", "units"), [("documents", 2, 0), ("none", 0, 0), ("units", 2, 3)])
def test_what_is_hashed_is_a_choice(which: str, documents: int, units: int) -> None:
    table = hash_part(pieces_of([["a", "b"], ["c"]]), which)
    assert table["is_unit"].to_pylist().count(False) == documents
    assert table["is_unit"].to_pylist().count(True) == units
    assert np.all(np.diff(table["key"].to_numpy().astype(object)) >= 0)


def test_bounds_of_documents() -> None:
    assert document_bounds(pieces_of([["a", "b"], ["c"], ["d", "e"]])) == [(0, 2), (2, 3), (3, 5)]
    assert document_bounds(pieces_of([])) == []
