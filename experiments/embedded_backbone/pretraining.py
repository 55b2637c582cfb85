"""Pre-training of a small T5 on several objectives, one drawn by weight at each step.

What a step trains on is a function of its number alone, so that a resumed run computes what an unbroken one does.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration
from transformers.modeling_outputs import Seq2SeqLMOutput

from experiments.embedded_backbone.initial_weights import (
    Vectors,
    build_model,
    principal_map,
    start_attention,
    start_embeddings,
)
from experiments.embedded_backbone.label_rows import LOOKUP, ExemplarRows, LabelledRows, PairRows
from experiments.embedded_backbone.settings import OBJECTIVES, Objective, Recipe
from experiments.embedded_backbone.teacher import Embeddings
from experiments.embedded_backbone.text_batches import Batch, TokenIds, cue_batch, span_batch
from supmer import storage
from supmer.backbone.batches import mean_pool, pad

log = logging.getLogger("supmer.experiments")

LABELLED: dict[Objective, Callable[..., ExemplarRows | PairRows]] = {
    "lookup": partial(ExemplarRows, difficulty=LOOKUP),
    "exemplar": ExemplarRows,
    "pair": PairRows,
}
"""Objectives whose rows ask for a label word."""

SEED = 0
CLIP_NORM = 1.0
LOG_EVERY = 100
HELD_OUT_SHARE = 0.02
MIN_HELD_OUT, MAX_HELD_OUT = 32, 512
HELD_OUT_BATCHES = 8
NUM_SPECIAL = 3
"""Pad, end and unknown begin the vocabulary."""
NUM_NEIGHBOURS = 8
"""A distillation batch is drawn from so many times its size in sentences of like lengths: little of it is padding."""


@dataclass(frozen=True)
class PretrainingData:
    """What a model learns from.

    Attributes:
        sentences: token ids.
        embeddings: the teacher's embeddings of them [N, d_teacher], of unit length.
        sequences: packed text [M, length].
        pieces: the teacher's embeddings of the vocabulary [V, d_teacher], sentinels not counted.
    """

    sentences: Sequence[Sequence[int]]
    embeddings: Embeddings
    sequences: TokenIds
    pieces: Embeddings

    @cached_property
    def by_length(self) -> npt.NDArray[np.int64]:
        """The sentences from short to long."""
        return np.argsort([len(sentence) for sentence in self.sentences], kind="stable")

    @cached_property
    def centre(self) -> Embeddings:
        """Mean of the sentences' embeddings [d_teacher]."""
        centre: Embeddings = self.embeddings.mean(axis=0)
        return centre

    def split(self) -> tuple[PretrainingData, PretrainingData]:
        """Return what is trained on, and the first rows, which are held out."""
        of_sentences, of_sequences = _num_held_out(len(self.sentences)), _num_held_out(len(self.sequences))
        parts = [(slice(of_sentences, None), slice(of_sequences, None)), (slice(of_sentences), slice(of_sequences))]
        training, held_out = (
            PretrainingData(self.sentences[rows], self.embeddings[rows], self.sequences[packed], self.pieces)
            for rows, packed in parts
        )
        return training, held_out


