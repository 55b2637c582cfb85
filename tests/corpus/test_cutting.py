"""Documents cut into units with their neighbours."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supmer.backbone.load import load_tokenizer
from supmer.config import BackboneConfig, CorpusConfig
from supmer.corpus.contamination import ExcludedText
from supmer.corpus.cutting import (
    KEY_RANGE,
    Tokenize,
    cut_documents,
    link_units,
    pick_elsewhere,
    seeded_keys,
    split_text,
)
from supmer.corpus.duplicates import REPEATED_SCHEMA
from supmer.corpus.records import Record

NOTHING = REPEATED_SCHEMA.empty_table()


def cut_and_link(documents: list[Record], config: CorpusConfig, tokenizer: Tokenize) -> tuple[pa.Table, Counter[str]]:
    """Cut and link documents of which nothing is excluded or repeated."""
    pieces, cut = cut_documents(documents, config, tokenizer, ExcludedText({}))
    units, linked = link_units(pieces, NOTHING, config)
    return units, cut + linked


def test_sentences_end_at_paragraphs_but_not_at_line_breaks() -> None:
    text = "Dr. Smith left at 3 p.m. yesterday.  He was\nlate.\n\nA heading\n \nIt rained."
    assert split_text(text, "sentence", "en") == [
        "Dr. Smith left at 3 p.m. yesterday.",
        "He was late.",
        "A heading",
        "It rained.",
    ]
    assert split_text(text, "paragraph", "en")[0] == "Dr. Smith left at 3 p.m. yesterday. He was late."
    assert split_text(text, "line", "en")[:2] == ["Dr. Smith left at 3 p.m. yesterday. He was", "late."]


@given(st.text(alphabet="ab .?!\n\t", max_size=60), st.sampled_from(["sentence", "paragraph", "line"]))
def test_nothing_but_white_space_is_lost(text: str, unit: str) -> None:
    assert " ".join(split_text(text, unit, "en")).replace(" ", "") == "".join(text.split())


@given(st.lists(st.integers(0, KEY_RANGE - 1), min_size=1, max_size=12))
def test_elsewhere_is_never_adjacent(random: list[int]) -> None:
    num_units = len(random)
    for position, other in enumerate(pick_elsewhere(np.array(random), num_units)):
        allowed = [candidate for candidate in range(num_units) if abs(candidate - position) > 1]
        assert other in allowed if allowed else other == -1


def test_elsewhere_reaches_every_candidate() -> None:
    picked = {int(pick_elsewhere(np.full(6, random), 6)[2]) for random in range(6)}
    assert picked == {0, 4, 5}


def test_keys_depend_on_seed_document_and_position() -> None:
    keys = {seeded_keys(seed, document, position) for seed in (0, 1) for document in ("a", "b") for position in (-1, 0, 1)}
    assert len(keys) == 12
    assert all(0 <= key < KEY_RANGE for pair in keys for key in pair)
    shares = np.mean([seeded_keys(0, str(number))[0] < KEY_RANGE // 10 for number in range(20_000)])
    assert shares == pytest.approx(0.1, abs=0.01)


class TestCutDocuments:
    def test_units_know_their_neighbours(self, backbone: Path, documents: list[str]) -> None:
        tokenizer = load_tokenizer(BackboneConfig(name=str(backbone)))
        table, counts = cut_and_link([(f"d{i}", text) for i, text in enumerate(documents)], CorpusConfig(), tokenizer)
        rows = table.to_pylist()
        num_tokens = sum(len(row["tokens"]) for row in rows)
        assert +counts == {"documents_read": 40, "documents": 40, "units": 800, "tokens_read of the corpus": num_tokens}
        by_key = {(row["document"], row["position"]): row for row in rows}
        assert len(by_key) == 800
        for row in rows:
            assert row["tokens"] == tokenizer(row["text"], add_special_tokens=False)["input_ids"]
            for name, position in (
                ("before", row["position"] - 1),
                ("after", row["position"] + 1),
                ("elsewhere", row["elsewhere_position"]),
            ):
                other = by_key.get((row["document"], position))
                assert row[name] == (other["tokens"] if other else None)
            assert abs(row["elsewhere_position"] - row["position"]) > 1

    def test_neighbours_are_units_that_are_kept(self, backbone: Path) -> None:
        tokenizer = load_tokenizer(BackboneConfig(name=str(backbone)))
        config = CorpusConfig(min_unit_tokens=1, min_document_units=2)
        texts = ["lm a.\n\nlm b.\n\nlm c.\n\nlm d.", "lm e.\n\nlm f.", "lm g.\n\nlm h."]
        pieces, _ = cut_documents([(str(i), text) for i, text in enumerate(texts)], config, tokenizer, ExcludedText({}))
        repeated = pa.table([[0] * 4, [1, 1, 4, 7], [False, True, True, True]], schema=REPEATED_SCHEMA)
        table, counts = link_units(pieces, repeated, config)
        assert table["text"].to_pylist() == ["lm a.", "lm c.", "lm d."]
        assert table["position"].to_pylist() == [0, 1, 2]
        assert table["before"].to_pylist() == [None, *table["tokens"].to_pylist()[:2]]
        assert +counts == {
            "documents": 1,
            "units": 3,
            "duplicate_documents": 1,
            "duplicate_units": 2,
            "documents_too_short": 1,
            "units_of_short_documents": 1,
        }

    def test_units_of_excluded_tasks_are_left_out(self, backbone: Path) -> None:
        tokenizer = load_tokenizer(BackboneConfig(name=str(backbone)))
        config = CorpusConfig(min_unit_tokens=1, min_document_units=1)
        excluded = ExcludedText.of_texts(iter(["a b c d e f g h"]), 8)
        pieces, counts = cut_documents([("d", "So: a b c d e f, g H! No a b c.")], config, tokenizer, excluded)
        assert pieces["text"].to_pylist() == ["No a b c."]
        assert counts["units_of_excluded_tasks"] == 1

    def test_everything_left_out_is_counted(self, backbone: Path) -> None:
        tokenizer = load_tokenizer(BackboneConfig(name=str(backbone)))
        config = CorpusConfig(min_unit_tokens=5, max_unit_tokens=12, min_document_units=2)
        texts = {
            "kept": "lm lm lm lm lm lm lm.\n\nlm.\n\nlm lm lm <extra_id_0> lm.\n\nlm lm lm.",
            "short": "lm lm lm lm lm.\n\nlm.",
            "nothing": "",
        }
        table, counts = cut_and_link(list(texts.items()), config, tokenizer)
        assert table["text"].to_pylist() == ["lm lm lm lm lm lm lm.", "lm lm lm."]
        assert table["position"].to_pylist() == [0, 1]
        assert table["after"].to_pylist() == [table["tokens"][1].as_py(), None]
        assert len(table["tokens"][0]) == 12
        assert table["elsewhere"].to_pylist() == [None, None]
        assert +counts == {
            "documents_read": 3,
            "documents": 1,
            "units": 2,
            "units_shortened": 1,
            "tokens_read of the corpus": 70,
            "units_too_short": 2,
            "units_with_special_tokens": 1,
            "documents_too_short": 2,
            "units_of_short_documents": 1,
        }
