"""Do the passes of a meta-step wait for the device?

On a GPU torch raises an error where they do; elsewhere tensors without values do, of which no number can be read.
"""

from __future__ import annotations

import torch

from gpu_check.material import Scale, draw_episodes, random_t5, scale_of
from gpu_check.report import Report
from supmer.meta.objective import meta_gradients
from supmer.meta.passes import PassPlan
from supmer.model.prompted import initial_prompt
from supmer.model.regularizer import GradientRegularizer

SECTION = "synchronizations"


def run(scale: Scale, report: Report) -> None:
    """Compute meta-gradients where reading one number is an error."""
    device = scale.device if scale.is_real else torch.device("meta")
    tiny = scale_of(torch.device("cpu"))
    config = tiny.config()
    model = random_t5(tiny.shape, config.backbone, device)
    prompt = torch.zeros(config.prompt.length, model.width, device=device)
    if scale.is_real:
        prompt = initial_prompt(config.prompt, model, seed=0).to(device)
    psi = GradientRegularizer(model.width, config.regularizer).to(device)
    for kind, episodes in draw_episodes(config).items():
        lam = torch.full((len(episodes),), 0.7)
        if scale.is_real:
            torch.cuda.set_sync_debug_mode("error")
        try:
            meta_gradients(model, psi, prompt, episodes, lam, 0.1, PassPlan(scale.middle))
        finally:
            if scale.is_real:
                torch.cuda.set_sync_debug_mode("default")
        report.line(SECTION, f"{kind}: support pass, regularizer, query pass, gradients of both", "none")
    report.figures["synchronizations"] = 0
