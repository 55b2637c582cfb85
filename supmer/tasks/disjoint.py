"""Splitting units into pools that share no sentence, neighbours included."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from supmer.corpus.unit import Unit, UnitKey

Shown = Callable[[Unit], tuple[UnitKey, ...]]
"""The sentences that a row made from a unit may show."""


def itself(unit: Unit) -> tuple[UnitKey, ...]:
    """Only the unit."""
    return (unit.key,)


def with_neighbours(unit: Unit) -> tuple[UnitKey, ...]:
    """The unit, both neighbours and the sentence from elsewhere in the document, as far as there are such."""
    document, position = unit.document, unit.position
    keys = [UnitKey(document, position)]
    if unit.before is not None:
        keys.append(UnitKey(document, position - 1))
    if unit.after is not None:
        keys.append(UnitKey(document, position + 1))
    if unit.elsewhere is not None:
        keys.append(UnitKey(document, unit.elsewhere_position))
    return tuple(keys)


def split_disjoint(
    units: Iterable[Unit], weights: Sequence[int], shown: Shown, taken: Collection[UnitKey] = frozenset()
) -> list[list[Unit]]:
    """Deal units, in their order, to `len(weights)` lists of lengths in about that proportion.

    No sentence is shown by units of two lists, or is in `taken`. A unit that would break this is left out, and so is a
    repeated one.
    """
    lists: list[list[Unit]] = [[] for _ in weights]
    owners: dict[UnitKey, int] = {}
    dealt: set[UnitKey] = set()
    for unit in units:
        keys = shown(unit)
        if unit.key in dealt or any(key in taken for key in keys):
            continue
        claims = {owners[key] for key in keys if key in owners}
        if len(claims) > 1:
            continue
        target = claims.pop() if claims else min(range(len(lists)), key=lambda index: len(lists[index]) / weights[index])
        dealt.add(unit.key)
        owners.update(dict.fromkeys(keys, target))
        lists[target].append(unit)
    return lists
