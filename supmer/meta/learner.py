"""The state of meta-training and one meta-step (section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from supmer.config import Config
from supmer.meta.curriculum import draw_lambda, mixup_b, update_average
from supmer.meta.group import Group, LocalGroup, all_reduce_named
from supmer.meta.objective import MetaGradients, meta_gradients, multitask_gradients
from supmer.meta.parameter_group import ParameterGroup
from supmer.meta.passes import PassPlan
from supmer.model.prompted import PromptedSeq2Seq
from supmer.model.regularizer import GradientRegularizer
from supmer.tasks.episode import Episode

DROPOUT_STREAM = 2
REGULARIZER_STREAM = 3
"""Keys that keep the random streams of one seed apart (1 is mixing's, see `curriculum`)."""


@dataclass(frozen=True)
class EpisodeMeans:
    """Means over episodes, equal on all ranks; `tokens` is a sum."""

    query_loss: float
    support_loss: float
    gate: float
    similarity: float
    tokens: int


@dataclass(frozen=True)
class StepReport:
    """What one meta-step saw and did, equal on all ranks.

    `skipped` says that a non-finite loss or gradient was met and no weight was changed; `spoiled_slots` are then the
    episodes whose own loss or support gradient was not finite.
    """

    step: int
    means: EpisodeMeans
    mixup_b: float
    prompt_gradient_norm: float
    regularizer_gradient_norm: float
    skipped: bool
    spoiled_slots: tuple[int, ...] = ()


class Learner:
    """Prompt, regularizer, their optimizers and the curriculum.

    Args:
        config: the whole configuration.
        model: frozen backbone (sharded or not), on its device.
        prompt: P before training [L, d].
        group: the ranks that share each meta-batch; default: this process alone.
        lockstep: the model is sharded, so that all ranks must run equally many passes.
    """

    def __init__(
        self, config: Config, model: PromptedSeq2Seq, prompt: Tensor, group: Group | None = None, *, lockstep: bool = False
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
            agree=self.group.all_reduce_max if lockstep else int,
        )

    def step(self, episodes: Sequence[Episode]) -> StepReport:
        """Do meta-step `next_step` with this rank's share of its episodes (none is a share too)."""
        b = mixup_b(self.similarity, self.config.curriculum)
        share = self.gradients(episodes)
        total = all_reduce_named(_named(share), self.group)
        means = _means(total)
        norms = {group.name: group.clip(total, self.config.meta.clip_norm) for group in self.groups}
        is_finite = bool(torch.isfinite(total["query_loss"] + torch.stack([*norms.values()]).sum()))
        if is_finite:
            for group in self.groups:
                group.step(self._remaining)
            self.similarity = update_average(self.similarity, means.similarity)
        else:
            self.num_skipped += 1
        report = StepReport(
            step=self.next_step,
            means=means,
            mixup_b=b,
            prompt_gradient_norm=float(norms["prompt"]),
            regularizer_gradient_norm=float(norms.get("regularizer", 0.0)),
            skipped=not is_finite,
            spoiled_slots=() if is_finite else self._spoiled_slots(episodes, share),
        )
        self.next_step += 1
        return report

    def gradients(self, episodes: Sequence[Episode]) -> MetaGradients:
        """Return what this rank's episodes add to meta-step `next_step`; no weight is changed."""
        mixing_weights = self._mixing_weights(episodes, mixup_b(self.similarity, self.config.curriculum))
        self._enter_training_mode()
        return self._gradients(episodes, mixing_weights, self._inner_lr(self._remaining))

    def evaluate(self, episodes: Sequence[Episode]) -> EpisodeMeans:
        """Adapt to this rank's share of validation episodes and score their query rows, in evaluation mode.

        There is no augmentation: the query loss is the cross entropy at `<X>` and the label under the adapted prompt.
        """
        self.model.eval()
        share = self._gradients(episodes, None, self._inner_lr(remaining=1))
        return _means(all_reduce_named(_named(share), self.group))

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
        num_tasks = self.config.meta.tasks_per_step
        if self.config.meta.algorithm == "multitask":
            return multitask_gradients(self.model, self.prompt, episodes, self.plan, num_tasks=num_tasks)
        return meta_gradients(
            self.model,
            self.regularizer,
            self.prompt,
            episodes,
            mixing_weights,
            inner_lr,
            self.plan,
            settings=self.config.meta,
            num_tasks=num_tasks,
        )

    def _spoiled_slots(self, episodes: Sequence[Episode], share: MetaGradients) -> tuple[int, ...]:
        """Return the slots, over all ranks, of the episodes whose own loss or support gradient is not finite."""
        flags = torch.zeros(self.config.meta.tasks_per_step, device=self.model.device)
        own = share.query_losses + share.support_gradients.sum(dim=(1, 2))
        for episode, is_finite in zip(episodes, torch.isfinite(own).tolist(), strict=True):
            flags[episode.slot] += not is_finite
        return tuple(self.group.all_reduce_sum(flags).nonzero().flatten().tolist())

    def _mixing_weights(self, episodes: Sequence[Episode], b: float) -> Tensor | None:
        if self.config.curriculum.mode == "none":
            return None
        seed = self.config.run.seed
        weights = [draw_lambda(b, self.config.curriculum, seed, episode.step, episode.slot) for episode in episodes]
        return torch.tensor(weights, device=self.model.device)

    def _enter_training_mode(self) -> None:
        """Switch dropout on, with masks that depend on seed, step and rank only: a resumed run repeats them."""
        self.model.train()
        torch.manual_seed(_mix_seed(self.config.run.seed, DROPOUT_STREAM, self.next_step, self.group.rank))

    @property
    def _remaining(self) -> float:
        """Share of the meta-steps that is still to be done."""
        return 1 - self.next_step / self.config.meta.steps

    def _inner_lr(self, remaining: float) -> float:
        """Return the inner rate: as set, or the prompt's outer rate when `remaining` is left."""
        return self.config.meta.inner_lr or self.config.meta.prompt_lr * remaining

    def _parameter_groups(self) -> list[ParameterGroup]:
        """Return what the outer loop trains, prompt first; each group has its own rate and gradient norm."""
        meta = self.config.meta
        groups = [ParameterGroup("prompt", {"prompt": self.prompt}, meta.prompt_lr)]
        if self.regularizer is not None:
            phi = {f"regularizer.{name}": parameter for name, parameter in self.regularizer.named_parameters()}
            groups.append(ParameterGroup("regularizer", phi, meta.regularizer_lr))
        return groups


def _build_regularizer(config: Config, width: int, device: torch.device) -> GradientRegularizer | None:
    if not config.regularizer.enabled or config.meta.algorithm == "multitask":
        return None
    generator = torch.Generator().manual_seed(_mix_seed(config.run.seed, REGULARIZER_STREAM))
    return GradientRegularizer(width, config.regularizer, generator).to(device)


def _named(share: MetaGradients) -> dict[str, Tensor]:
    """Name a rank's sums over its tasks."""
    return {
        "prompt": share.prompt,
        **{f"regularizer.{name}": gradient for name, gradient in share.regularizer.items()},
        "query_loss": share.query_losses.sum(),
        "support_loss": share.support_losses.sum(),
        "gate": share.gates.sum(),
        "similarity": share.similarities.sum(),
        "tokens": share.prompt.new_tensor(share.tokens),
        "num_tasks": share.prompt.new_tensor(len(share.query_losses)),
    }


def _means(total: dict[str, Tensor]) -> EpisodeMeans:
    num_tasks = float(total["num_tasks"]) or 1.0
    return EpisodeMeans(
        query_loss=float(total["query_loss"]) / num_tasks,
        support_loss=float(total["support_loss"]) / num_tasks,
        gate=float(total["gate"]) / num_tasks,
        similarity=float(total["similarity"]) / num_tasks,
        tokens=int(total["tokens"]),
    )


def _mix_seed(*keys: int) -> int:
    """Return one seed of several keys, well spread."""
    return int(np.random.SeedSequence(keys).generate_state(1, np.uint64)[0] >> 1)
