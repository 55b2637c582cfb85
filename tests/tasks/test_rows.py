"""Cutting rows to length: what must survive does, and the longest texts are cut first."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from made_up_tasks import made_up_vocabulary

from supmer.corpus.unit import UnitKey
from supmer.tasks.episode import NO_CENTROID
from supmer.tasks.rows import RowLimits, Segment, choice_row, cluster_row, pair_row, share_room

VOCABULARY = made_up_vocabulary()


def segment(length: int, token: int = 100) -> Segment:
    return Segment(np.full(length, token, dtype=np.int32), UnitKey("d", token))


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.integers(0, 200))
def test_room_is_shared_by_cutting_the_longest(lengths: list[int], extra: int) -> None:
    room = len(lengths) + extra
    cut = [len(text) for text in share_room([np.arange(length, dtype=np.int32) for length in lengths], room)]
    longest = max(cut)
    assert min(sum(lengths), room) - len(lengths) < sum(cut) <= room
    assert all(after in (before, longest) for before, after in zip(lengths, cut, strict=True))
    if sum(lengths) <= room:
        assert cut == lengths


def test_texts_keep_their_beginning() -> None:
    cut = share_room([np.arange(9, dtype=np.int32), np.arange(2, dtype=np.int32)], 6)
    assert [text.tolist() for text in cut] == [[0, 1, 2, 3], [0, 1]]


def test_pair_row_by_hand() -> None:
    row = pair_row(segment(3, 100), segment(9, 200), 2, VOCABULARY, RowLimits(10, 5))
    assert row.input_ids.tolist() == [100] * 3 + [2] + [200] * 6
    assert row.target_ids.tolist() == [2, 6, 7, 3]
    assert (row.label, row.sources) == (2, {UnitKey("d", 100), UnitKey("d", 200)})


def test_choice_row_by_hand() -> None:
    options = [segment(2, 200), segment(9, 300)]
    row = choice_row(segment(3, 100), options, 1, VOCABULARY, RowLimits(40, 4))
    assert row.input_ids.tolist() == [
        *([100] * 3 + [9]),
        *([10, 8] + [200] * 2 + [8, 8]),
        *([11, 8] + [300] * 4 + [8, 8]),
        *[9, 20, 21, 2],
    ]
    assert row.target_ids.tolist() == [2, 11, 3]
    assert np.all(row.centroid_ids == NO_CENTROID)


def test_cluster_row_by_hand() -> None:
    row = cluster_row(segment(50, 100), [7, 0, 5], 0, VOCABULARY, RowLimits(24, 4))
    classes = [10, 8, 1, 8, 8, 11, 8, 1, 8, 8, 12, 7, 8, 1, 8, 8]
    assert row.input_ids.tolist() == [100, 100, 100, 9, *classes, 9, 20, 21, 2]
    positions = np.flatnonzero(row.centroid_ids != NO_CENTROID)
    assert dict(zip(positions.tolist(), row.centroid_ids[positions].tolist(), strict=True)) == {6: 7, 11: 0, 17: 5}


@given(st.integers(1, 300), st.lists(st.integers(1, 300), min_size=2, max_size=6), st.integers(64, 400), st.integers(4, 86))
def test_long_choice_rows_keep_every_option_and_the_ending(anchor: int, options: list[int], room: int, most: int) -> None:
    segments = [segment(length, 1000 + number) for number, length in enumerate(options)]
    row = choice_row(segment(anchor, 999), segments, 0, VOCABULARY, RowLimits(room, most))
    assert len(row.input_ids) <= room
    assert row.input_ids[-len(VOCABULARY.ending) :].tolist() == VOCABULARY.ending.tolist()
    for number, length in enumerate(options):
        assert 1 <= np.count_nonzero(row.input_ids == 1000 + number) <= min(length, most)
