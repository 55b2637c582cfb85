"""The stages before the training: excerpts, sentences, kept embeddings, token embeddings taken from the teacher."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from supmer.errors import UserError
from supmer.pretrain.sentences import choose_sentences, excerpt, is_prose
from supmer.pretrain.teacher import embed_sentences, teacher_folder
from supmer.pretrain.word_vectors import principal_map, start_from


def test_an_excerpt_is_a_run_of_whole_paragraphs() -> None:
    paragraphs = [f"{number:03d} " * 25 for number in range(40)]
    text = "\n\n".join(paragraphs)
    starts = set()
    for document in map(str, range(50)):
        found = excerpt(document, text, 300).split("\n\n")
        start = paragraphs.index(found[0])
        assert found == paragraphs[start : start + 3] and found
        starts.add(start)
    assert len(starts) > 15
    assert excerpt("1", "\n\n", 300) == ""


@pytest.mark.parametrize(
    ("piece", "expected"),
    [
        ("The sea was calm that day.", True),
        ('"Where have you been?" she asked him again.', True),
        ("Economy of the northern islands", False),
        ("* the sea, the islands, the rest.", False),
        ("Too short.", False),
    ],
)
def test_prose_is_told_from_headings(piece: str, expected: bool) -> None:
    assert is_prose(piece) is expected


def test_sentences_are_drawn_once_each() -> None:
    texts = [f"This is sentence number {number} of all. This one comes again and again." for number in range(80)]
    found = choose_sentences(texts, "en", 100)
    assert len(found) == len(set(found)) == 81
    assert choose_sentences(texts, "en", 5) == found[:5]
    with pytest.raises(UserError, match=r"corpus\.paths: only 0 sentences"):
        choose_sentences(["short."], "en", 10)


def test_finished_chunks_are_not_embedded_again(tmp_path: Path) -> None:
    stored = np.eye(3, dtype=np.float16)
    np.save(tmp_path / "000000000.npy", stored)
    found = embed_sentences(tmp_path / "no-teacher", ["a", "b", "c"], 8, tmp_path, lambda: False)
    assert found is not None and np.array_equal(found, stored)


def test_a_missing_teacher_is_named() -> None:
    with pytest.raises(UserError, match=r"backbone\.distill\.teacher=nowhere"):
        teacher_folder("nowhere")


@pytest.mark.parametrize("width", [4, 12])
def test_token_embeddings_keep_the_teachers_likeness(width: int) -> None:
    generator = np.random.default_rng(0)
    pieces = (generator.standard_normal((50, 3)) @ generator.standard_normal((3, 8))).astype(np.float32)
    weight = torch.zeros(60, width)
    start_from(weight, pieces, principal_map(pieces, width), num_special=3)
    centred = pieces[3:] - pieces.mean(axis=0)
    ours = torch.nn.functional.normalize(weight[3:50], dim=1)
    theirs = torch.nn.functional.normalize(torch.from_numpy(centred), dim=1)
    torch.testing.assert_close(ours @ ours.T, theirs @ theirs.T, atol=1e-4, rtol=0)
    assert not weight[:3].any() and not weight[50:].any()
    assert width != 4 or weight[3:50].square().mean().item() == pytest.approx(1, abs=0.1)
