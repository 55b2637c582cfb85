"""The meta-gradients of one meta-batch (sections 3 to 5): no optimizer, no Ray.

Ranks share the rows inside each pass (`supmer.meta.passes`); all else here is computed alike by each of them.

Shapes: T tasks, L prompt length, d model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from supmer.config import MetaConfig
from supmer.meta.inner_loop import InnerLoop
from supmer.meta.passes import (
    PassPlan,
    PassResult,
    plan_rows,
    query_loss,
    run_pass,
    support_loss,
    with_first_labels,
)
from supmer.model.prompted import PromptedModel
from supmer.model.regularizer import GradientRegularizer
from supmer.model.rows import send
from supmer.tasks.episode import Episode


@dataclass(frozen=True)
class MetaGradients:
    """What one meta-batch says; equal on all ranks.

    Attributes:
        prompt: [L, d], gradient of the meta-objective with respect to P.
        regularizer: gradients of phi by parameter name; empty without a regularizer.
        query_losses, support_losses, gates, similarities: [T]; similarities are ``(1 + mean cos) / 2`` of section 5.
        support_gradients, regularized_gradients: [T, L, d] of the first inner step (g and g~).
        tokens: number of text tokens that were encoded, over support and query passes.
    """

    prompt: Tensor
    regularizer: dict[str, Tensor]
    query_losses: Tensor
    support_losses: Tensor
    gates: Tensor
    similarities: Tensor
    support_gradients: Tensor
    regularized_gradients: Tensor
    tokens: Tensor


def meta_gradients(
    model: PromptedModel,
    regularizer: GradientRegularizer | None,
    prompt: Tensor,
    episodes: Sequence[Episode],
    mixing_weights: Tensor | float | None,
    inner_lr: float,
    plan: PassPlan,
    *,
    settings: MetaConfig | None = None,
) -> MetaGradients:
    """Compute the meta-gradients of P and phi.

    Args:
        model: frozen backbone; its train or evaluation mode decides on dropout.
        regularizer: psi_phi, or None to adapt with raw gradients.
        prompt: P [L, d].
        episodes: the T episodes of the meta-batch.
        mixing_weights: [T] (best on the CPU) or one number, lambda of each task; None to leave the augmentation rows out.
        inner_lr: step size of the inner loop.
        plan: how passes are cut into micro-batches, and the ranks that share them (default: this process alone).
        settings: order, inner steps, gate consistency (default: the published ones).

    Example (two rows of two tokens as each set, without a regularizer):
        >>> import numpy as np
        >>> from transformers import T5Config, T5ForConditionalGeneration
        >>> from supmer.model.seq2seq import PromptedSeq2Seq
        >>> from supmer.tasks.episode import NO_CENTROID, Example
        >>> t5 = T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0)
        >>> model = PromptedSeq2Seq(T5ForConditionalGeneration(t5).eval(), torch.zeros(2, 8))
        >>> ids, target = np.array([5, 19], np.int32), np.array([19, 7, 18], np.int32)
        >>> rows = (Example(ids, np.full(2, NO_CENTROID, np.int32), target, label=0),) * 2
        >>> episode = Episode("nsp", 0, 0, (0,), (1,), support=rows, query=rows, augmentation=rows)
        >>> meta_gradients(model, None, torch.randn(3, 8), [episode], None, 0.1, PassPlan(512)).prompt.shape
        torch.Size([3, 8])
    """
    settings = settings or MetaConfig()
    scale = 1 / len(episodes)
    prompts = prompt.detach().expand(len(episodes), -1, -1)

    inner = InnerLoop(model, regularizer, settings, inner_lr, plan)
    adapted = inner.adapt(prompts, episodes)
    query = _query_pass(model, adapted, episodes, mixing_weights, plan)
    outer = inner.backward(query.gradients)

    first, loss_of_phi = inner.steps[0], outer.loss_of_phi
    similarities = gradient_similarity(query.gradients, first.regularized.detach())
    if settings.gate_consistency:
        loss_of_phi = loss_of_phi + _gate_penalty(model.centroids, episodes, similarities, first.gates)
    return MetaGradients(
        prompt=scale * outer.prompts.sum(dim=0),
        regularizer={} if regularizer is None else _gradients_by_name(scale * loss_of_phi, regularizer),
        query_losses=query.losses,
        support_losses=first.support.losses,
        gates=first.gates.detach(),
        similarities=similarities,
        support_gradients=first.support.gradients.detach(),
        regularized_gradients=first.regularized.detach(),
        tokens=sum((step.support.tokens for step in inner.steps), query.tokens),
    )


def multitask_gradients(model: PromptedModel, prompt: Tensor, episodes: Sequence[Episode], plan: PassPlan) -> MetaGradients:
    """Compute the plain gradient of P on the same rows, without adaptation (PPT, section 6).

    The losses are those of support and query rows together; gates and similarities, which do not exist here, are 0.
    """
    prompts = prompt.detach().expand(len(episodes), -1, -1)
    rows = [[*episode.support, *episode.query] for episode in episodes]
    result = run_pass(model, prompts, plan_rows(rows, prompts, plan), support_loss, plan)
    nothing = torch.zeros_like(result.losses)
    return MetaGradients(
        prompt=result.gradients.mean(dim=0),
        regularizer={},
        query_losses=result.losses,
        support_losses=result.losses,
        gates=nothing,
        similarities=nothing,
        support_gradients=result.gradients,
        regularized_gradients=result.gradients,
        tokens=result.tokens,
    )


def gradient_similarity(query_gradients: Tensor, regularized: Tensor) -> Tensor:
    """Return [T]: agreement of outer and inner gradient, ``(1 + mean over rows of cos) / 2``.

    The query gradient is that of the outer loss; first order, with respect to P and to the adapted prompt are the same.
    """
    cosines = torch.cosine_similarity(query_gradients, regularized, dim=-1)
    return (1 + cosines.mean(dim=1)) / 2


def domain_similarity(centroids: Tensor, episodes: Sequence[Episode]) -> Tensor:
    """Return [T]: ``1 - cosine distance / 2`` between the mean centroids of episode and augmentation (section 5)."""
    own, other = (
        _mean_centroids(centroids, domains)
        for domains in zip(*((episode.clusters, episode.augmentation_clusters) for episode in episodes), strict=True)
    )
    return (1 + torch.cosine_similarity(own, other, dim=-1)) / 2


def _mean_centroids(centroids: Tensor, domains: Sequence[Sequence[int]]) -> Tensor:
    """Return the mean centroid of each domain [T, d], by one product: domains may differ in their number of clusters."""
    shares = torch.zeros(len(domains), len(centroids), dtype=centroids.dtype)
    for task, clusters in enumerate(domains):
        shares[task, list(clusters)] = 1 / len(clusters)
    return send(shares, centroids.device) @ centroids


def _query_pass(
    model: PromptedModel,
    adapted: Tensor,
    episodes: Sequence[Episode],
    mixing_weights: Tensor | float | None,
    plan: PassPlan,
) -> PassResult:
    queries = [with_first_labels(episode.query, model.outer_positions) for episode in episodes]
    if mixing_weights is None:
        batches = plan_rows(queries, adapted, plan)
    else:
        augmentations = [with_first_labels(episode.augmentation, model.outer_positions) for episode in episodes]
        lam = torch.as_tensor(mixing_weights, dtype=adapted.dtype, device="cpu").expand(len(episodes))
        batches = plan_rows(queries, adapted, plan, augmentations, lam)
    return run_pass(model, adapted, batches, query_loss, plan)


def _gate_penalty(centroids: Tensor, episodes: Sequence[Episode], similarities: Tensor, gates: Tensor) -> Tensor:
    """Sum over tasks of the squared distance of the gate from the mean of domain and gradient similarity."""
    return (0.5 * domain_similarity(centroids, episodes) + 0.5 * similarities - gates).square().sum()


def _gradients_by_name(loss: Tensor, regularizer: GradientRegularizer) -> dict[str, Tensor]:
    names, parameters = zip(*regularizer.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {
        name: torch.zeros_like(parameter) if gradient is None else gradient
        for name, parameter, gradient in zip(names, parameters, gradients, strict=True)
    }
