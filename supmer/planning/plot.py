"""The sweep over GPU counts as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from supmer.errors import UserError
from supmer.planning.estimate import Estimate
from supmer.planning.hardware import Hardware

FORMATS = (".png", ".svg", ".pdf")


def check_format(path: Path) -> None:
    """Raise UserError if the file's ending names no format."""
    if path.suffix not in FORMATS:
        raise UserError(f"--plot {path}: must end in {', '.join(FORMATS)}")


def draw(path: Path, found: Mapping[str, Sequence[Estimate]], hardware: Hardware) -> None:
    """Draw memory and least step time against the number of GPUs, one line for each way of sharding."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    memory, seconds = figure.subplots(1, 2)
    for name, estimates in found.items():
        gpus = [estimate.setting.gpus for estimate in estimates]
        memory.plot(gpus, [estimate.peak / 2**30 for estimate in estimates], marker="o", label=name)
        seconds.plot(gpus, [estimate.seconds for estimate in estimates], marker="o", label=name)
    memory.axhline(hardware.usable / 2**30, color="grey", linestyle="--", label="usable")
    memory.set(ylabel="peak memory of a GPU (GiB)", ylim=(0, None))
    seconds.set(ylabel="least time of a meta-step (s)", ylim=(0, None))
    for axes in (memory, seconds):
        axes.set_xscale("log", base=2)
        axes.set(xlabel="GPUs")
        axes.set_xticks(gpus, [str(count) for count in gpus])
        axes.grid(alpha=0.3)
        axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
