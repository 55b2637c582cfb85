"""The two losses, per row: cross entropy on the support set, and the mixed divergence of the outer loop.

Shapes: B rows, D label positions, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from supmer.model.rows import IGNORED_LABEL


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


def mixed_divergence(logits: Tensor, labels_query: Tensor, labels_augmentation: Tensor, lam: Tensor) -> Tensor:
    """KL divergence [B] of the model from ``lam onehot(y_q) + (1 - lam) onehot(y_a)`` (section 5).

    Summed over the label positions. With lam = 1 it is the cross entropy there.

    Args:
        logits: [B, D, V] at the positions that the outer loss looks at.
        labels_query, labels_augmentation: [B, D].
        lam: [B], weight of the query's label.
    """
    log_probs = logits.log_softmax(dim=-1)
    log_q = log_probs.gather(-1, labels_query.unsqueeze(-1)).squeeze(-1)
    log_a = log_probs.gather(-1, labels_augmentation.unsqueeze(-1)).squeeze(-1)
    lam = lam.to(log_probs.dtype).unsqueeze(1)
    entropy = torch.xlogy(lam, lam) + torch.xlogy(1 - lam, 1 - lam)
    negative_entropy = torch.where(labels_query == labels_augmentation, 0.0, entropy)
    return (negative_entropy - lam * log_q - (1 - lam) * log_a).sum(dim=1)
