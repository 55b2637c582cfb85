"""The state of meta-training and one meta-step (section 5)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from supmer.backbone.load import load_tokenizer
from supmer.backbone.pieces import ordinary_tokens
from supmer.config import Config
from supmer.meta.curriculum import draw_lambda, mixup_b, update_average
from supmer.meta.group import Group, LocalGroup, all_reduce_together
from supmer.meta.objective import MetaGradients, meta_gradients, multitask_gradients
from supmer.meta.parameter_group import ParameterGroup
from supmer.meta.passes import PassPlan
from supmer.meta.record import StepRecord
from supmer.meta.schedule import rate_factor
from supmer.model.build import build_model
from supmer.model.prompted import PromptedModel, initial_prompt
from supmer.model.regularizer import GradientRegularizer
from supmer.tasks.episode import Episode

DROPOUT_STREAM = 2
REGULARIZER_STREAM = 3
"""Keys that keep the random streams of one seed apart (1 is mixing's, see `curriculum`)."""


class _Figures(NamedTuple):
    """What a record says of a meta-batch: means over its episodes, and the norms of the parameter groups' gradients."""

    query_loss: float
    support_loss: float
    gate: float
    similarity: float
    tokens: float
    norms: tuple[float, ...]

    @classmethod
    def read(cls, found: MetaGradients, norms: Mapping[str, Tensor]) -> _Figures:
        """Read all figures from the device in one copy."""
        means = [each.mean() for each in (found.query_losses, found.support_losses, found.gates, found.similarities)]
        values: list[float] = torch.stack([*means, found.tokens, *norms.values()]).tolist()
        return cls(values[0], values[1], values[2], values[3], values[4], tuple(values[5:]))


class Learner:
    """Prompt, regularizer, their optimizers and the curriculum.

    Args:
        config: the whole configuration.
        model: frozen backbone (sharded or not), on its device.
        prompt: P before training [L, d].
        group: the ranks that train together; default: this process alone.
        lockstep: the model is sharded, so that all ranks must run equally many micro-batches.
    """

    def __init__(
        self, config: Config, model: PromptedModel, prompt: Tensor, group: Group | None = None, *, lockstep: bool = False
    ) -> None:
        self.config = config
        self.model = model
        self.group: Group = group or LocalGroup()
        self.prompt = nn.Parameter(prompt.detach().clone().float().to(model.device))
        self.regularizer = _build_regularizer(config, prompt.shape[1], model.device)
        self.groups = self._parameter_groups()
        self.similarity = 0.0
        self.next_step = 0
        self.num_skipped = 0
        self.plan = PassPlan(
            max_tokens=config.train.max_tokens_per_microbatch,
            # The published pooling averages over padding too, so rows must be padded as published.
            width=config.max_input_tokens if config.meta.pooling == "all" else 0,
            group=self.group,
            lockstep=lockstep,
        )

    def step(self, episodes: Sequence[Episode]) -> StepRecord:
        """Do meta-step `next_step` with its meta-batch, of which the ranks share the rows; the record's times are left 0."""
        b = mixup_b(self.similarity, self.config.curriculum)
        found = self.gradients(episodes)
        gradients = {"prompt": found.prompt} | {f"regularizer.{name}": tensor for name, tensor in found.regularizer.items()}
        norms = {group.name: group.clip(gradients, self.config.meta.clip_norm) for group in self.groups}
        figures = _Figures.read(found, norms)  # here all kernels are awaited, once a meta-step
        is_finite = math.isfinite(figures.query_loss + sum(figures.norms))
        if is_finite:
            for group in self.groups:
                group.step(self._remaining)
            self.similarity = update_average(self.similarity, figures.similarity)
        else:
            self.num_skipped += 1
        self.next_step += 1
        return replace(
            self._record("train", episodes, figures, b),
            prompt_gradient_norm=figures.norms[0],
            regularizer_gradient_norm=figures.norms[1] if len(figures.norms) > 1 else 0.0,
            skipped=not is_finite,
            spoiled_slots=() if is_finite else _spoiled_slots(episodes, found),
        )

    def gradients(self, episodes: Sequence[Episode]) -> MetaGradients:
        """Return the meta-gradients of meta-step `next_step`; no weight is changed."""
        mixing_weights = self._mixing_weights(episodes, mixup_b(self.similarity, self.config.curriculum))
        self._enter_training_mode()
        return self._gradients(episodes, mixing_weights, self._inner_lr(self._remaining))

    def evaluate(self, episodes: Sequence[Episode]) -> StepRecord:
        """Adapt to validation episodes of one kind and score their query rows, in evaluation mode; the ranks share the rows.

        There is no augmentation: the query loss is the cross entropy at `<X>` and the label under the adapted prompt.
        """
        self.model.eval()
        found = self._gradients(episodes, None, self._inner_lr(remaining=1))
        figures = _Figures.read(found, {})
        return self._record("validation", episodes, figures, mixup_b(self.similarity, self.config.curriculum))

    @torch.no_grad()
    def synchronize(self) -> None:
        """Give all ranks the weights of the first.

        Each rank computes regularizer and optimizers for itself, and processors of another kind may round otherwise.
        """
        weights = [weight for group in self.groups for weight in group.parameters.values()]
        parts = [weight.clone() if self.group.rank == 0 else torch.zeros_like(weight) for weight in weights]
        for weight, first in zip(weights, all_reduce_together(parts, self.group), strict=True):
            weight.copy_(first)

    def state_dict(self) -> dict[str, Tensor]:
        """Return all state as flat named tensors, fit for safetensors."""
        state = {name: tensor for group in self.groups for name, tensor in group.state().items()}
        if self.regularizer is not None:
            state |= {f"regularizer.{name}": buffer for name, buffer in self.regularizer.named_buffers()}
        state["similarity"] = torch.tensor(self.similarity, dtype=torch.float64)
        state["next_step"] = torch.tensor(self.next_step)
        state["num_skipped"] = torch.tensor(self.num_skipped)
        return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned; KeyError or RuntimeError where it does not fit this learner."""
        for group in self.groups:
            group.load(state)
        if self.regularizer is not None:
            for name, buffer in self.regularizer.named_buffers():
                buffer.copy_(state[f"regularizer.{name}"])
        self.similarity = float(state["similarity"])
        self.next_step = int(state["next_step"])
        self.num_skipped = int(state["num_skipped"])

    def _gradients(self, episodes: Sequence[Episode], mixing_weights: Tensor | None, inner_lr: float) -> MetaGradients:
        if self.config.meta.algorithm == "multitask":
            return multitask_gradients(self.model, self.prompt, episodes, self.plan)
        return meta_gradients(
            self.model,
            self.regularizer,
            self.prompt,
            episodes,
            mixing_weights,
            inner_lr,
            self.plan,
            settings=self.config.meta,
        )

    def _record(
        self, split: Literal["train", "validation"], episodes: Sequence[Episode], figures: _Figures, b: float
    ) -> StepRecord:
        return StepRecord(
            step=self.next_step,
            split=split,
            query_loss=figures.query_loss,
            support_loss=figures.support_loss,
            gate=figures.gate,
            similarity=figures.similarity,
            mixup_b=b,
            kind=episodes[0].kind,
            tokens=int(figures.tokens),
        )

    def _mixing_weights(self, episodes: Sequence[Episode], b: float) -> Tensor | None:
        if self.config.curriculum.mode == "none":
            return None
        seed = self.config.run.seed
        weights = [draw_lambda(b, self.config.curriculum, seed, episode.step, episode.slot) for episode in episodes]
        return torch.tensor(weights)

    def _enter_training_mode(self) -> None:
        """Switch dropout on, with masks that depend on seed, step and rank only: a resumed run repeats them."""
        self.model.train()
        torch.manual_seed(_mix_seed(self.config.run.seed, DROPOUT_STREAM, self.next_step, self.group.rank))

    @property
    def _remaining(self) -> float:
        """The part of the outer rates that the schedule leaves at this meta-step."""
        meta = self.config.meta
        return rate_factor(meta.schedule, self.next_step, meta.steps, meta.warmup_steps)

    def _inner_lr(self, remaining: float) -> float:
        """Return the inner rate: as set, or the prompt's outer rate of which `remaining` is left."""
        return self.config.meta.inner_lr or self.config.meta.prompt_lr * remaining

    def _parameter_groups(self) -> list[ParameterGroup]:
        """Return what the outer loop trains, prompt first; each group has its own rate and gradient norm."""
        meta = self.config.meta
        groups = [ParameterGroup("prompt", {"prompt": self.prompt}, meta.prompt_lr)]
        if self.regularizer is not None:
            phi = {f"regularizer.{name}": parameter for name, parameter in self.regularizer.named_parameters()}
            groups.append(ParameterGroup("regularizer", phi, meta.regularizer_lr))
        return groups


def build_learner(config: Config, centroids: npt.NDArray[np.float32], device: torch.device, group: Group) -> Learner:
    """Return the learner as it is before the first meta-step, its backbone sharded over the ranks as `train.sharding` says.

    Args:
        config: the whole configuration.
        centroids: those of the task store [K, d_embed].
        device: this rank's.
        group: the ranks that train together.
    """
    if config.train.sharding == "none":
        model = build_model(config, centroids).to(device)
    else:
        from supmer.model.sharding import build_sharded_model  # needs accelerate, which one process alone does not

        model = build_sharded_model(config, torch.from_numpy(centroids), device)
    tokens = ordinary_tokens(load_tokenizer(config.backbone), config.prompt.init_entries)
    prompt = initial_prompt(config.prompt, model, config.run.seed, torch.tensor(tokens))
    return Learner(config, model, prompt, group, lockstep=config.train.sharding != "none")


def _build_regularizer(config: Config, width: int, device: torch.device) -> GradientRegularizer | None:
    if not config.regularizer.enabled or config.meta.algorithm == "multitask":
        return None
    generator = torch.Generator().manual_seed(_mix_seed(config.run.seed, REGULARIZER_STREAM))
    return GradientRegularizer(width, config.regularizer, generator).to(device)


def _spoiled_slots(episodes: Sequence[Episode], found: MetaGradients) -> tuple[int, ...]:
    """Return the slots of the episodes whose own loss or support gradient is not finite."""
    are_finite = torch.isfinite(found.query_losses + found.support_gradients.sum(dim=(1, 2))).tolist()
    return tuple(episode.slot for episode, is_finite in zip(episodes, are_finite, strict=True) if not is_finite)


def _mix_seed(*keys: int) -> int:
    """Return one seed of several keys, well spread."""
    return int(np.random.SeedSequence(keys).generate_state(1, np.uint64)[0] >> 1)
