"""Label-word scores of rows, and the metrics made of them (section 7)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor, nn

from supmer.fewshot.labels import LabelWords
from supmer.model.prompted import PromptedSeq2Seq
from supmer.model.rows import IGNORED_LABEL, Rows, collate, plan_microbatches
from supmer.tasks.episode import Example

Scores = npt.NDArray[np.float32]


@torch.inference_mode()
def score_labels(
    model: PromptedSeq2Seq, prompt: Tensor, examples: Sequence[Example], words: LabelWords, max_tokens: int
) -> Scores:
    """Return the score of every label word for every row [N, C]; the highest is the prediction.

    Args:
        model: the backbone; it is left in evaluation mode.
        prompt: [L, d]; L may be 0.
        examples: N rows; their labels are not looked at.
        words: C label words.
        max_tokens: padded encoder positions per forward pass.
    """
    model.eval()
    variants = 1 if words.single_position else len(words.tokens)
    scores = np.empty((len(examples), len(words.tokens)), dtype=np.float32)
    lengths = [len(example.input_ids) for example in examples]
    for group in plan_microbatches(lengths, overhead=len(prompt), max_tokens=max_tokens, copies=variants):
        score = _score_first_tokens if words.single_position else _score_whole_words
        scores[group] = score(model, prompt, [examples[index] for index in group], words).cpu().numpy()
    return scores


def _score_first_tokens(model: PromptedSeq2Seq, prompt: Tensor, examples: list[Example], words: LabelWords) -> Tensor:
    # Position 1 sees only `<X>` before it, so which class's target stands in makes no difference.
    rows = _rows([replace(example, target_ids=words.scored_target(0)) for example in examples], prompt)
    with _head_for(model, words.first_tokens):
        logits: Tensor = model(prompt.unsqueeze(0), rows).logits
    return logits[:, 1]


@contextmanager
def _head_for(model: PromptedSeq2Seq, tokens: list[int]) -> Iterator[None]:
    """Let the model compute the logits of these tokens only, not of the whole vocabulary."""
    backbone = model.backbone
    whole = backbone.get_output_embeddings()
    narrow = nn.Linear(whole.in_features, len(tokens), bias=False, device="meta")
    narrow.weight = nn.Parameter(whole.weight[tokens], requires_grad=False)
    backbone.set_output_embeddings(narrow)
    try:
        yield
    finally:
        backbone.set_output_embeddings(whole)


def _score_whole_words(model: PromptedSeq2Seq, prompt: Tensor, examples: list[Example], words: LabelWords) -> Tensor:
    targets = [words.scored_target(label) for label in range(len(words.tokens))]
    rows = _rows([replace(example, target_ids=target) for example in examples for target in targets], prompt)
    log_probs: Tensor = model(prompt.unsqueeze(0), rows).logits.log_softmax(dim=-1)
    scored = rows.labels.clone()
    scored[:, 0] = IGNORED_LABEL
    picked = log_probs.gather(-1, scored.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return picked.where(scored != IGNORED_LABEL, 0.0).sum(dim=1).view(len(examples), len(targets))


def _rows(examples: list[Example], prompt: Tensor) -> Rows:
    return collate(examples, [0] * len(examples)).to(prompt.device)


def accuracy(labels: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Return the share of correct predictions."""
    return float(accuracy_score(labels, predictions))


def macro_f1(labels: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Return the mean F1 over the classes that occur; a class never predicted has F1 0."""
    return float(f1_score(labels, predictions, average="macro", zero_division=0))


METRICS = {"accuracy": accuracy, "macro_f1": macro_f1}


def evaluate(scores: Scores, examples: Sequence[Example], metric: str) -> float:
    """Return a metric of the predictions that scores [N, C] make."""
    return METRICS[metric]([example.label for example in examples], scores.argmax(axis=1))
