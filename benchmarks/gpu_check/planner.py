"""What the planner predicts of one meta-step at the longest rows, and what it takes."""

from __future__ import annotations

import gc

import torch

from gpu_check.material import Scale, learner_of
from gpu_check.report import Report, free
from gpu_check.speed import matmul_rate
from supmer.meta.group import LocalGroup
from supmer.planning.estimate import Planner, setting_of
from supmer.planning.hardware import Hardware
from supmer.planning.measuring import measure

SECTION = "planner"


def run(scale: Scale, report: Report) -> None:
    """Compare peak memory and seconds of five configurations; the rate of large matrix products stands for the card's."""
    rate = matmul_rate(scale)
    small, middle, large = scale.budgets
    cases = [(small, False, 0.0), (middle, False, 0.0), (large, True, 0.0), (small, True, 0.0), (small, False, 0.1)]
    errors: list[float] = []
    for budget, checkpointing, dropout in cases:
        config = scale.config(budget, gradient_checkpointing=checkpointing, dropout=dropout)
        hardware = Hardware(2**40, 0, rate, 1e12, 1e11, 1, 0.0)
        planned = Planner(config, scale.shape, hardware).estimate(setting_of(config, 1, hardware))
        what = f"{budget} tokens{', checkpointing' * checkpointing}{', dropout' * bool(dropout)}"
        try:
            measured = measure(config, scale.device, LocalGroup(), lambda config=config: learner_of(scale, config))
        except torch.OutOfMemoryError:
            report.line(SECTION, what, f"out of memory, planned {planned.peak / 2**30:.1f} GiB")
            continue
        finally:
            gc.collect()
            free(scale.device)
        found = []
        if scale.is_real:  # of a CPU's memory, `benchmarks/plan.py` measures each configuration in a process of its own
            errors.append(planned.peak / measured.peak - 1)
            found.append(
                f"peak {measured.peak / 2**30:.3g} GiB measured, {planned.peak / 2**30:.3g} planned ({errors[-1]:+.0%})"
            )
            report.figures["planner_memory_error"] = round(max(map(abs, errors)), 4)
        share = planned.seconds / measured.seconds
        found.append(f"{measured.seconds:.3g} s, at least {planned.seconds:.3g} planned ({share:.0%})")
        report.line(SECTION, what, "; ".join(found))
