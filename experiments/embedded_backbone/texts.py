"""Which part of a document is read, and which of its sentences the teacher embeds."""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Sequence

import numpy as np

from supmer.corpus.cutting import split_text
from supmer.errors import UserError

SEED = 0
MIN_WORDS, MAX_WORDS = 5, 80
MIN_SENTENCES = 64
PROSE = re.compile(r"""["'\u201c\u2018(]*[^\W\d_].*[.!?\u2026]["'\u201d\u2019)]*$""")
"""A letter comes first, and a full stop or its like last, quotation marks and brackets aside."""


def excerpt(document: str, text: str, max_characters: int) -> str:
    """Return consecutive paragraphs of a document, about `max_characters`, from a place that its id decides.

    A corpus of long documents is so seen in its whole breadth.
    """
    paragraphs = [paragraph for paragraph in re.split(r"\n\s*\n", text) if paragraph.strip()]
    paragraphs = paragraphs[zlib.crc32(document.encode()) % max(1, len(paragraphs)) :]
    sizes = itertools.accumulate((len(paragraph) for paragraph in paragraphs), initial=0)
    return "\n\n".join(paragraph for paragraph, size in zip(paragraphs, sizes, strict=False) if size < max_characters)


def is_prose(piece: str) -> bool:
    """Distinguish a sentence of 5 to 80 words from a heading, a list entry or a table row."""
    return bool(PROSE.match(piece)) and MIN_WORDS <= len(piece.split()) <= MAX_WORDS


def choose_sentences(texts: Sequence[str], language: str, max_sentences: int) -> list[str]:
    """Return at most so many different sentences of prose, drawn from all texts by a fixed seed."""
    found = [*dict.fromkeys(piece for text in texts for piece in split_text(text, "sentence", language) if is_prose(piece))]
    if len(found) < MIN_SENTENCES:
        raise UserError(
            f"corpus.paths: only {len(found)} sentences of {MIN_WORDS} to {MAX_WORDS} words, {MIN_SENTENCES} are needed"
        )
    order = np.random.default_rng(SEED).permutation(len(found))[:max_sentences]
    return [found[index] for index in order]
