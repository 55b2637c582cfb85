"""The fastest settings that fit given GPUs, and what to change where settings do not fit."""

from __future__ import annotations

from dataclasses import replace

from supmer.planning.estimate import SHARDINGS, Estimate, Planner, setting_of

MARGIN = 0.05
"""Part of the usable memory that recommended settings leave free, since predictions err (see `benchmarks/plan.py`)."""
NEARLY = 1.01
"""Settings that are slower by less than this factor count as equally fast; the simpler one is recommended."""


def recommend(planner: Planner, gpus: int) -> Estimate | None:
    """Return the estimate of the fastest settings that fit, the simplest of the equally fast; None if none fit.

    Each has the largest token budget that is of use.
    """
    hardware = planner.hardware
    cautious = replace(hardware, reserve=int(hardware.reserve + MARGIN * hardware.usable))
    limited = Planner(planner.config, planner.shape, cautious, planner.row_length)
    found = []  # the simplest first
    for sharding in SHARDINGS[:1] if gpus == 1 else SHARDINGS:
        for checkpointing in (False, True):
            setting = replace(setting_of(planner.config, gpus, hardware, sharding), checkpointing=checkpointing)
            if sharding == "hybrid" and setting.shard_size in (1, gpus):
                continue
            if budget := limited.estimate(setting).largest_budget:
                found.append(planner.estimate(replace(setting, max_tokens=budget)))
    best = min((one.seconds for one in found), default=0.0)
    return next((one for one in found if one.seconds <= best * NEARLY), None)


def warnings_for(planner: Planner, found: Estimate) -> list[str]:
    """Return what the user should know of these settings, each with what to change."""
    setting, usable, notes = found.setting, planner.hardware.usable, []
    if not planner.fits(found):
        need = f"{found.peak / 2**30:.1f} GiB are needed, {usable / 2**30:.1f} GiB are there"
        changes = {
            "backbone.gradient_checkpointing=true": not setting.checkpointing,
            "train.sharding=full": setting.shard_size < setting.gpus,
            "backbone.dtype=bfloat16": planner.element == 4,
        }
        of_use = [change for change, is_of_use in changes.items() if is_of_use] or ["more GPUs, or GPUs with more memory"]
        change = f"set {' or '.join(of_use)}"
        if found.largest_budget:
            change = f"lower train.max_tokens_per_microbatch from {setting.max_tokens} to {found.largest_budget}"
        notes.append(f"{need}: {change}")
    most_rows = setting.tasks * min(load.rows for load in planner.loads)
    if setting.gpus > most_rows:
        notes.append(f"train.workers={setting.gpus}: a pass has {most_rows} rows, so that the other workers have none")
    if setting.max_tokens > found.useful_budget:
        notes.append(
            f"train.max_tokens_per_microbatch={setting.max_tokens}: no pass of a worker has more than {found.useful_budget}"
        )
    if planner.config.backbone.dtype == "float32":
        notes.append("backbone.dtype=float32: bfloat16 halves weights, activations and traffic on GPUs that know it")
    if setting.shard_size > 1 and found.gather_seconds > found.compute_seconds:
        for sharding in SHARDINGS[: SHARDINGS.index(setting.sharding)]:
            size = setting_of(planner.config, setting.gpus, planner.hardware, sharding).shard_size
            other = planner.estimate(replace(setting, sharding=sharding, shard_size=size))
            if planner.fits(other) and other.seconds < found.seconds:
                change = f"train.sharding={sharding} fits and has at least {other.seconds:.2f} s a step"
                break
        else:
            change = "a larger train.max_tokens_per_microbatch gathers less often"
        notes.append(
            f"train.sharding={setting.sharding}: gathering weights takes {found.gather_seconds:.2f} s a step, computing "
            f"{found.compute_seconds:.2f} s; {change}"
        )
    return notes


def settings_text(found: Estimate | None) -> str:
    """Return settings as arguments of the command line."""
    if found is None:
        return "none: no settings fit this memory"
    setting = found.setting
    shard_size = f"train.shard_size={setting.shard_size} " if setting.sharding == "hybrid" else ""
    return (
        f"train.workers={setting.gpus} train.sharding={setting.sharding} {shard_size}"
        f"backbone.gradient_checkpointing={str(setting.checkpointing).lower()} "
        f"train.max_tokens_per_microbatch={setting.max_tokens}"
    )
