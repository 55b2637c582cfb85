"""Batched passes: the rows of many tasks through the model at once, giving every task's prompt gradient.

The gradient of the summed losses with respect to the prompts [T, L, d] is, task by task, the gradient of that task's own
loss, because each row sees one prompt only. Shapes: T tasks, L prompt length, d model width, B rows of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from supmer.meta.losses import MIXED_POSITIONS, cross_entropy, label_cross_entropy, mixed_divergence
from supmer.model.prompted import Mixing, PromptedSeq2Seq
from supmer.model.rows import Rows, collate, plan_microbatches
from supmer.tasks.episode import Example


@dataclass(frozen=True)
class PassPlan:
    """How passes are cut into micro-batches.

    Attributes:
        max_tokens: padded encoder positions per micro-batch, prompts included.
        width: pad every row to at least this length (0: only to the longest of the micro-batch).
        agree: returns the largest of all ranks' numbers; ranks that share a sharded model must run equally many passes.
    """

    max_tokens: int
    width: int = 0
    agree: Callable[[int], int] = lambda own: own


@dataclass(frozen=True)
class PassResult:
    """`gradients` [T, L, d] of each task's mean loss, `losses` [T], `hidden` [T, d] pooled states, `tokens` encoded."""

    gradients: Tensor
    losses: Tensor
    hidden: Tensor
    tokens: int


@dataclass(frozen=True)
class Microbatch:
    """Rows with the weight [B] of each in its task's mean, and what they are mixed with."""

    rows: Rows
    weights: Tensor
    mixing: Mixing | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens of text to encode, those that are mixed in among them."""
        sides = [self.rows] if self.mixing is None else [self.rows, self.mixing.augmentation]
        return sum(int(side.attention_mask.sum()) for side in sides)

    def to(self, device: torch.device) -> Microbatch:
        """Copy all tensors to a device."""
        mixing = None if self.mixing is None else self.mixing.to(device)
        return Microbatch(self.rows.to(device), self.weights.to(device), mixing)


RowLoss = Callable[[Tensor, Microbatch], Tensor]
"""Loss [B] of logits [B, D, V] on a micro-batch."""


def support_loss(logits: Tensor, batch: Microbatch) -> Tensor:
    """Cross entropy over all label positions (section 3)."""
    return cross_entropy(logits, batch.rows.labels)


def query_loss(logits: Tensor, batch: Microbatch) -> Tensor:
    """Outer loss (section 5): mixed divergence, or cross entropy at the same positions without augmentation."""
    if batch.mixing is None:
        return label_cross_entropy(logits, batch.rows.labels)
    return mixed_divergence(logits, batch.rows.labels, batch.mixing.augmentation.labels, batch.mixing.lam)


def run_pass(
    model: PromptedSeq2Seq, prompts: Tensor, batches: Sequence[Microbatch], row_loss: RowLoss, plan: PassPlan
) -> PassResult:
    """Run micro-batches under `prompts` [T, L, d] and add up losses, gradients and pooled states.

    A rank with fewer micro-batches than the others makes up for it with empty ones, so that the collectives inside a
    sharded model stay in step.
    """
    num_missing = plan.agree(len(batches)) - len(batches)
    leaf = prompts.detach().requires_grad_(True)
    gradients, losses = torch.zeros_like(leaf), leaf.new_zeros(len(leaf))
    hidden, counts = leaf.new_zeros(len(leaf), leaf.shape[2]), leaf.new_zeros(len(leaf))
    for batch in batches:
        batch = batch.to(leaf.device)
        output = model(leaf, batch.rows, batch.mixing)
        row_losses = row_loss(output.logits, batch) * batch.weights
        gradients += torch.autograd.grad(row_losses.sum(), leaf)[0]
        losses.index_add_(0, batch.rows.task_index, row_losses.detach())
        hidden.index_add_(0, batch.rows.task_index, output.hidden_sum)
        counts.index_add_(0, batch.rows.task_index, output.hidden_count.to(counts.dtype))
    _keep_in_step(model, leaf, num_missing)
    tokens = sum(batch.num_tokens for batch in batches)
    return PassResult(gradients, losses, hidden / counts.clamp(min=1).unsqueeze(1), tokens)


def _keep_in_step(model: PromptedSeq2Seq, prompts: Tensor, count: int) -> None:
    """Run `count` forwards and backwards on one meaningless row and drop their results."""
    one = torch.ones(1, 1, dtype=torch.long, device=prompts.device)
    row = Rows(one, attention_mask=one, centroid_ids=-one, labels=one.expand(1, MIXED_POSITIONS), task_index=0 * one[0])
    for _ in range(count):
        leaf = prompts.new_zeros(1, *prompts.shape[1:]).requires_grad_(True)
        torch.autograd.grad(model(leaf, row).logits.sum(), leaf)


def plan_rows(row_sets: Sequence[Sequence[Example]], prompt_length: int, plan: PassPlan) -> list[Microbatch]:
    """Cut the rows of T tasks into micro-batches; each row weighs 1 / (number of its task's rows)."""
    examples, tasks, weights = _flatten(row_sets)
    lengths = [max(len(example.input_ids), plan.width) for example in examples]
    groups = plan_microbatches(lengths, prompt_length, plan.max_tokens)
    return [Microbatch(_pick(examples, tasks, group, plan.width), _pick_weights(weights, group)) for group in groups]


def plan_mixed_rows(
    queries: Sequence[Sequence[Example]],
    augmentations: Sequence[Sequence[Example]],
    lam: Tensor,
    prompt_length: int,
    plan: PassPlan,
) -> list[Microbatch]:
    """Cut query rows, each paired with the augmentation row of the same place, into micro-batches.

    Args:
        queries, augmentations: rows of T tasks, equally many in both sets of a task.
        lam: [T], weight of each task's query rows.
    """
    examples, tasks, weights = _flatten(queries)
    partners, _, _ = _flatten(augmentations)
    pairs = zip(examples, partners, strict=True)
    lengths = [max(len(row.input_ids), len(partner.input_ids), plan.width) for row, partner in pairs]
    batches = []
    for group in plan_microbatches(lengths, prompt_length, plan.max_tokens, copies=2):
        width = max(lengths[index] for index in group)
        rows = _pick(examples, tasks, group, width)
        mixing = Mixing(_pick(partners, tasks, group, width), lam.cpu()[rows.task_index])
        batches.append(Microbatch(rows, _pick_weights(weights, group), mixing))
    return batches


def _flatten(row_sets: Sequence[Sequence[Example]]) -> tuple[list[Example], list[int], list[float]]:
    flat = [(example, task, 1 / len(rows)) for task, rows in enumerate(row_sets) for example in rows]
    return [row[0] for row in flat], [row[1] for row in flat], [row[2] for row in flat]


def _pick(examples: Sequence[Example], tasks: Sequence[int], group: Sequence[int], width: int) -> Rows:
    return collate([examples[i] for i in group], [tasks[i] for i in group], width)


def _pick_weights(weights: Sequence[float], group: Sequence[int]) -> Tensor:
    return torch.tensor([weights[i] for i in group])
