"""Documents cut into tokenized units that know their neighbours (section 1)."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import sentencex

from supmer.config import CorpusConfig
from supmer.corpus.records import Record
from supmer.corpus.store import TOKENS, UNIT_SCHEMA

CUT_SCHEMA = UNIT_SCHEMA.append(pa.field("document_key", pa.int64())).append(pa.field("unit_key", pa.int64()))
"""Units as they are prepared: `document_key` decides the split, `unit_key` the order within a cluster (seeded hashes)."""

KEY_RANGE = 2**62
"""Keys lie in [0, KEY_RANGE)."""

Tokenize = Any
"""A transformers tokenizer."""


def split_text(text: str, unit: str, language: str) -> list[str]:
    """Cut a text into sentences, paragraphs (ended by blank lines) or lines, with white space made single blanks.

    A sentence never reaches over the end of a paragraph; a line break within a paragraph is only a blank.
    """
    pieces = text.splitlines() if unit == "line" else re.split(r"\n\s*\n", text)
    paragraphs = [" ".join(piece.split()) for piece in pieces]
    if unit == "sentence":
        paragraphs = [sentence.strip() for piece in paragraphs for sentence in sentencex.segment(language, piece)]
    return [piece for piece in paragraphs if piece]


def cut_documents(documents: Sequence[Record], config: CorpusConfig, tokenizer: Tokenize) -> tuple[pa.Table, Counter[str]]:
    """Return the kept units of some documents (CUT_SCHEMA, in order) and the counts of what was kept and left out."""
    counts = Counter(documents_read=len(documents))
    pieces = [split_text(text, config.unit, config.language) for _, text in documents]
    tokens = iter(_tokenize([piece for document in pieces for piece in document], tokenizer))
    special = frozenset(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    tables = []
    for (document, _), texts in zip(documents, pieces, strict=True):
        kept = [(text, ids) for text in texts if _keep(ids := next(tokens), config, special, counts)]
        if len(kept) < config.min_document_units:
            counts["documents_too_short"] += 1
            counts["units_of_short_documents"] += len(kept)
            continue
        counts["documents"] += 1
        counts["units"] += len(kept)
        counts["units_shortened"] += sum(len(ids) > config.max_unit_tokens for _, ids in kept)
        tables.append(_document_table(document, kept, config))
    return pa.concat_tables([CUT_SCHEMA.empty_table(), *tables]), counts


def seeded_keys(seed: int, document: str, position: int = -1) -> tuple[int, int]:
    """Return two independent hashes in [0, KEY_RANGE) of a document (or of one unit of it) under a seed."""
    digest = hashlib.blake2b(f"{seed}\0{position}\0{document}".encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big") >> 2, int.from_bytes(digest[8:], "big") >> 2


def _tokenize(texts: list[str], tokenizer: Tokenize) -> list[list[int]]:
    if not texts:
        return []
    encoded = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def _keep(ids: list[int], config: CorpusConfig, special: frozenset[int], counts: Counter[str]) -> bool:
    """Tell whether a unit is kept; text that spells a special token would pass for a sentinel and is left out."""
    if len(ids) < config.min_unit_tokens:
        counts["units_too_short"] += 1
        return False
    if not special.isdisjoint(ids):
        counts["units_with_special_tokens"] += 1
        return False
    return True


def _document_table(document: str, kept: list[tuple[str, list[int]]], config: CorpusConfig) -> pa.Table:
    num_units = len(kept)
    positions = np.arange(num_units)
    keys = np.array([seeded_keys(config.seed, document, position) for position in range(num_units)])
    elsewhere = pick_elsewhere(keys[:, 1], num_units)
    tokens = pa.array([ids[: config.max_unit_tokens] for _, ids in kept], TOKENS)
    columns = {
        "document": [document] * num_units,
        "position": positions,
        "text": [text for text, _ in kept],
        "tokens": tokens,
        "before": _take(tokens, positions - 1),
        "after": _take(tokens, positions + 1),
        "elsewhere": _take(tokens, elsewhere),
        "elsewhere_position": elsewhere,
        "document_key": [seeded_keys(config.seed, document)[0]] * num_units,
        "unit_key": keys[:, 0],
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in CUT_SCHEMA], schema=CUT_SCHEMA)


def pick_elsewhere(random: npt.NDArray[np.int64], num_units: int) -> npt.NDArray[np.int64]:
    """Return for each position a position that is neither it nor next to it, chosen by `random`; -1 if there is none."""
    positions = np.arange(num_units)
    first, last = np.maximum(positions - 1, 0), np.minimum(positions + 1, num_units - 1)
    excluded = last - first + 1
    choices = num_units - excluded
    picked = random % np.maximum(choices, 1)
    picked += np.where(picked >= first, excluded, 0)
    result: npt.NDArray[np.int64] = np.where(choices > 0, picked, -1)
    return result


def _take(tokens: pa.ListArray, positions: npt.NDArray[np.int64]) -> pa.ListArray:
    outside = (positions < 0) | (positions >= len(tokens))
    return tokens.take(pa.array(positions, mask=outside))
