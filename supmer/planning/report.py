"""A plan as tables and a picture: a configuration on several numbers of GPUs, and the fastest settings for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from supmer.config import Config
from supmer.errors import setting_error
from supmer.planning.estimate import SHARDINGS, Estimate, Planner, setting_of
from supmer.planning.hardware import Hardware
from supmer.planning.recommend import recommend, settings_text, warnings_for
from supmer.planning.shapes import resolve_shape
from supmer.reports import drawing
from supmer.reports.tables import Table

FORMATS = (".png", ".svg", ".pdf")
CELLS: dict[str, Callable[[Estimate], str]] = {
    "GPUs": lambda one: str(one.setting.gpus),
    "sharding": lambda one: one.setting.sharding,
    "ckpt": lambda one: "yes" if one.setting.checkpointing else "no",
    "tokens": lambda one: str(one.setting.max_tokens),
    "weights": lambda one: f"{one.parameters / 2**30:.2f}",
    "activ.": lambda one: f"{one.activations / 2**30:.2f}",
    "peak": lambda one: f"{one.peak / 2**30:.2f}",
    "max tokens": lambda one: str(one.largest_budget or "none"),
    "GB": lambda one: f"{one.gathered / 1e9:.1f}",
    "TFLOP": lambda one: f"{one.flops / 1e12:,.0f}" if one.flops >= 1e14 else f"{one.flops / 1e12:.3g}",
    "compute": lambda one: f"{one.compute_seconds:.2f}",
    "gather": lambda one: f"{one.gather_seconds:.2f}",
    "step": lambda one: f"{one.seconds:.2f}",
    "ep/s": lambda one: f"{one.setting.tasks / one.seconds:.3g}",
}
"""What a column shows of an estimate."""
SWEEP = ("GPUs", "weights", "activ.", "peak", "max tokens", "GB", "TFLOP", "compute", "step", "ep/s")
RECOMMENDED = ("GPUs", "sharding", "ckpt", "tokens", "weights", "peak", "TFLOP", "compute", "step", "ep/s")


class Report:
    """A plan, worked out.

    Args:
        config: the configuration.
        hardware: the GPUs.
        gpus: how many the plan is for.
        max_gpus: where the sweep over 1, 2, 4, ... GPUs ends.
        shape: see `resolve_shape`.
        row_length: mean encoder positions of a row with the prompt (default: the greatest).

    Raises:
        UserError: the backbone's shape is not known, or a row cannot have this length.
    """

    def __init__(
        self,
        config: Config,
        hardware: Hardware,
        gpus: int,
        max_gpus: int,
        *,
        shape: str | None = None,
        row_length: int | None = None,
    ) -> None:
        longest = config.tasks.max_length
        if row_length is not None and not config.prompt.length < row_length <= longest:
            allowed = f"must be more than prompt.length={config.prompt.length} and at most tasks.max_length={longest}"
            raise setting_error("--row-length", row_length, allowed)
        self.gpus = gpus
        self.planner = planner = Planner(config, resolve_shape(config.backbone, shape), hardware, row_length)
        counts = sorted({gpus, *(2**power for power in range(max_gpus.bit_length()))})
        self.asked = planner.estimate(setting_of(config, gpus, hardware))
        self.warnings = warnings_for(planner, self.asked)
        self.sweep = {
            sharding: [planner.estimate(setting_of(config, count, hardware, sharding)) for count in counts]
            for sharding in SHARDINGS
        }
        self.recommended = {count: found for count in counts if (found := recommend(planner, count))}
        self.best = settings_text(self.recommended.get(gpus))

    def print(self, console: Console) -> None:
        """Print tables, warnings and recommended settings."""
        console.print(self._premises(), highlight=False)
        for table in self._tables():
            console.print(table.terminal())
        for text in self.warnings:
            console.print(f"warning: {text}", style="yellow", highlight=False)
        console.print(f"recommended for {self.gpus} GPUs: {self.best}", highlight=False)

    def markdown(self, command: str) -> str:
        """Return the same as a Markdown page that names the command it was made by."""
        heading = f"# {self.planner.shape.name} on {self.gpus} GPUs and on other numbers of them"
        parts = [heading, f"Written by `{command}`.", self._premises()]
        for table in self._tables():
            parts += [f"## {table.title}", table.markdown()]
        if self.warnings:
            parts.append("\n".join(f"- Warning: {text}" for text in self.warnings))
        return "\n\n".join([*parts, f"Recommended for {self.gpus} GPUs: `{self.best}`"]) + "\n"

    def draw(self, path: Path) -> None:
        """Draw memory and least step time against the number of GPUs, one line for each way of sharding."""
        memory: dict[str, list[tuple[int, float, float]]] = {}
        seconds: dict[str, list[tuple[int, float, float]]] = {}
        for name, estimates in self.sweep.items():
            memory[name] = [(one.setting.gpus, one.peak / 2**30, 0.0) for one in estimates]
            seconds[name] = [(one.setting.gpus, one.seconds, 0.0) for one in estimates]
        peak = "peak memory of a GPU (GiB)"
        panels = {peak: memory, "least time of a meta-step (s)": seconds}
        figure = drawing.doubling_curves(panels, "GPUs", limits={peak: self.planner.hardware.usable / 2**30})
        path.parent.mkdir(parents=True, exist_ok=True)
        drawing.save(figure, path)

    def _tables(self) -> list[Table]:
        own = self.asked.setting.sharding
        compared = [("GPUs", own), *((name, sharding) for name in ("peak", "gather", "step") for sharding in SHARDINGS)]
        heads = ["GPUs", *(f"{sharding} {name}" for name, sharding in compared[1:])]
        rows = range(len(self.sweep[own]))
        return [
            self._table(f"This configuration, train.sharding={own}", SWEEP, self.sweep[own]),
            Table(
                heads,
                [[self._cell(name, self.sweep[sharding][row]) for name, sharding in compared] for row in rows],
                "This configuration under each train.sharding",
                num_labels=0,
            ),
            self._table("The fastest settings that fit", RECOMMENDED, list(self.recommended.values())),
        ]

    def _table(self, title: str, heads: Sequence[str], found: Sequence[Estimate]) -> Table:
        return Table(heads, [[self._cell(head, one) for head in heads] for one in found], title, num_labels=0)

    def _cell(self, head: str, one: Estimate) -> str:
        return CELLS[head](one) + ("!" if head == "peak" and not self.planner.fits(one) else "")

    def _premises(self) -> str:
        hardware, shape = self.planner.hardware, self.planner.shape
        return (
            f"{shape.name} (shape from {shape.source}), rows of {self.planner.row_length} encoder positions; per GPU "
            f"{hardware.usable / 2**30:.1f} of {hardware.memory / 2**30:.1f} GiB, {hardware.flops / 1e12:g} TFLOP/s, "
            f"{hardware.bandwidth / 1e9:g} GB/s within a node of {hardware.gpus_per_node}, {hardware.network / 1e9:g} GB/s "
            f"between nodes; {self.planner.config.meta.tasks_per_step} episodes a step, whose rows the GPUs "
            "share.\nFigures are one rank's, for one meta-step: memory in GiB (`!`: more than fits), GB gathered from other "
            "ranks, time in seconds; `max tokens`: the largest useful train.max_tokens_per_microbatch that fits; `ckpt`: "
            "gradient checkpointing. Times are lower bounds: FLOPs and bytes over their peak rates."
        )


def check_format(path: Path) -> None:
    """Raise UserError if the file's ending names no format of a picture."""
    if path.suffix not in FORMATS:
        raise setting_error("--plot", path, f"must end in {', '.join(FORMATS)}")
