"""Dealing units to sets that share no sentence."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from made_up_tasks import units_of

from supmer.corpus.unit import Unit, UnitKey
from supmer.tasks.disjoint import itself, split_disjoint, with_neighbours


def make_units(lengths: list[int], seed: int) -> list[Unit]:
    rng = np.random.default_rng(seed)
    units: list[Unit] = []
    for number, length in enumerate(lengths):
        texts = [np.array([position], dtype=np.int32) for position in range(length)]
        units += units_of(f"d{number}", texts, [0] * length, rng)
    return [units[index] for index in rng.permutation(len(units))]


list_weights = st.lists(st.integers(1, 9), min_size=1, max_size=4)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(0, 1000), list_weights)
def test_no_sentence_is_in_two_lists_or_taken(lengths: list[int], seed: int, weights: list[int]) -> None:
    units = make_units(lengths, seed)
    taken = {UnitKey("d0", 0), UnitKey("d0", 3)}
    lists = split_disjoint([*units, *units[:3]], weights, with_neighbours, taken)
    shown = [{key for unit in own for key in with_neighbours(unit)} for own in lists]
    assert sum(len(keys) for keys in shown) == len(set().union(*shown))
    assert not taken & set().union(*shown)
    dealt = [unit.key for own in lists for unit in own]
    assert len(dealt) == len(set(dealt))


@given(st.integers(0, 60), list_weights)
def test_lists_grow_in_proportion(num_units: int, weights: list[int]) -> None:
    lists = split_disjoint(make_units([num_units] if num_units else [], 0), weights, itself)
    assert sum(len(own) for own in lists) == num_units
    for own, weight in zip(lists, weights, strict=True):
        assert abs(len(own) - num_units * weight / sum(weights)) < len(weights)


def test_shown_sentences() -> None:
    by_key = {unit.key: unit for unit in make_units([5, 1], 0)}
    assert with_neighbours(by_key["d1", 0]) == (("d1", 0),)
    first = by_key["d0", 0]
    assert set(with_neighbours(first)) == {("d0", 0), ("d0", 1), ("d0", first.elsewhere_position)}
