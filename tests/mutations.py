"""Damage to files as it happens, or as it is done on purpose: cut, flipped, overwritten, doubled, other values."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 7, 2**31, 10**12, 2**63, 1e308, float("nan")),
    *("", "x" * 100, "\x00", "../x", [], {}, [[]], [None], {"a": 1}),
)


def mutants(content: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield `count` damaged versions of a file, the kinds of damage in turn."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        yield mutate(content, rng, number % 4)


def mutate(content: bytes, rng: np.random.Generator, how: int) -> bytes:
    """Return a damaged version: 0 cuts it off, 1 flips a bit, 2 overwrites a stretch, 3 repeats the end."""
    position = int(rng.integers(len(content)))
    if how == 0:
        return content[:position]
    if how == 1:
        flipped = content[position] ^ (1 << int(rng.integers(8)))
        return content[:position] + bytes([flipped]) + content[position + 1 :]
    if how == 2:
        noise = rng.bytes(int(rng.integers(1, 40)))
        return content[:position] + noise + content[position + len(noise) :]
    return content[:position] + content


def replacements(values: Any) -> Iterator[Any]:
    """Yield versions of nested dicts and lists in which one value, at any depth, is another."""
    for place in _places(values):
        for odd in ODD_VALUES:
            changed = {"root": copy.deepcopy(values)}
            inner: Any = changed
            for key in ("root", *place)[:-1]:
                inner = inner[key]
            inner[("root", *place)[-1]] = odd
            yield changed["root"]


def _places(values: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    if isinstance(values, (dict, list)):
        for key in values if isinstance(values, dict) else range(len(values)):
            yield from _places(values[key], (*place, key))
