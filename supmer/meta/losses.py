"""The two losses, per row: cross entropy on the support set, and the mixed divergence of the outer loop.

Shapes: B rows, D decoder positions, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from supmer.model.rows import IGNORED_LABEL

MIXED_POSITIONS = 2
"""Decoder positions that the outer loss looks at: `<X>` and the label."""


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of each row [B], summed over its label positions (section 3).

    Args:
        logits: [B, D, V].
        labels: [B, D], IGNORED_LABEL where padded.
    """
    # Flat, so that the vocabulary stays the innermost dimension: six times faster on a CPU than [B, V, D].
    flat, targets = logits.flatten(end_dim=1), labels.flatten()
    per_position = nn.functional.cross_entropy(flat, targets, ignore_index=IGNORED_LABEL, reduction="none")
    return per_position.view_as(labels).sum(dim=1)


def label_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the outer loss [B] of rows without augmentation: cross entropy at `<X>` and the label."""
    return cross_entropy(logits[:, :MIXED_POSITIONS], labels[:, :MIXED_POSITIONS])


def mixed_divergence(logits: Tensor, labels_query: Tensor, labels_augmentation: Tensor, lam: Tensor) -> Tensor:
    """KL divergence [B] of the model from ``lam onehot(y_q) + (1 - lam) onehot(y_a)`` (section 5).

    Summed over the first two decoder positions (`<X>` and the label). With lam = 1 it is the cross entropy there.

    Args:
        logits: [B, D, V].
        labels_query, labels_augmentation: [B, D].
        lam: [B], weight of the query's label.
    """
    log_probs = logits[:, :MIXED_POSITIONS].log_softmax(dim=-1)
    y_q, y_a = labels_query[:, :MIXED_POSITIONS], labels_augmentation[:, :MIXED_POSITIONS]
    log_q = log_probs.gather(-1, y_q.unsqueeze(-1)).squeeze(-1)
    log_a = log_probs.gather(-1, y_a.unsqueeze(-1)).squeeze(-1)
    lam = lam.to(log_probs.dtype).unsqueeze(1)
    negative_entropy = torch.where(y_q == y_a, 0.0, torch.xlogy(lam, lam) + torch.xlogy(1 - lam, 1 - lam))
    return (negative_entropy - lam * log_q - (1 - lam) * log_a).sum(dim=1)
