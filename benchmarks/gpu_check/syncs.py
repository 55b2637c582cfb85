"""Do the passes of a meta-step, or a step of few-shot tuning, wait for the device? For both kinds of backbones.

On a GPU torch raises an error where they do; elsewhere tensors without values do, of which no number can be read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from gpu_check.material import Scale, draw_episodes, random_causal, random_t5, scale_of
from gpu_check.report import Report
from supmer.config import Config
from supmer.fewshot.descent import Descent
from supmer.fewshot.methods.supmer import regularized
from supmer.fewshot.tuning import Context, prompt_gradient, step_prompt
from supmer.meta.objective import meta_gradients
from supmer.meta.passes import PassPlan
from supmer.model.prompted import PromptedModel, initial_prompt
from supmer.model.regularizer import GradientRegularizer
from supmer.tasks.episode import Episode

SECTION = "synchronizations"
TUNING_STEPS = 2
"""The first makes the optimizer's state."""


def run(scale: Scale, report: Report) -> None:
    """Compute meta-gradients and tune where reading one number is an error."""
    device = scale.device if scale.is_real else torch.device("meta")
    tiny = scale_of(torch.device("cpu"))
    config = tiny.config()
    models = {"T5": random_t5(tiny.shape, config.backbone, device), "causal": random_causal(config.backbone, device)}
    for name, model in models.items():
        prompt = torch.zeros(config.prompt.length, model.width, device=device)
        if scale.is_real:
            prompt = initial_prompt(config.prompt, model, seed=0).to(device)
        psi = GradientRegularizer(model.width, config.regularizer).to(device)
        for kind, episodes in draw_episodes(config, causal=name == "causal").items():
            lam = torch.full((len(episodes),), 0.7)
            with _reading_is_an_error(device):
                meta_gradients(model, psi, prompt, episodes, lam, 0.1, PassPlan(scale.middle))
            report.line(SECTION, f"{name}, {kind}: support pass, regularizer, query pass, gradients of both", "none")
        what = _tune(config, model, psi, prompt, episodes[0])
        report.line(SECTION, f"{name}, few-shot tuning: {what}", "none")
    report.figures["synchronizations"] = 0


def _tune(config: Config, model: PromptedModel, psi: GradientRegularizer, prompt: Tensor, episode: Episode) -> str:
    """Tune on the support rows, and return what of a step was done."""
    context, batch, weights = Context(config, model), episode.support, [1.0] * len(episode.support)
    prompt = prompt.clone().requires_grad_()
    if prompt.device.type == "meta":  # there the optimizer has no kernel that skips a step by itself
        regularized(psi, prompt_gradient(context, prompt, batch, weights))
        return "passes and regularizer"
    descent = Descent([([prompt], 0.1)], config.fewshot)
    with _reading_is_an_error(prompt.device):
        for _ in range(TUNING_STEPS):
            step_prompt(context, descent, prompt, batch, weights, lambda raw: regularized(psi, raw))
    return f"{TUNING_STEPS} steps of passes, regularizer and optimizer"


@contextmanager
def _reading_is_an_error(device: torch.device) -> Iterator[None]:
    """Let torch raise where the processor would wait for a GPU; of tensors on `meta` nothing can be read anyway."""
    if device.type == "meta":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
