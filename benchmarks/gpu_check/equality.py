"""Are the numbers the same: in every precision, by every implementation, in micro-batches of any size, after a resumption?

Everything on tiny models, against float64 on the CPU. An error is the norm of the difference over the norm of the reference.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gpu_check.material import Scale, draw_episodes, learner_of, random_causal, random_t5, scale_of
from gpu_check.report import Report
from supmer.config import Config
from supmer.meta.objective import MetaGradients, meta_gradients
from supmer.meta.passes import PassPlan
from supmer.model.prompted import PromptedModel, initial_prompt
from supmer.model.regularizer import GradientRegularizer
from supmer.tasks.episode import Episode

SECTION = "equality"
CPU = torch.device("cpu")
TOLERANCES = {"float32": 1e-3, "bfloat16": 0.15}
"""Of gradients through two blocks: float32 is exact to about 1e-6, and TF32 would show; bfloat16 has 8 bits of mantissa."""
SAME_PRECISION = 1e-4
BUDGETS = (256, 1024, 4096)
STEPS = 4


def run(scale: Scale, report: Report) -> None:
    """Check all of it on a tiny T5 and a tiny causal model."""
    tiny = scale_of(CPU)

    def t5(config: Config, device: torch.device) -> PromptedModel:
        return random_t5(tiny.shape, config.backbone, device)

    def causal(config: Config, device: torch.device) -> PromptedModel:
        return random_causal(config.backbone, device)

    for name, build in (("T5", t5), ("causal", causal)):
        _compare(name, build, tiny, scale.device, report)
    _resume(tiny, scale.device, report)


def _compare(name: str, build: Callable[..., PromptedModel], tiny: Scale, device: torch.device, report: Report) -> None:
    config = tiny.config()
    (episodes,) = draw_episodes(config, ("nsp",), causal=name == "causal").values()
    source = build(config, CPU)
    weights = source.state_dict() | {"centroids": source.centroids}
    prompt = initial_prompt(config.prompt, source, seed=0)
    psi = GradientRegularizer(source.width, config.regularizer, torch.Generator().manual_seed(0))

    def compute(where: torch.device, dtype: torch.dtype, budget: int = BUDGETS[1], **backbone: Any) -> Tensor:
        model = build(tiny.config(**backbone), where)
        model.load_state_dict({key: value for key, value in weights.items() if key != "centroids"})
        model.set_centroids(weights["centroids"].to(where))
        model.backbone.to(dtype)
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        model.centroids = model.centroids.to(wide)
        phi = GradientRegularizer(model.width, config.regularizer)
        phi.load_state_dict(psi.state_dict())
        return _flat(_gradients(model, phi.to(where, wide), prompt.to(where, wide), episodes, budget))

    exact = compute(CPU, torch.float64)
    for dtype in (torch.float32, torch.bfloat16):
        label = str(dtype).removeprefix("torch.")
        error, limit = _error(compute(device, dtype), exact), TOLERANCES[label]
        what = f"{name}, {label} on {device.type} against float64 on the CPU"
        report.require(SECTION, what, f"{error:.1e} (at most {limit:g})", holds=error < limit)
    fused = compute(device, torch.float32)
    others = {
        "eager against fused attention": compute(device, torch.float32, attention="eager"),
        "checkpointed": compute(device, torch.float32, gradient_checkpointing=True),
        **{f"micro-batches of {budget}": compute(device, torch.float32, budget) for budget in BUDGETS},
    }
    if can_compile(device):
        others["compiled"] = compute(device, torch.float32, compile=True)
    for what, found in others.items():
        error = _error(found, fused)
        figure = f"{error:.1e} (at most {SAME_PRECISION:g})"
        report.require(SECTION, f"{name}, {what}", figure, holds=error < SAME_PRECISION)


def can_compile(device: torch.device) -> bool:
    """Return whether torch.compile is to be tried: on a CPU it takes a minute, and CI has tests of its own for it."""
    return device.type == "cuda" or bool(os.environ.get("GPU_CHECK_COMPILE"))


def _gradients(
    model: PromptedModel, psi: GradientRegularizer, prompt: Tensor, episodes: list[Episode], budget: int
) -> MetaGradients:
    lam = torch.full((len(episodes),), 0.7, dtype=prompt.dtype)
    return meta_gradients(model, psi, prompt, episodes, lam, 0.1, PassPlan(budget))


def _flat(found: MetaGradients) -> Tensor:
    """Return all gradients in a row, of prompt and regularizer to equal parts, float64 on the CPU."""
    phi = torch.cat([gradient.flatten() for gradient in found.regularizer.values()])
    parts = [part.detach().double().cpu().flatten() for part in (found.prompt, phi)]
    return torch.cat([part / part.norm() for part in parts])


def _error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def _resume(tiny: Scale, device: torch.device, report: Report) -> None:
    """Is a resumed run the same to the last bit? On a GPU also asked of torch's deterministic kernels."""
    for deterministic in (False, True):
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        try:
            same = _resumes_exactly(tiny, device)
        finally:
            torch.use_deterministic_algorithms(False)
        what = f"resumed bit for bit, {'deterministic' if deterministic else 'usual'} kernels"
        if deterministic or device.type == "cpu":
            report.require(SECTION, what, str(same), holds=same)
        else:
            report.line(SECTION, what, str(same))


def _resumes_exactly(tiny: Scale, device: torch.device) -> bool:
    config = tiny.config(dropout=0.1)
    episodes = list(draw_episodes(config).values())[:STEPS]

    def learner() -> Any:
        return learner_of(tiny, config, random_t5(tiny.shape, config.backbone, device))

    whole, first, second = learner(), learner(), learner()
    for batch in episodes:
        whole.step(batch)
    for batch in episodes[: STEPS // 2]:
        first.step(batch)
    second.load_state_dict(first.state_dict())
    for batch in episodes[STEPS // 2 :]:
        second.step(batch)
    states = whole.state_dict(), second.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])
