"""Rows and scores of decoder-only backbones (METHOD section 10) against plain calls of tokenizer and model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fewshot_material import sentences
from tiny_run import make_documents, save_causal_backbone
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from supmer.backbone.load import check_backbone, load_backbone, resolve_backbone
from supmer.config import BackboneConfig
from supmer.config.load import load_config
from supmer.errors import UserError
from supmer.fewshot.data import Row
from supmer.fewshot.labels import LabelWords
from supmer.fewshot.scoring import score_labels
from supmer.fewshot.task import Task, builtin_task_names, load_task
from supmer.fewshot.template import Template
from supmer.model.build import wrap
from supmer.tasks.generators import YES
from supmer.tasks.rows import RowLimits, Segment, choice_row, pair_row
from supmer.tasks.vocabulary import TaskVocabulary


@pytest.fixture(scope="module", params=[True, False], ids=["bos", "no bos"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    save_causal_backbone(folder, [*make_documents(20), *sentences(300)], bos=request.param, tied=request.param)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    return check_backbone(BackboneConfig(name=str(folder)))


@pytest.mark.parametrize("name", builtin_task_names())
def test_rows_of_each_task_score_as_plain_transformers_say(folder: Path, name: str) -> None:
    """Whole texts through the tokenizer: the label stands behind the row as if written there."""
    tokenizer, plain = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    model = wrap(load_backbone(BackboneConfig(name=str(folder))), None, "masked")
    task = load_task(name).for_causal()
    words = LabelWords(task.label_words, tokenizer, name, causal=True)
    for pattern in task.patterns:
        made = sentences(4 * len(task.fields), seed=1)
        rows = [Row(dict(zip(task.fields, made[index::4], strict=True)), 0) for index in range(4)]
        examples = Template(task, pattern, words, tokenizer, 200).encode(rows)
        scores = score_labels(model, torch.empty(0, model.width), examples, words, 300)
        for row, found in zip(rows, scores, strict=True):
            text = pattern.removesuffix(" <X>").format(**row.fields)
            start = len(tokenizer(text)["input_ids"])
            for word, score in zip(task.label_words, found, strict=True):
                ids = torch.tensor([tokenizer(f"{text} {word}")["input_ids"]])
                with torch.no_grad():
                    logits = plain(ids).logits[0, start - 1 : -1]
                label = ids[0, start:]
                summed = logits.log_softmax(dim=-1).gather(1, label.unsqueeze(1)).sum()
                expected = logits[0, label[0]] if words.single_position else summed
                assert float(expected) == pytest.approx(float(score), abs=1e-4)


def test_meta_tasks_end_where_the_label_goes(tokenizer: PreTrainedTokenizerBase) -> None:
    vocabulary = TaskVocabulary.from_tokenizer(tokenizer, causal=True)
    first, second, third = (
        Segment(np.array(tokenizer(text, add_special_tokens=False)["input_ids"], np.int32), ())
        for text in ("The red river.", "A blue stone.", "Green.")
    )
    limits = RowLimits(60, 20)
    pair = pair_row(first, second, YES, vocabulary, limits)
    assert tokenizer.decode(pair.input_ids).removeprefix("<s>") == "The red river.\nA blue stone.\nThe answer is"
    assert tokenizer.decode(pair.target_ids) == " yes"
    choice = choice_row(first, [second, third], 1, vocabulary, limits)
    shown = tokenizer.decode(choice.input_ids).removeprefix("<s>")
    assert shown == "The red river. ? A.A blue stone. . B.Green. . ? The correct one is"
    assert tokenizer.decode(choice.target_ids) == " B"
    has_start = tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id
    assert (pair.input_ids[0] == tokenizer.bos_token_id) == has_start


def test_long_rows_keep_their_start_and_their_ending(tokenizer: PreTrainedTokenizerBase) -> None:
    vocabulary = TaskVocabulary.from_tokenizer(tokenizer, causal=True)
    long = Segment(np.full(80, 100, np.int32), ())
    row = pair_row(long, long, YES, vocabulary, RowLimits(50, 20))
    assert 49 <= len(row.input_ids) <= 50
    assert tokenizer.decode(row.input_ids).endswith("\nThe answer is")
    task = load_task("sst-2").for_causal()
    words = LabelWords(task.label_words, tokenizer, "sst-2", causal=True)
    (example,) = Template(task, task.patterns[0], words, tokenizer, 30).encode([Row({"text": "the red river " * 30}, 0)])
    assert len(example.input_ids) <= 30
    assert tokenizer.decode(example.input_ids).endswith(" It was")
    assert example.input_ids[: len(words.start)].tolist() == words.start.tolist()


def test_patterns_of_ones_own() -> None:
    settings = {"name": "mine", "label_words": ["bad", "good"]}
    assert Task(patterns=["{text} It was <X>"], **settings).for_causal().patterns == ["{text} It was <X>"]
    with pytest.raises(UserError, match=r'^task mine: patterns: .* add such as causal_patterns: \["\{text\} It was <X>"\]$'):
        Task(patterns=["{text} It was <X> ."], **settings).for_causal()
    with pytest.raises(ValueError, match="must end in a blank and <X>"):
        Task(patterns=["{text} It was <X> ."], causal_patterns=["{text} It was <X> ."], **settings)


def test_words_that_begin_with_another_are_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(UserError, match=r"^task mine: label_words: none may begin with another's tokens"):
        LabelWords(["the", "the red"], tokenizer, "mine", causal=True)


def test_rows_longer_than_the_model_reaches_are_refused(folder: Path) -> None:
    config = load_config(None, [f"backbone.name={folder}", "tasks.max_length=256", "prompt.length=8"])
    with pytest.raises(UserError, match=r"^tasks\.max_length=256: must be at most 248: .* has 256 positions$"):
        resolve_backbone(config)
