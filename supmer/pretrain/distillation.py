"""Pre-training of a small T5: distillation for its encoder, span corruption and label cues for its decoder.

What a step trains on is a function of its number alone, so that a resumed run computes what an unbroken one does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

from supmer.config import DistillConfig, WarmupConfig
from supmer.corpus.unit import TokenIds
from supmer.pretrain.teacher import Embeddings, mean_pool
from supmer.pretrain.training import (
    CLIP_NORM,
    LOG_EVERY,
    SEED,
    build_model,
    label_cue_batch,
    rate_at,
    seq2seq_loss,
    span_batch,
)

log = logging.getLogger(__name__)

Objective = Literal["distill", "span", "cue"]


@dataclass(frozen=True)
class PretrainingData:
    """Sentences as token ids with their teacher embeddings [N, d_teacher], and packed sequences [M, length]."""

    sentences: Sequence[Sequence[int]]
    embeddings: Embeddings
    sequences: TokenIds


class Pretraining:
    """Model, optimizer and position of a run.

    Args:
        tokenizer: the student's tokenizer.
        data: what it learns from.
        shape: the student's shape, steps and learning rate.
        settings: objectives and their shares.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, data: PretrainingData, shape: WarmupConfig, settings: DistillConfig
    ) -> None:
        self.tokenizer, self.data, self.shape, self.settings = tokenizer, data, shape, settings
        self.model: T5ForConditionalGeneration = build_model(shape, tokenizer)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            self.head = nn.Linear(shape.d_model, data.embeddings.shape[1])
        self.parameters = [*self.model.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.Adafactor(self.parameters, lr=shape.learning_rate)
        self.step = 0

    def run(self, checkpoint: Path, should_stop: Callable[[], bool]) -> bool:
        """Train to the last step, saving now and then; return whether it got there before it was told to stop."""
        self.model.train()
        while self.step < self.shape.steps and not should_stop():
            objective, loss = self.train_step()
            if self.step % LOG_EVERY == 0:
                log.info("step %d/%d: %s loss %.3f", self.step, self.shape.steps, objective, loss)
            if self.step % self.settings.checkpoint_every == 0:
                self.save(checkpoint)
        self.save(checkpoint)
        self.model.eval()
        return self.step == self.shape.steps

    def train_step(self) -> tuple[Objective, float]:
        """Take one step on the objective that its number draws."""
        generator = np.random.default_rng([SEED, self.step])
        objective = self._draw(generator)
        loss = self._distill(generator) if objective == "distill" else self._generate(objective, generator)
        for group in self.optimizer.param_groups:
            group["lr"] = self.shape.learning_rate * rate_at(self.step, self.shape.steps)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters, CLIP_NORM)
        self.optimizer.step()  # type: ignore[no-untyped-call]
        self.step += 1
        return objective, loss.item()

    def save(self, path: Path) -> None:
        """Write weights, optimizer and position, whole or not at all."""
        temporary = path.with_suffix(".tmp")
        state = {"model": self.model.state_dict(), "head": self.head.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save({**state, "step": self.step}, temporary)
        temporary.rename(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]

    def _draw(self, generator: np.random.Generator) -> Objective:
        weights = np.array([self.settings.distill_weight, self.settings.span_weight, self.settings.cue_weight])
        names: tuple[Objective, ...] = ("distill", "span", "cue")
        return names[int(generator.choice(3, p=weights / weights.sum()))]

    def _generate(self, objective: Objective, generator: np.random.Generator) -> torch.Tensor:
        rows = self.data.sequences[generator.integers(len(self.data.sequences), size=self.shape.batch_size)]
        build = label_cue_batch if objective == "cue" else span_batch
        return seq2seq_loss(self.model, build(rows, generator, self.tokenizer))

    def _distill(self, generator: np.random.Generator) -> torch.Tensor:
        rows = generator.integers(len(self.data.sentences), size=self.settings.batch_size)
        ids, mask = pad([self.data.sentences[row] for row in rows])
        states = self.model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        student = nn.functional.normalize(self.head(mean_pool(states, mask)), dim=-1)
        return distillation_loss(student, torch.from_numpy(self.data.embeddings[rows]), self.settings.temperature)


def distillation_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return cosine distance plus the divergence of in-batch similarities, both 0 for equal unit vectors [B, d].

    The second term compares, sentence by sentence, whom the student and whom the teacher find similar.
    """
    cosine = 1 - (student * teacher).sum(dim=-1).mean()
    theirs = (teacher @ teacher.T / temperature).log_softmax(dim=-1)
    ours = (student @ teacher.T / temperature).log_softmax(dim=-1)
    return cosine + nn.functional.kl_div(ours, theirs, log_target=True, reduction="batchmean")


def pad(sentences: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and mask [B, S] of sentences, padded by 0 on the right."""
    ids = nn.utils.rnn.pad_sequence([torch.tensor(sentence) for sentence in sentences], batch_first=True)
    lengths = torch.tensor([len(sentence) for sentence in sentences])
    return ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()
