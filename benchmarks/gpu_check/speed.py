"""How long a meta-step of each kind takes, what share of the device's peak that is, and what the slowest is made of.

MFU is the FLOPs that the method needs on real tokens, over seconds, over the peak rate of the card's bf16 matrix units. The
FLOPs are those of `supmer/planning/t5.py` for each row at its own length with its prompt (a mixed pair is as long as its
longer row), forward and backward with respect to the inputs. Padding, checkpointing's second forward and the regularizer do
not count.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from gpu_check.equality import can_compile
from gpu_check.material import Scale, draw_episodes, learner_of
from gpu_check.report import Report, device_name, finish, free, seconds_of
from supmer.config import Config
from supmer.memory import peak_memory, reset_peak_memory
from supmer.meta.learner import Learner
from supmer.planning import t5
from supmer.tasks.episode import Episode

SECTION = "speed"
PEAKS = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "GH200": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
"""Dense bf16 FLOP/s by a part of the card's name, of NVIDIA's data sheets; the first that fits counts."""
TOP_KERNELS = 10


class Setting(NamedTuple):
    """A way to run the meta-step."""

    name: str
    budget: int
    backbone: dict[str, Any]


def run(scale: Scale, report: Report) -> None:
    """Measure the settings, each alone, and profile the slowest."""
    rate = matmul_rate(scale)
    peak = next((value for part, value in PEAKS.items() if part in device_name(scale.device)), rate)
    report.line(SECTION, f"matrix products, {scale.dtype}", f"{rate / 1e12:.3g} TFLOP/s of {peak / 1e12:.3g}")
    settings = [Setting(f"sdpa, micro-batches of {budget}", budget, {}) for budget in scale.budgets]
    settings.append(Setting(f"checkpointed, {scale.middle}", scale.middle, {"gradient_checkpointing": True}))
    if can_compile(scale.device):
        settings.append(Setting(f"compiled, {scale.middle}", scale.middle, {"compile": True}))
    found: dict[str, float] = {}
    seconds: dict[tuple[str, str], float] = {}
    for setting in settings:
        try:
            mfu = _measure(scale, setting, peak, report, seconds)
        except torch.OutOfMemoryError:
            report.line(SECTION, setting.name, "out of memory")
            continue
        finally:
            free(scale.device)
        found[setting.name] = mfu
        report.figures["mfu"] = round(max(found.values()), 4)  # at once: the section may run out of time
    slowest = max(seconds, key=lambda key: seconds[key])
    _profile(scale, next(setting for setting in settings if setting.name == slowest[0]), slowest[1], report)


def matmul_rate(scale: Scale) -> float:
    """Return the FLOP/s of large matrix products."""
    size, repeats = (8192, 10) if scale.is_real else (512, 4)
    left, right = (torch.randn(size, size, device=scale.device, dtype=getattr(torch, scale.dtype)) for _ in range(2))
    for _ in range(3):
        left @ right
    finish(scale.device)
    started = time.perf_counter()
    for _ in range(repeats):
        left @ right
    return 2.0 * size**3 * repeats / seconds_of(scale.device, started)


def needed_flops(scale: Scale, config: Config, episodes: Sequence[Episode]) -> float:
    """Return the FLOPs of a meta-step on rows of their own lengths."""
    prompt, total = config.prompt.length, 0.0
    plain, mixed = (t5.Pass(mixed=mixed, checkpointing=False, element=2) for mixed in (False, True))
    for episode in episodes:
        lengths = [prompt + len(row.input_ids) for row in episode.support]
        pairs = [
            prompt + max(len(query.input_ids), len(partner.input_ids))
            for query, partner in zip(episode.query, episode.augmentation, strict=True)
        ]
        total += sum(t5.row_flops(scale.shape, length, plain) for length in lengths)
        total += sum(t5.row_flops(scale.shape, length, mixed) for length in pairs)
    return total


def _learner(scale: Scale, setting: Setting) -> Learner:
    return learner_of(scale, scale.config(setting.budget, **setting.backbone))


def _measure(scale: Scale, setting: Setting, peak: float, report: Report, seconds: dict[tuple[str, str], float]) -> float:
    """Measure all kinds, report each, and return the MFU over all of them."""
    learner = _learner(scale, setting)
    batches = draw_episodes(learner.config)
    for episodes in batches.values():  # also compiles
        learner.step(episodes)
    reset_peak_memory(scale.device)
    flops = spent = tokens = 0.0
    parts = []
    for kind, episodes in batches.items():
        started = time.perf_counter()
        for _ in range(scale.repeats):
            record = learner.step(episodes)
        taken = seconds_of(scale.device, started) / scale.repeats
        needed = needed_flops(scale, learner.config, episodes)
        seconds[setting.name, kind] = taken
        parts.append(f"{kind} {taken:.3g} s, {record.tokens / taken:,.0f} tokens/s, MFU {needed / taken / peak:.1%}")
        flops, spent, tokens = flops + needed, spent + taken, tokens + record.tokens
    memory = f"peak {peak_memory(scale.device) / 2**30:.1f} GiB"
    report.line(SECTION, setting.name, "; ".join([*parts, memory]))
    report.line(SECTION, f"{setting.name}, all kinds", f"{tokens / spent:,.0f} tokens/s, MFU {flops / spent / peak:.1%}")
    return flops / spent / peak


def _profile(scale: Scale, setting: Setting, kind: str, report: Report) -> None:
    """Report the kernels (on a CPU: operators) that take most time of one meta-step, and how long the device was idle."""
    learner = _learner(scale, setting)
    episodes = draw_episodes(learner.config)[kind]  # type: ignore[index]
    learner.step(episodes)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if scale.is_real else [])]
    finish(scale.device)
    with profile(activities=activities) as found:
        started = time.perf_counter()
        learner.step(episodes)
        wall = seconds_of(scale.device, started)
    events = [event for event in found.key_averages() if _own_time(event, scale) > 0]
    busy = sum(_own_time(event, scale) for event in events) / 1e6
    what = f"profile of {kind}, {setting.name}"
    report.line(SECTION, what, f"{wall:.3g} s, idle {max(0.0, 1 - busy / wall):.0%}, kernels of {len(events)} kinds")
    for event in sorted(events, key=lambda event: -_own_time(event, scale))[:TOP_KERNELS]:
        share, name = _own_time(event, scale) / 1e6 / busy, event.key[:70].replace("|", "/")
        report.line(SECTION, f"`{name}`", f"{share:.1%}, {event.count} times")


def _own_time(event: Any, scale: Scale) -> float:
    """Return microseconds of a kernel on the GPU, or of an operator on the CPU without those that it calls."""
    if not scale.is_real:
        return float(event.self_cpu_time_total)
    # An operator's own device time is that of its kernels, which are there by themselves; a label's is that of others.
    is_kernel = event.device_type.name == "CUDA" and not getattr(event, "is_user_annotation", False)
    return float(event.self_device_time_total) if is_kernel else 0.0