class Pretraining:
    """Model, optimizer and position of a run.

    Args:
        tokenizer: the student's tokenizer.
        data: what it learns from.
        recipe: the student's shape, objectives, steps and rates.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, data: PretrainingData, recipe: Recipe) -> None:
        self.tokenizer, self.recipe = tokenizer, recipe
        self.data, self.held_out = data.split()
        self.to_width: Vectors = principal_map(data.pieces, recipe.d_model)
        self.model: T5ForConditionalGeneration = build_model(recipe, tokenizer, SEED)
        start_embeddings(self.model.get_input_embeddings().weight, data.pieces, self.to_width, NUM_SPECIAL)
        start_attention(self.model, SEED)
        self.optimizer = torch.optim.Adafactor(self.model.parameters(), lr=self._rate(0))
        self.labelled: dict[tuple[Objective, int], ExemplarRows | PairRows] = {
            (objective, id(part)): rows(part.sentences, part.embeddings, tokenizer)
            for objective, rows in LABELLED.items()
            for part in (self.data, self.held_out)
        }
        self.step = 0

    def run(self, checkpoint: Path, should_stop: Callable[[], bool]) -> bool:
        """Train to the last step, saving now and then; return whether it got there before it was asked to stop."""
        self.model.train()
        self._log_held_out()
        while self.step < self.recipe.steps and not should_stop():
            objective, loss = self.train_step()
            if self.step % LOG_EVERY == 0:
                log.info("step %d/%d: %s loss %.3f", self.step, self.recipe.steps, objective, loss)
            if self.step % self.recipe.checkpoint_every == 0:
                self.save(checkpoint)
                self._log_held_out()
        self.save(checkpoint)
        self._log_held_out()
        self.model.eval()
        return self.step == self.recipe.steps

    def train_step(self) -> tuple[Objective, float]:
        """Take one step on the objective that its number draws."""
        generator = np.random.default_rng([SEED, self.step])
        objective = self._draw(generator) if self.step >= self.recipe.lookup_steps else "lookup"
        loss = self._loss(objective, self.data, generator)
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(self.step)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        self.optimizer.step()  # type: ignore[no-untyped-call]
        self.step += 1
        return objective, loss.item()

    @torch.no_grad()
    def evaluate(self) -> dict[Objective, float]:
        """Return the loss of every objective that has a weight, on what is held out."""
        return {
            objective: float(np.mean([self._loss(objective, self.held_out, generator).item() for generator in _fixed()]))
            for objective in OBJECTIVES
            if self.recipe.weights.get(objective)
        }

    def answer(self, data: PretrainingData, batch: LabelledRows) -> Seq2SeqLMOutput:
        """Return loss and logits [B, 4, V] of rows of `data`, with the vectors of sentences put where they belong."""
        tokens, has_vector = torch.from_numpy(batch.tokens), torch.from_numpy(batch.sentences >= 0)
        embedded = self.model.get_input_embeddings()(tokens.clamp_min(0)) * (tokens >= 0).unsqueeze(-1)
        vectors = self._vectors(data, batch.sentences[batch.sentences >= 0])
        embedded = embedded.index_put(torch.where(has_vector), vectors, accumulate=True)
        mask, labels = torch.from_numpy(batch.mask), torch.from_numpy(batch.targets)
        output: Seq2SeqLMOutput = self.model(inputs_embeds=embedded, attention_mask=mask, labels=labels)
        return output

    def save(self, path: Path) -> None:
        """Write weights, optimizer and position, whole or not at all."""
        content = io.BytesIO()
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}
        torch.save(state, content)
        storage.write_bytes(path, content.getvalue())

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def _rate(self, step: int) -> float:
        steps, rates = zip(*self.recipe.rates, strict=True)
        return float(np.interp(step, steps, rates))

    def _log_held_out(self) -> None:
        losses = ", ".join(f"{objective} {loss:.3f}" for objective, loss in self.evaluate().items())
        log.info("step %d, held-out loss: %s", self.step, losses)

    def _draw(self, generator: np.random.Generator) -> Objective:
        weights = np.array([self.recipe.weights.get(objective, 0.0) for objective in OBJECTIVES])
        return OBJECTIVES[int(generator.choice(len(OBJECTIVES), p=weights / weights.sum()))]

    def _loss(self, objective: Objective, data: PretrainingData, generator: np.random.Generator) -> torch.Tensor:
        if objective == "distill":
            return self._distill(data, generator)
        if objective in LABELLED:
            batch = self.labelled[objective, id(data)].draw(self.recipe.batch_size, generator)
            loss: torch.Tensor = self.answer(data, batch).loss
            return loss
        rows = data.sequences[generator.integers(len(data.sequences), size=self.recipe.batch_size)]
        build = cue_batch if objective == "cue" else span_batch
        return seq2seq_loss(self.model, build(rows, generator, self.tokenizer))

    def _distill(self, data: PretrainingData, generator: np.random.Generator) -> torch.Tensor:
        rows = _draw_alike(data.by_length, self.recipe.distill_batch_size, generator)
        ids, mask = (torch.from_numpy(array) for array in pad([data.sentences[row] for row in rows]))
        states = self.model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        student = nn.functional.normalize(mean_pool(states, mask), dim=-1)
        teacher = nn.functional.normalize(self._vectors(data, rows), dim=-1)
        return distillation_loss(student, teacher, self.recipe.temperature)

    def _vectors(self, data: PretrainingData, sentences: npt.NDArray[np.int64]) -> torch.Tensor:
        """Return what the teacher makes of sentences [N], in the coordinates of the token embeddings [N, d]."""
        return torch.from_numpy((data.embeddings[sentences] - data.centre) @ self.to_width)


def distillation_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return cosine distance plus the divergence of in-batch similarities, both 0 for equal unit vectors [B, d].

    The second term compares, sentence by sentence, whom the student and whom the teacher find similar.
    """
    cosine = 1 - (student * teacher).sum(dim=-1).mean()
    theirs = (teacher @ teacher.T / temperature).log_softmax(dim=-1)
    ours = (student @ teacher.T / temperature).log_softmax(dim=-1)
    return cosine + nn.functional.kl_div(ours, theirs, log_target=True, reduction="batchmean")


def seq2seq_loss(model: T5ForConditionalGeneration, batch: Batch) -> torch.Tensor:
    inputs, targets = batch
    loss: torch.Tensor = model(input_ids=torch.from_numpy(inputs), labels=torch.from_numpy(targets)).loss
    return loss


def _draw_alike(by_length: npt.NDArray[np.int64], batch_size: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return `batch_size` different sentences of similar length; `by_length` [N] lists all from short to long."""
    window = min(len(by_length), NUM_NEIGHBOURS * batch_size)
    start = int(generator.integers(len(by_length) - window + 1))
    return by_length[start + generator.choice(window, size=min(window, batch_size), replace=False)]


def _num_held_out(total: int) -> int:
    return min(MAX_HELD_OUT, max(MIN_HELD_OUT, round(total * HELD_OUT_SHARE)), total // 2)


def _fixed() -> list[np.random.Generator]:
    """Return the generators of the held-out batches, the same at every evaluation."""
    return [np.random.default_rng([SEED + 1, number]) for number in range(HELD_OUT_BATCHES)]
