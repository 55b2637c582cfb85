"""The meta-gradients of one meta-batch (sections 3 to 5): no optimizer, no ranks, no Ray.

Shapes: T tasks, L prompt length, d model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from supmer.config import MetaConfig
from supmer.meta.inner_loop import InnerLoop
from supmer.meta.passes import PassPlan, PassResult, plan_mixed_rows, plan_rows, query_loss, run_pass, support_loss
from supmer.model.prompted import PromptedSeq2Seq
from supmer.model.regularizer import GradientRegularizer
from supmer.tasks.episode import Episode


@dataclass(frozen=True)
class MetaGradients:
    """What one meta-batch says.

    Attributes:
        prompt: [L, d], gradient of the meta-objective with respect to P.
        regularizer: gradients of phi by parameter name; empty without a regularizer.
        query_losses, support_losses, gates, similarities: [T]; similarities are ``(1 + mean cos) / 2`` of section 5.
        support_gradients, regularized_gradients: [T, L, d] of the first inner step (g and g~).
        tokens: encoder tokens of text that were passed, over support and query passes.
    """

    prompt: Tensor
    regularizer: dict[str, Tensor]
    query_losses: Tensor
    support_losses: Tensor
    gates: Tensor
    similarities: Tensor
    support_gradients: Tensor
    regularized_gradients: Tensor
    tokens: int


def meta_gradients(
    model: PromptedSeq2Seq,
    regularizer: GradientRegularizer | None,
    prompt: Tensor,
    episodes: Sequence[Episode],
    mixing_weights: Tensor | float | None,
    inner_lr: float,
    plan: PassPlan,
    *,
    settings: MetaConfig | None = None,
    num_tasks: int | None = None,
) -> MetaGradients:
    """Compute the meta-gradients of P and phi.

    Args:
        model: frozen backbone; its train or evaluation mode decides on dropout.
        regularizer: psi_phi, or None to adapt with raw gradients.
        prompt: P [L, d].
        episodes: this rank's T episodes; may be empty where other ranks hold the rest.
        mixing_weights: [T] or one number, lambda of each task; None to leave the augmentation rows out.
        inner_lr: step size of the inner loop.
        plan: how passes are cut into micro-batches.
        settings: order, inner steps, gate consistency (default: the published ones).
        num_tasks: tasks of the whole meta-batch, over which gradients are averaged (default: those given).

    Returns:
        This rank's share: summed over ranks, prompt and regularizer gradients are those of the meta-batch.
    """
    settings = settings or MetaConfig()
    share = 1 / (num_tasks or len(episodes))
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
        prompt=share * outer.prompts.sum(dim=0),
        regularizer={} if regularizer is None else _gradients_by_name(share * loss_of_phi, regularizer),
        query_losses=query.losses,
        support_losses=first.support.losses,
        gates=first.gates.detach(),
        similarities=similarities,
        support_gradients=first.support.gradients.detach(),
        regularized_gradients=first.regularized.detach(),
        tokens=query.tokens + sum(step.support.tokens for step in inner.steps),
    )


def multitask_gradients(
    model: PromptedSeq2Seq, prompt: Tensor, episodes: Sequence[Episode], plan: PassPlan, *, num_tasks: int | None = None
) -> MetaGradients:
    """Compute the plain gradient of P on the same rows, without adaptation (PPT, section 6).

    The losses are those of support and query rows together; gates and similarities, which do not exist here, are 0.
    """
    share = 1 / (num_tasks or len(episodes))
    prompts = prompt.detach().expand(len(episodes), -1, -1)
    rows = [[*episode.support, *episode.query] for episode in episodes]
    result = run_pass(model, prompts, plan_rows(rows, prompts.shape[1], plan), support_loss, plan)
    nothing = torch.zeros_like(result.losses)
    return MetaGradients(
        prompt=share * result.gradients.sum(dim=0),
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
    values = []
    for episode in episodes:
        own = centroids[list(episode.clusters)].mean(dim=0)
        other = centroids[list(episode.augmentation_clusters)].mean(dim=0)
        values.append((1 + torch.cosine_similarity(own, other, dim=0)) / 2)
    return torch.stack(values) if values else centroids.new_zeros(0)


def _query_pass(
    model: PromptedSeq2Seq,
    adapted: Tensor,
    episodes: Sequence[Episode],
    mixing_weights: Tensor | float | None,
    plan: PassPlan,
) -> PassResult:
    queries = [episode.query for episode in episodes]
    if mixing_weights is None:
        batches = plan_rows(queries, adapted.shape[1], plan)
    else:
        augmentations = [episode.augmentation for episode in episodes]
        lam = torch.as_tensor(mixing_weights, dtype=adapted.dtype).expand(len(episodes))
        batches = plan_mixed_rows(queries, augmentations, lam, adapted.shape[1], plan)
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
