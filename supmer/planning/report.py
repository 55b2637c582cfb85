"""A plan: this configuration on the asked number of GPUs, on other numbers, and the fastest settings for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from supmer.config import Config
from supmer.errors import UserError
from supmer.planning.costs import Costs
from supmer.planning.estimate import SHARDINGS, Estimate, estimate, setting_of
from supmer.planning.hardware import Hardware
from supmer.planning.plot import draw
from supmer.planning.search import recommend, warnings_for
from supmer.planning.shapes import Shape, resolve_shape
from supmer.planning.tables import Figures, markdown_table, settings_table, sharding_table, sweep_table, terminal_table


@dataclass(frozen=True)
class Report:
    """A plan, worked out.

    Attributes:
        shape, hardware, row_length: what it is for.
        tasks: `meta.tasks_per_step`.
        asked: the configuration on the asked number of GPUs, and `warnings` about it.
        sweep: the configuration on 1, 2, 4, ... GPUs, sharded in each way.
        recommended: the fastest settings that fit, for each number of GPUs where some do.
        best: those for the asked number.
    """

    shape: Shape
    hardware: Hardware
    row_length: int
    tasks: int
    asked: Estimate
    warnings: list[str]
    sweep: dict[str, list[Estimate]]
    recommended: list[Estimate]
    best: Estimate | None

    def print(self, console: Console) -> None:
        """Print tables, warnings and recommended settings."""
        console.print(self._premises(), highlight=False)
        for table in self._tables():
            console.print(terminal_table(table))
        for text in self.warnings:
            console.print(f"warning: {text}", style="yellow", highlight=False)
        console.print(f"recommended for {self.asked.setting.gpus} GPUs: {settings_text(self.best)}", highlight=False)

    def markdown(self, command: str) -> str:
        """Return the same as a Markdown page that names the command it was made by."""
        heading = f"# {self.shape.name} on {self.asked.setting.gpus} GPUs and on other numbers of them"
        parts = [heading, f"Written by `{command}`.", self._premises()]
        for table in self._tables():
            parts += [f"## {table.title}", markdown_table(table)]
        if self.warnings:
            parts.append("\n".join(f"- Warning: {text}" for text in self.warnings))
        parts.append(f"Recommended for {self.asked.setting.gpus} GPUs: `{settings_text(self.best)}`")
        return "\n\n".join(parts) + "\n"

    def draw(self, path: Path) -> None:
        """Draw the sweep."""
        draw(path, self.sweep, self.hardware)

    def _tables(self) -> list[Figures]:
        own = self.asked.setting.sharding if self.asked.setting.gpus > 1 else "none"
        return [
            sweep_table(f"This configuration, train.sharding={own}", self.sweep[own], self.hardware),
            sharding_table("This configuration under each train.sharding", self.sweep, self.hardware),
            settings_table("The fastest settings that fit", self.recommended),
        ]

    def _premises(self) -> str:
        hardware = self.hardware
        return (
            f"{self.shape.name} (shape from {self.shape.source}), rows of {self.row_length} encoder positions; per GPU "
            f"{hardware.usable / 2**30:.1f} of {hardware.memory / 2**30:.1f} GiB, {hardware.flops / 1e12:g} TFLOP/s, "
            f"{hardware.bandwidth / 1e9:g} GB/s within a node of {hardware.gpus_per_node}, {hardware.network / 1e9:g} GB/s "
            f"between nodes; {self.tasks} episodes a step, or one for each GPU where there are more.\n"
            "Figures are one rank's, for one meta-step: memory in GiB (`!`: more than fits), GB gathered from other ranks, "
            "time in seconds; `max tokens`: the largest train.max_tokens_per_microbatch that fits; `ckpt`: checkpointing. "
            "Times are lower bounds: FLOPs and bytes over their peak rates."
        )


def make_report(
    config: Config, hardware: Hardware, gpus: int, max_gpus: int, *, shape: str | None = None, row_length: int | None = None
) -> Report:
    """Work out a plan.

    Args:
        config: the configuration.
        hardware: the GPUs.
        gpus: how many the plan is for.
        max_gpus: where the sweep ends.
        shape: see `resolve_shape`.
        row_length: mean encoder positions of a row with the prompt (default: the greatest).

    Raises:
        UserError: the backbone's shape is not known, or a row cannot have this length.
    """
    length = row_length or config.tasks.max_length
    if not config.prompt.length < length <= config.tasks.max_length:
        raise UserError(
            f"--row-length {length}: must be more than prompt.length={config.prompt.length} and at most "
            f"tasks.max_length={config.tasks.max_length}"
        )
    costs = Costs(config, resolve_shape(config.backbone, shape))
    counts = sorted({gpus, *(2**power for power in range(max_gpus.bit_length()))})
    asked = estimate(costs, setting_of(config, gpus, hardware), hardware, length)
    recommended = {count: recommend(costs, config, count, hardware, length) for count in counts}
    return Report(
        shape=costs.shape,
        hardware=hardware,
        row_length=length,
        tasks=config.meta.tasks_per_step,
        asked=asked,
        warnings=warnings_for(costs, config, asked, hardware),
        sweep=_sweep(costs, config, counts, hardware, length),
        recommended=[found for found in recommended.values() if found is not None],
        best=recommended[gpus],
    )


def settings_text(found: Estimate | None) -> str:
    """Return settings as arguments of the command line."""
    if found is None:
        return "none: no settings fit this memory"
    setting = found.setting
    words = [
        f"train.workers={setting.gpus}",
        f"meta.tasks_per_step={setting.tasks}",
        f"train.sharding={setting.sharding}",
        f"backbone.gradient_checkpointing={str(setting.checkpointing).lower()}",
        f"train.max_tokens_per_microbatch={setting.max_tokens}",
    ]
    if setting.sharding == "hybrid":
        words.insert(3, f"train.shard_size={setting.shard_size}")
    return " ".join(words)


def _sweep(
    costs: Costs, config: Config, counts: Sequence[int], hardware: Hardware, length: int
) -> dict[str, list[Estimate]]:
    return {
        sharding: [estimate(costs, setting_of(config, count, hardware, sharding), hardware, length) for count in counts]
        for sharding in SHARDINGS
    }
