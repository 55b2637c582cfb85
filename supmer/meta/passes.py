"""Batched passes: the rows of many tasks through the model at once, giving every task's prompt gradient.

The gradient of the summed losses with respect to the prompts [T, L, d] is, task by task, the gradient of that task's own
loss, because each row sees one prompt only. Ranks share the rows: each runs its own micro-batches, and one all-reduce at the
end of a pass gives all of them the sums over all rows.

Shapes: T tasks, L prompt length, d model width, B rows of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from supmer.backbone.batches import deal_microbatches
from supmer.meta.group import Group, LocalGroup, all_reduce_together
from supmer.meta.losses import cross_entropy, mixed_divergence
from supmer.model.prompted import Mixing, PromptedModel
from supmer.model.rows import Rows, collate, send
from supmer.tasks.episode import Example


@dataclass(frozen=True)
class PassPlan:
    """How passes are cut into micro-batches, and who shares them.

    Attributes:
        max_tokens: padded encoder positions per micro-batch, prompts included.
        width: pad every row to at least this length (0: only to the longest of the micro-batch).
        group: the ranks that share the rows of each pass; default: this process alone.
        lockstep: the ranks share the weights of a sharded model too, so all must run equally many micro-batches.
    """

    max_tokens: int
    width: int = 0
    group: Group = field(default_factory=LocalGroup)
    lockstep: bool = False


class PassResult(NamedTuple):
    """Equal on all ranks: `gradients` [T, L, d] of each task's mean loss, `losses` [T], `hidden` [T, d] pooled states, and
    `tokens`, the number of those that were encoded.
    """

    gradients: Tensor
    losses: Tensor
    hidden: Tensor
    tokens: Tensor


@dataclass(frozen=True)
class Microbatch:
    """Rows with the weight [B] of each in its task's mean (0: it counts nowhere), and what they are mixed with."""

    rows: Rows
    weights: Tensor
    mixing: Mixing | None = None

    @property
    def num_tokens(self) -> Tensor:
        """Tokens of text of each row [B], those that are mixed in among them."""
        own = self.rows.attention_mask.sum(dim=1)
        return own if self.mixing is None else own + self.mixing.augmentation.attention_mask.sum(dim=1)

    def to(self, device: torch.device) -> Microbatch:
        """Copy all tensors to a device."""
        mixing = None if self.mixing is None else self.mixing.to(device)
        return Microbatch(self.rows.to(device), send(self.weights, device), mixing)


RowLoss = Callable[[Tensor, Microbatch], Tensor]
"""Loss [B] of logits [B, D, V] on a micro-batch."""


def support_loss(logits: Tensor, batch: Microbatch) -> Tensor:
    """Cross entropy over all label positions (section 3)."""
    return cross_entropy(logits, batch.rows.labels)


def query_loss(logits: Tensor, batch: Microbatch) -> Tensor:
    """Outer loss (section 5) at the first label positions: mixed divergence, or cross entropy without augmentation."""
    if batch.mixing is None:
        return cross_entropy(logits, batch.rows.labels)
    return mixed_divergence(logits, batch.rows.labels, batch.mixing.augmentation.labels, batch.mixing.lam)


def run_pass(
    model: PromptedModel, prompts: Tensor, batches: Sequence[Microbatch], row_loss: RowLoss, plan: PassPlan
) -> PassResult:
    """Run this rank's micro-batches under `prompts` [T, L, d], and add up all ranks' losses, gradients and pooled states."""
    leaf = prompts.detach().requires_grad_(True)
    gradients, losses = torch.zeros_like(leaf), leaf.new_zeros(len(leaf))
    hidden, counts, tokens = leaf.new_zeros(len(leaf), leaf.shape[2]), leaf.new_zeros(len(leaf)), leaf.new_zeros(())
    for batch in batches:
        batch = batch.to(leaf.device)
        task, is_counted = batch.rows.task_index, (batch.weights > 0).to(leaf.dtype)
        output = model(leaf, batch.rows, batch.mixing)
        row_losses = row_loss(output.logits, batch) * batch.weights
        gradients += torch.autograd.grad(row_losses.sum(), leaf)[0]
        losses.index_add_(0, task, row_losses.detach())
        hidden.index_add_(0, task, output.hidden_sum * is_counted.unsqueeze(1))
        counts.index_add_(0, task, output.hidden_count * is_counted)
        tokens += (batch.num_tokens * is_counted).sum()
    sums = (gradients, losses, hidden, counts, tokens)
    gradients, losses, hidden, counts, tokens = all_reduce_together(sums, plan.group)
    return PassResult(gradients, losses, hidden / counts.clamp(min=1).unsqueeze(1), tokens)


def with_first_labels(rows: Sequence[Example], count: int) -> list[Example]:
    """Return rows with the first `count` of their label positions."""
    return [replace(row, target_ids=row.target_ids[:count]) for row in rows]


def plan_rows(
    row_sets: Sequence[Sequence[Example]],
    prompts: Tensor,
    plan: PassPlan,
    augmentations: Sequence[Sequence[Example]] | None = None,
    lam: Tensor | None = None,
    weights: Sequence[Sequence[float]] | None = None,
) -> list[Microbatch]:
    """Cut the rows of T tasks into micro-batches, and return those of this rank.

    Each row weighs its weight (default 1) / (number of its task's rows). In lockstep a rank that would have fewer
    micro-batches than another gets some of one row without weight.

    Args:
        row_sets: rows of T tasks.
        prompts: [T, L, d].
        plan: budget and ranks.
        augmentations: a row to mix each row with, the one of the same place; None: no mixing.
        lam: [T] on the CPU, weight of each task's own rows where they are mixed.
        weights: of the rows of T tasks, positive.
    """
    examples = [example for rows in row_sets for example in rows]
    partners = examples if augmentations is None else [example for rows in augmentations for example in rows]
    tasks = [task for task, rows in enumerate(row_sets) for _ in rows]
    shares = torch.tensor([1 / len(row_sets[task]) for task in tasks])
    if weights is not None:
        shares *= torch.tensor([weight for of_task in weights for weight in of_task])
    lengths = [
        max(len(row.input_ids), len(partner.input_ids), plan.width) for row, partner in zip(examples, partners, strict=True)
    ]
    _, prompt_length, model_width = prompts.shape

    def work(width: int) -> float:
        # Per position and block, forward and backward: 48 d^2 FLOPs in linear layers and 12 d S in attention.
        return width * (4 * model_width + width)

    def microbatch(group: Sequence[int], weight: float) -> Microbatch:
        width, own_tasks = max(lengths[index] for index in group), [tasks[index] for index in group]
        rows = collate([examples[index] for index in group], own_tasks, width)
        mixing = None
        if lam is not None:
            mixing = Mixing(collate([partners[index] for index in group], own_tasks, width), lam[rows.task_index])
        return Microbatch(rows, weight * shares[list(group)], mixing)

    copies = 1 if augmentations is None else 2
    ranks = deal_microbatches(lengths, prompt_length, plan.max_tokens, copies, plan.group.size, work)
    own = ranks[plan.group.rank]
    missing = max(map(len, ranks)) - len(own) if plan.lockstep else 0
    shortest = min(range(len(lengths)), key=lengths.__getitem__)
    return [microbatch(group, 1.0) for group in own] + [microbatch([shortest], 0.0)] * missing
