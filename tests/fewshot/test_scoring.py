from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from transformers import AutoConfig, AutoModelForSeq2SeqLM, PreTrainedModel, PreTrainedTokenizerBase

from supmer.backbone.load import load_tokenizer
from supmer.config import Config
from supmer.config.load import validate
from supmer.errors import UserError
from supmer.fewshot.data import load_rows
from supmer.fewshot.labels import LabelWords
from supmer.fewshot.scoring import PromptedTask, evaluate, score_labels, score_rows
from supmer.fewshot.task import load_task
from supmer.fewshot.template import Template
from supmer.model.build import build_model
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


@pytest.mark.parametrize("max_tokens", [30, 10_000])
def test_rows_of_different_tasks_in_one_pass_get_the_scores_that_they_get_alone(
    config: Config, tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> None:
    """Each under its own prompt of its own length, by its own label words, of which some need several tokens."""
    model = build_model(config).double()
    generator = torch.Generator().manual_seed(0)
    tasks = [
        PromptedTask(torch.randn(length, 32, generator=generator), LabelWords(labels, tokenizer, "mine"))
        for labels, length in (
            (SINGLE, 5),
            (SHARED_START, 2),
            (["red", "blue"], 0),
            (ONE_IN_ANOTHER, 9),
            (["stone", "grey"], 9),
        )
    ]
    rows = [(task, row) for row in range(3) for task in range(len(tasks))]
    examples = [examples_of(tokenizer, tasks[task].words)[row] for task, row in rows]
    together = score_rows(model, tasks, examples, [task for task, _ in rows], max_tokens)
    for (task, _), example, found in zip(rows, examples, together, strict=True):
        alone = score_labels(model, tasks[task].prompt, [example], tasks[task].words, 100)
        np.testing.assert_allclose(found, alone[0], rtol=1e-9)


@pytest.mark.parametrize("labels", [SINGLE, SHARED_START])
def test_a_class_of_several_words_has_the_sum_of_their_probabilities(
    config: Config, tokenizer: PreTrainedTokenizerBase, labels: list[str]
) -> None:
    model, prompt = build_model(config), torch.ones(2, 32)
    every = LabelWords(labels, tokenizer, "mine")
    grouped = LabelWords(labels[:2], tokenizer, "mine", further=[[], labels[2:]])
    examples = examples_of(tokenizer, every)
    apart, together = (score_labels(model, prompt, examples, words, 300) for words in (every, grouped))
    expected = np.stack([apart[:, 0], np.logaddexp(apart[:, 1], apart[:, 2])], axis=1)
    np.testing.assert_allclose(together, expected, rtol=1e-5, atol=1e-5)
    assert grouped.target(1).tolist() == every.target(1).tolist()
    with pytest.raises(UserError, match="are the same to the tokenizer"):
        LabelWords(labels[:2], tokenizer, "mine", further=[[labels[1]], []])


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


def test_words_that_are_the_same_to_the_tokenizer_are_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(UserError, match="task mine: label_words: 'the red' and 'the  red' are the same to the tokenizer"):
        LabelWords(["the red", "the  red"], tokenizer, "mine")
    with pytest.raises(UserError, match="the tokenizer does not know '漢'"):
        LabelWords(["bad", "漢"], tokenizer, "mine")


def metric(name: str, labels: list[int], predictions: list[int]) -> float:
    examples = [Example(np.zeros(0), np.zeros(0), np.zeros(0), label) for label in labels]
    return evaluate(np.eye(3, dtype=np.float32)[predictions], examples, [name])[name]


def test_metrics() -> None:
    labels, predictions = [0, 0, 0, 1], [0, 0, 1, 2]
    assert metric("accuracy", labels, predictions) == 0.5
    assert metric("macro_f1", labels, predictions) == pytest.approx((0.8 + 0 + 0) / 3)


SENTIMENT, ENTAILMENT = "{source} It was <extra_id_0> ?", '" {hypothesis} " ? <extra_id_0> , " {premise} "'
REAL_PATTERNS = {
    "sst-2": SENTIMENT,
    "mr": SENTIMENT,
    "sst-5": SENTIMENT,
    "subj": "{source} This is <extra_id_0> .",
    "trec": "{source} <extra_id_0> :",
    "boolq": "{passage} . Question: {question} ? Answer: <extra_id_0> .",
    "rte": ENTAILMENT,
    "cb": ENTAILMENT,
    "wic": '" {sentence1} " / " {sentence2} " Similar sense of "{word}"? <extra_id_0> .',
    "qnli": "{sentence} . Question: {question} ? Answer: <extra_id_0> .",
    "qqp": "Do {question1} and {question2} have the same meaning? <extra_id_0> .",
    "mrpc": "Do {sentence1} and {sentence2} have the same meaning? <extra_id_0> .",
}
"""The first pattern of each task, over the columns of the files, as section 7 lists them."""

NUM_REAL_ROWS = 20


@pytest.fixture(scope="module")
def random_t5(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[PreTrainedModel, Config]:
    """The tiny T5 of the goldens with random weights and the vocabulary of the real tokenizer, and settings for it."""
    model_config = AutoConfig.from_pretrained(shared / "golden" / "tiny_t5")
    model_config.vocab_size = 32128
    torch.manual_seed(0)
    plain = AutoModelForSeq2SeqLM.from_config(model_config, dtype=torch.float32).eval()
    folder = tmp_path_factory.mktemp("random_t5")
    plain.save_pretrained(folder)
    return plain, validate({"backbone": {"name": str(folder), "tokenizer": str(shared / "tokenizer")}})


@pytest.mark.parametrize("name", REAL_PATTERNS)
def test_predictions_on_real_tasks_equal_plain_transformers(
    name: str, shared: Path, random_t5: tuple[PreTrainedModel, Config]
) -> None:
    """Rows are rendered here by hand and scored one at a time, without a prompt; rows that are too long are left out."""
    plain, config = random_t5
    real = load_tokenizer(config.backbone)
    lines = (shared / "tasks" / name / "test.jsonl").read_text().splitlines()[:NUM_REAL_ROWS]
    texts = [" ".join(REAL_PATTERNS[name].format(**json.loads(line)).split()) for line in lines]
    encoded = [real(text, add_special_tokens=False, return_tensors="pt")["input_ids"] for text in texts]
    short = [index for index, ids in enumerate(encoded) if ids.shape[1] <= config.max_input_tokens]
    assert len(short) > len(lines) / 2

    task = load_task(name)
    words = LabelWords(task.label_words, real, name)
    rows = load_rows(task, str(shared / "tasks")).test[:NUM_REAL_ROWS]
    examples = Template(task, task.patterns[0], words, real, config.max_input_tokens).encode([rows[i] for i in short])
    scores = score_labels(build_model(config), torch.empty(0, plain.config.d_model), examples, words, 2048)

    word_ids = [real(word, add_special_tokens=False)["input_ids"][0] for word in task.label_words]
    for index, score in zip(short, scores, strict=True):
        with torch.no_grad():
            logits = plain(input_ids=encoded[index], decoder_input_ids=torch.tensor([[0, 32099]])).logits[0, 1, word_ids]
        np.testing.assert_allclose(score, logits.numpy(), atol=2e-4)
        assert score.argmax() == logits.argmax()


def test_f1_is_that_of_class_one() -> None:
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 2, 50), rng.integers(0, 2, 50)
    expected = f1_score(labels, predictions, average="binary")
    assert metric("f1", labels.tolist(), predictions.tolist()) == pytest.approx(expected)
    assert metric("f1", [0, 0], [0, 0]) == 0.0
