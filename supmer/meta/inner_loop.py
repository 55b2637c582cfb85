"""The inner loop and its derivative (sections 3 and 5).

Forward, each inner step is ``P_{k+1} = P_k - a g~_k`` with ``g~_k = psi_phi(g_k, h_k)``, g_k the support gradient at P_k and
a the inner rate. Backward, a gradient v with respect to P_{k+1} becomes ``v - a H_k u`` with ``u = (d psi / d g)^T v`` with
respect to P_k; first order leaves H_k out. Shapes: T tasks, L prompt length, d model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from supmer.config import MetaConfig
from supmer.meta.passes import (
    Microbatch,
    PassPlan,
    PassResult,
    plan_rows,
    run_pass,
    support_loss,
)
from supmer.model.prompted import PromptedModel
from supmer.model.regularizer import GradientRegularizer
from supmer.tasks.episode import Episode

DIFFERENCE_STEP = 1e-2
"""Length of the finite-difference step relative to the prompt's norm: in fp32, rounding and curvature balance here."""


@dataclass(frozen=True)
class InnerStep:
    """One inner step of all tasks.

    Attributes:
        prompts: P_k [T, L, d].
        support: losses, pooled states and gradients g_k at P_k; `support.gradients` requires grad, for d psi / d g.
        regularized: g~_k [T, L, d] with the graph of psi.
        gates: [T] with the graph of psi.
        random_state: generator state before the support pass, to repeat its dropout masks.
    """

    prompts: Tensor
    support: PassResult
    regularized: Tensor
    gates: Tensor
    random_state: Tensor


@dataclass(frozen=True)
class LoopGradients:
    """What the outer gradient becomes when it is carried back through the loop.

    Attributes:
        prompts: [T, L, d], with respect to the prompts that the loop began with.
        loss_of_phi: scalar, whose gradient with respect to phi is that of the outer losses.
    """

    prompts: Tensor
    loss_of_phi: Tensor


class InnerLoop:
    """The inner loop of T tasks on their support sets.

    Args:
        model: frozen backbone.
        regularizer: psi_phi, or None to adapt with raw gradients.
        settings: order, number of steps.
        inner_lr: the rate of each step.
        plan: how passes are cut into micro-batches.
    """

    def __init__(
        self,
        model: PromptedModel,
        regularizer: GradientRegularizer | None,
        settings: MetaConfig,
        inner_lr: float,
        plan: PassPlan,
    ) -> None:
        self.model = model
        self.regularizer = regularizer
        self.settings = settings
        self.inner_lr = inner_lr
        self.plan = plan
        self.steps: list[InnerStep] = []
        self._batches: Sequence[Microbatch] = ()

    def adapt(self, prompts: Tensor, episodes: Sequence[Episode]) -> Tensor:
        """Run the loop from `prompts` and return the adapted prompts [T, L, d]; each step sees all support rows."""
        self._batches = plan_rows([episode.support for episode in episodes], prompts, self.plan)
        for _ in range(self.settings.inner_steps):
            step = self._step(prompts)
            self.steps.append(step)
            prompts = prompts - self.inner_lr * step.regularized.detach()
        return prompts

    def backward(self, outer: Tensor) -> LoopGradients:
        """Carry the outer gradient [T, L, d] at the adapted prompts back through the loop."""
        loss_of_phi = outer.new_zeros(())
        for step in reversed(self.steps):
            loss_of_phi = loss_of_phi - self.inner_lr * (outer * step.regularized).sum()
            if self.settings.order == "second":
                # (d psi / d g)^T v, through the small network only
                (u,) = torch.autograd.grad(step.regularized, [step.support.gradients], [outer], retain_graph=True)
                outer = outer - self.inner_lr * self._hessian_product(step, u)
        return LoopGradients(outer, loss_of_phi)

    def _step(self, prompts: Tensor) -> InnerStep:
        random_state = _get_random_state(prompts.device)
        support = run_pass(self.model, prompts, self._batches, support_loss, self.plan)
        gradients = support.gradients.requires_grad_(self.settings.order == "second")
        if self.regularizer is None:
            return InnerStep(prompts, support, gradients, torch.ones_like(support.losses), random_state)
        regularized = self.regularizer(gradients, support.hidden)
        return InnerStep(prompts, support, regularized.gradient, regularized.gate, random_state)

    def _hessian_product(self, step: InnerStep, vectors: Tensor) -> Tensor:
        """Return H v by a central difference of first-order gradients.

        Double backward would need eager attention, and crashes the process where the model is sharded.
        """
        norms = vectors.flatten(1).norm(dim=1).clamp(min=torch.finfo(vectors.dtype).tiny)
        lengths = (DIFFERENCE_STEP * step.prompts.flatten(1).norm(dim=1) / norms).view(-1, 1, 1)
        with torch.random.fork_rng():
            ahead = self._gradients_at(step, step.prompts + lengths * vectors)
            behind = self._gradients_at(step, step.prompts - lengths * vectors)
        product: Tensor = (ahead - behind) / (2 * lengths)
        return product

    def _gradients_at(self, step: InnerStep, prompts: Tensor) -> Tensor:
        _set_random_state(step)
        return run_pass(self.model, prompts, self._batches, support_loss, self.plan).gradients


def _get_random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_random_state(step: InnerStep) -> None:
    if step.prompts.device.type == "cuda":
        torch.cuda.set_rng_state(step.random_state, step.prompts.device)
    else:
        torch.set_rng_state(step.random_state)
