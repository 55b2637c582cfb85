"""Documents cut into tokenized units that know their neighbours (section 1)."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import sentencex

from supmer.backbone.unknown import FEW_UNKNOWN
from supmer.config import CorpusConfig
from supmer.corpus.contamination import ExcludedText
from supmer.corpus.duplicates import document_bounds
from supmer.corpus.records import Record
from supmer.corpus.store import TOKENS, UNIT_SCHEMA
from supmer.readers.skipped import Skipped

PIECE_SCHEMA = pa.schema(
    [("document_row", pa.int32()), ("document", pa.string()), ("text", pa.string()), ("tokens", TOKENS)]
)
"""Units as they are cut, before it is known which of them occurred elsewhere. `document_row` numbers the documents read."""

CUT_SCHEMA = UNIT_SCHEMA.append(pa.field("document_key", pa.int64())).append(pa.field("unit_key", pa.int64()))
"""Units as they are prepared: `document_key` decides the split, `unit_key` the order within a cluster (seeded hashes)."""

KEY_RANGE = 2**62
"""Keys lie in [0, KEY_RANGE)."""

TOKENS_READ, TOKENS_UNKNOWN = "tokens_read of ", "tokens_unknown of "
"""Counts of a source's tokens begin so, and end with its name."""

MAX_UNIT_CHARACTERS = 20_000
"""Longer units are left out and counted."""

Tokenize = Any
"""A transformers tokenizer."""

Item = TypeVar("Item")


def split_text(text: str, unit: str, language: str) -> list[str]:
    """Cut a text into sentences, paragraphs (ended by blank lines) or lines, with white space made single blanks.

    A sentence never reaches over the end of a paragraph; a line break within a paragraph is only a blank.
    """
    pieces = text.splitlines() if unit == "line" else re.split(r"\n\s*\n", text)
    paragraphs = [" ".join(piece.split()) for piece in pieces]
    if unit == "sentence":
        paragraphs = [sentence.strip() for piece in paragraphs for sentence in sentencex.segment(language, piece)]
    return [piece for piece in paragraphs if piece]


def cut_documents(
    documents: Sequence[Record],
    config: CorpusConfig,
    tokenizer: Tokenize,
    excluded: ExcludedText,
    sources: Sequence[str] | None = None,
) -> tuple[pa.Table, Skipped]:
    """Return the usable units of some documents (PIECE_SCHEMA, in order) and the counts of what was read and left out.

    Tokens are counted by source: `sources` holds that of each document (default: the corpus as a whole).
    """
    sources = sources or ["the corpus"] * len(documents)
    counts = Skipped({"documents_read": len(documents)})
    pieces = []
    for _, text in documents:
        found = split_text(text, config.unit, config.language)
        # What is longer is no sentence, and would take a tokenizer minutes.
        pieces.append([piece for piece in found if len(piece) <= MAX_UNIT_CHARACTERS])
        counts["units_overlong"] += len(found) - len(pieces[-1])
    flat = [piece for document in pieces for piece in document]
    # Text that spells a special token would pass for a sentinel.
    special = frozenset(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
    tokens: list[list[int]] = tokenizer(flat, **options)["input_ids"] if flat else []
    is_excluded = excluded.occurs_in(flat)
    rows: list[dict[str, Any]] = []
    numbered = iter(range(len(flat)))
    for row, ((document, _), source, texts) in enumerate(zip(documents, sources, pieces, strict=True)):
        units = [(text, next(numbered)) for text in texts]
        of_document = [tokens[number] for _, number in units]
        num_tokens, num_unknown = sum(map(len, of_document)), sum(ids.count(tokenizer.unk_token_id) for ids in of_document)
        counts[TOKENS_READ + source] += num_tokens
        counts[TOKENS_UNKNOWN + source] += num_unknown
        if num_unknown > FEW_UNKNOWN * num_tokens:
            counts.add_places(TOKENS_UNKNOWN + source, [document])
        kept = []
        for text, number in units:
            if len(tokens[number]) < config.min_unit_tokens:
                counts["units_too_short"] += 1
            elif not special.isdisjoint(tokens[number]):
                counts["units_with_special_tokens"] += 1
            elif is_excluded[number]:
                counts["units_of_excluded_tasks"] += 1
            else:
                kept.append({"document_row": row, "document": document, "text": text, "tokens": tokens[number]})
        rows += _if_long_enough(kept, config, counts)
    return pa.Table.from_pylist(rows, schema=PIECE_SCHEMA), counts


def link_units(pieces: pa.Table, repeated: pa.Table, config: CorpusConfig) -> tuple[pa.Table, Counter[str]]:
    """Return the kept units of a part with their neighbours (CUT_SCHEMA, in order) and the counts of what is (not) kept.

    Documents and units in `repeated` (REPEATED_SCHEMA) are left out first: neighbours are units that are kept.
    """
    counts: Counter[str] = Counter()
    places, is_unit = repeated["row"].to_numpy(), repeated["is_unit"].to_numpy()
    repeated_documents, repeated_units = set(places[~is_unit].tolist()), set(places[is_unit].tolist())
    tables = []
    for number, (start, stop) in enumerate(document_bounds(pieces)):
        if number in repeated_documents:
            counts["duplicate_documents"] += 1
            continue
        new = [row for row in range(start, stop) if row not in repeated_units]
        counts["duplicate_units"] += stop - start - len(new)
        rows = _if_long_enough(new, config, counts)
        if not rows:
            continue
        kept = pieces.take(rows)
        num_units, document = len(kept), kept["document"][0].as_py()
        positions = np.arange(num_units)
        keys = np.array([seeded_keys(config.seed, document, position) for position in range(num_units)])
        elsewhere = pick_elsewhere(keys[:, 1], num_units)
        whole = kept["tokens"].combine_chunks()
        tokens = pc.list_slice(whole, 0, config.max_unit_tokens, return_fixed_size_list=False)
        counts["documents"] += 1
        counts["units"] += num_units
        counts["units_shortened"] += pc.sum(pc.greater(pc.list_value_length(whole), config.max_unit_tokens)).as_py()
        columns = {
            "document": kept["document"].combine_chunks(),
            "position": positions,
            "text": kept["text"].combine_chunks(),
            "tokens": tokens,
            "before": _take(tokens, positions - 1),
            "after": _take(tokens, positions + 1),
            "elsewhere": _take(tokens, elsewhere),
            "elsewhere_position": elsewhere,
            "document_key": [seeded_keys(config.seed, document)[0]] * num_units,
            "unit_key": keys[:, 0],
        }
        tables.append(pa.table([pa.array(columns[field.name], field.type) for field in CUT_SCHEMA], schema=CUT_SCHEMA))
    return pa.concat_tables([CUT_SCHEMA.empty_table(), *tables]), counts


def seeded_keys(seed: int, document: str, position: int = -1) -> tuple[int, int]:
    """Return two independent hashes in [0, KEY_RANGE) of a document (or of one unit of it) under a seed."""
    digest = hashlib.blake2b(f"{seed}\0{position}\0{document}".encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big") >> 2, int.from_bytes(digest[8:], "big") >> 2


def _if_long_enough(units: list[Item], config: CorpusConfig, counts: Counter[str]) -> list[Item]:
    """Return a document's units, or none of them if they are too few."""
    if len(units) >= config.min_document_units:
        return units
    counts["documents_too_short"] += 1
    counts["units_of_short_documents"] += len(units)
    return []


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
