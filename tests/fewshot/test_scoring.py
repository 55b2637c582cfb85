from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerBase

from supmer.cli import validate
from supmer.config import Config
from supmer.errors import UserError
from supmer.fewshot.data import load_rows
from supmer.fewshot.labels import LabelWords
from supmer.fewshot.scoring import accuracy, macro_f1, score_labels
from supmer.fewshot.task import load_task
from supmer.fewshot.template import Template
from supmer.model.prompted import build_model
from supmer.tasks.episode import NO_CENTROID, Example

TEXTS = ["the red river <extra_id_0> .", "the blue tower crosses <extra_id_0> the grey stone .", "ochre <extra_id_0>"] * 3
SINGLE = ["bad", "good", "okay"]
SHARED_START = ["the red", "the blue tower", "garden"]
ONE_IN_ANOTHER = ["the red", "the red tower", "garden"]


def examples_of(tokenizer: PreTrainedTokenizerBase, words: LabelWords) -> list[Example]:
    encoded = [np.asarray(ids, dtype=np.int32) for ids in tokenizer(TEXTS, add_special_tokens=False)["input_ids"]]
    return [Example(ids, np.full_like(ids, NO_CENTROID), words.target(0), 0) for ids in encoded]


@torch.no_grad()
def log_probability(model: torch.nn.Module, prompt: torch.Tensor, ids: Sequence[int], target: Sequence[int]) -> torch.Tensor:
    """Score one row by plain transformers: log-probabilities [D, V] under teacher forcing, no batching, no padding."""
    embedded = torch.cat([prompt, model.get_input_embeddings()(torch.tensor(ids))]).unsqueeze(0)
    decoder_ids = torch.tensor([[0, *target[:-1]]])
    return model(inputs_embeds=embedded, decoder_input_ids=decoder_ids).logits[0].log_softmax(-1)


@pytest.mark.parametrize(("labels", "closing"), [(SINGLE, False), (SHARED_START, False), (ONE_IN_ANOTHER, True)])
@pytest.mark.parametrize("max_tokens", [30, 10_000])
@pytest.mark.parametrize("length", [0, 5])
def test_scores_equal_plain_transformers(
    config: Config, tokenizer: PreTrainedTokenizerBase, labels: list[str], closing: bool, max_tokens: int, length: int
) -> None:
    words = LabelWords(labels, tokenizer, "mine")
    model = build_model(config)
    prompt = torch.randn(length, 32, generator=torch.Generator().manual_seed(0))
    scores = score_labels(model, prompt, examples_of(tokenizer, words), words, max_tokens)

    plain = AutoModelForSeq2SeqLM.from_pretrained(config.backbone.name, dtype=torch.float32).eval()
    first, second = tokenizer.convert_tokens_to_ids(["<extra_id_0>", "<extra_id_1>"])
    for row, text in zip(scores, TEXTS, strict=True):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        for score, label in zip(row, labels, strict=True):
            word = tokenizer(label, add_special_tokens=False)["input_ids"]
            target = [first, *word, second]
            log_probs = log_probability(plain, prompt, ids, target)
            scored = word + [second] * closing
            expected = sum(log_probs[1 + i, token].item() for i, token in enumerate(scored))
            if labels is SINGLE:  # logits and log-probabilities of one position differ by a constant of the row
                expected = (
                    log_probs[1, word[0]].item() - log_probs[1, tokenizer("bad", add_special_tokens=False)["input_ids"][0]]
                )
                score = score - row[0]
            assert score == pytest.approx(float(expected), rel=1e-5, abs=1e-4)


def test_the_whole_head_is_back_after_scoring(config: Config, tokenizer: PreTrainedTokenizerBase) -> None:
    model = build_model(config)
    head = model.backbone.get_output_embeddings()
    words = LabelWords(SINGLE, tokenizer, "mine")
    assert score_labels(model, torch.ones(2, 32), examples_of(tokenizer, words), words, 100).shape == (len(TEXTS), 3)
    assert model.backbone.get_output_embeddings() is head
    assert head.weight is model.backbone.get_input_embeddings().weight
    with pytest.raises(RuntimeError):
        score_labels(model, torch.ones(2, 31), examples_of(tokenizer, words), words, 100)
    assert model.backbone.get_output_embeddings() is head


def test_the_rule_follows_from_the_first_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    assert LabelWords(SINGLE, tokenizer, "mine").single_position
    assert not LabelWords(SHARED_START, tokenizer, "mine").single_position


def test_words_that_are_the_same_to_the_tokenizer_are_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(UserError, match="task mine: label_words: 'the red' and 'the  red' are the same to the tokenizer"):
        LabelWords(["the red", "the  red"], tokenizer, "mine")
    with pytest.raises(UserError, match="the tokenizer does not know '漢'"):
        LabelWords(["bad", "漢"], tokenizer, "mine")


def test_metrics() -> None:
    labels, predictions = [0, 0, 0, 1], [0, 0, 1, 2]
    assert accuracy(labels, predictions) == 0.5
    assert macro_f1(labels, predictions) == pytest.approx((0.8 + 0 + 0) / 3)


@pytest.mark.slow
def test_predictions_on_real_tasks_equal_plain_transformers(shared: Path, tmp_path: Path) -> None:
    """Rows rendered here by hand, scored one at a time; two tasks with the real tokenizer and the tiny T5 of the goldens."""
    from transformers import AutoConfig, AutoTokenizer, T5ForConditionalGeneration

    model_config = AutoConfig.from_pretrained(shared / "golden" / "tiny_t5")
    model_config.vocab_size = 32128
    torch.manual_seed(0)
    plain = T5ForConditionalGeneration(model_config).eval()
    plain.save_pretrained(tmp_path)
    real = AutoTokenizer.from_pretrained(shared / "tokenizer", config=model_config)
    config = validate({"backbone": {"name": str(tmp_path), "tokenizer": str(shared / "tokenizer")}})
    model = build_model(config)
    for name, pattern in (("trec", "{source} <extra_id_0> :"), ("cb", '" {hypothesis} " ? <extra_id_0> , " {premise} "')):
        task = load_task(name)
        words = LabelWords(task.label_words, real, name)
        rows = load_rows(task, str(shared / "tasks")).test[:50]
        examples = Template(task, task.patterns[0], words, real, config.max_input_tokens).encode(rows)
        scores = score_labels(model, torch.empty(0, model_config.d_model), examples, words, 2048)
        word_ids = [real(word, add_special_tokens=False)["input_ids"][0] for word in task.label_words]
        raw = [json.loads(line) for line in (shared / "tasks" / name / "test.jsonl").read_text().splitlines()[:50]]
        for row, score in zip(raw, scores, strict=True):
            ids = real(pattern.format(**row), add_special_tokens=False, return_tensors="pt")["input_ids"]
            with torch.no_grad():
                logits = plain(input_ids=ids, decoder_input_ids=torch.tensor([[0, 32099]])).logits[0, 1, word_ids]
            np.testing.assert_allclose(score, logits.numpy(), atol=2e-4)
