"""Damage to files as it happens, or as it is done on purpose: cut, flipped, overwritten, doubled."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


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
