"""What one meta-step needs on given GPUs under given settings: memory, traffic and the least time."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

from supmer.config import Config
from supmer.planning import causal, t5
from supmer.planning.hardware import Hardware
from supmer.planning.shapes import Pass, Shape, Weights

Sharding = Literal["none", "hybrid", "full"]
SHARDINGS: tuple[Sharding, ...] = get_args(Sharding)
"""From the least to the most that is gathered over a network."""

TASK_TENSORS = 12
"""Tensors of a prompt's size that a task keeps in the query pass: gradients, adapted prompt, graph of the regularizer."""
COPIES, COPIES_AT_END = 4, 5
"""Copies of P and phi: weights, two of Adam, gradients; at a step's end also the new gradients."""
GATHERED_BLOCKS = 3
"""Whole blocks that a sharded pass holds: the one at work, and the next one as received and as copied into place."""
SHORTEST_TEXT = 8
"""Tokens of the shortest text that memory is planned for."""


@dataclass(frozen=True)
class Setting:
    """The settings that a plan may vary: `gpus` workers, `tasks` a meta-step, `shard_size` ranks to a copy of weights."""

    gpus: int
    tasks: int
    sharding: Sharding
    shard_size: int
    checkpointing: bool
    max_tokens: int


@dataclass(frozen=True)
class Estimate:
    """What one rank needs (the one with most rows). Bytes, FLOPs and seconds of one meta-step.

    `largest_budget` is the largest `train.max_tokens_per_microbatch` that fits (0: none), `useful_budget` the one beyond
    which every pass is one micro-batch.
    """

    setting: Setting
    parameters: float
    activations: float
    peak: float
    largest_budget: int
    useful_budget: int
    gathers: int
    gathered: float
    flops: float
    compute_seconds: float
    gather_seconds: float
    all_reduce_seconds: float

    @property
    def seconds(self) -> float:
        """Least time of a meta-step: gathering may hide behind computing, the all-reduce at the end of a pass may not."""
        return max(self.compute_seconds, self.gather_seconds) + self.all_reduce_seconds


def setting_of(config: Config, gpus: int, hardware: Hardware, sharding: Sharding | None = None) -> Setting:
    """Return the configuration's settings on `gpus` GPUs."""
    sharding = "none" if gpus == 1 else sharding or config.train.sharding
    own_size = config.train.shard_size
    hybrid = own_size if 1 < own_size < gpus and gpus % own_size == 0 else math.gcd(gpus, hardware.gpus_per_node)
    size = {"none": 1, "hybrid": hybrid, "full": gpus}[sharding]
    tasks, checkpointing = config.meta.tasks_per_step, config.backbone.gradient_checkpointing
    return Setting(gpus, tasks, sharding, size, checkpointing, config.train.max_tokens_per_microbatch)


class Load(NamedTuple):
    """A pass of the meta-step: rows of one task, whether they are mixed, and how often the pass runs."""

    rows: int
    mixed: bool
    repeats: int


def loads_of(config: Config) -> list[Load]:
    """Return the passes of a meta-step; second order by central differences repeats the support pass twice a step."""
    tasks, meta = config.tasks, config.meta
    if meta.algorithm == "multitask":
        return [Load(tasks.num_support + tasks.num_query, mixed=False, repeats=1)]
    repeats = meta.inner_steps * (3 if meta.order == "second" else 1)
    query = Load(tasks.num_query, mixed=config.curriculum.mode != "none", repeats=1)
    return [Load(tasks.num_support, mixed=False, repeats=repeats), query]


def rows_per_rank(setting: Setting, load: Load) -> int:
    """Return the rows of the rank that has most: ranks share the rows of all tasks."""
    return math.ceil(load.rows * setting.tasks / setting.gpus)


class Planner:
    """Works out meta-steps of one backbone under one configuration.

    Args:
        config: the whole configuration.
        shape: the backbone.
        hardware: the GPUs.
        row_length: mean encoder positions of a row with the prompt, for FLOPs and traffic (default: the greatest). Memory is
            that of the lengths that need most.
    """

    def __init__(self, config: Config, shape: Shape, hardware: Hardware, row_length: int | None = None) -> None:
        self.config, self.shape, self.hardware = config, shape, hardware
        self.row_length = row_length or config.tasks.max_length
        self.element = 2 if config.backbone.dtype == "bfloat16" else 4
        self.costs = t5 if shape.config.is_encoder_decoder else causal
        self.weights: Weights = self.costs.count_weights(shape)
        self.loads = loads_of(config)
        greatest = config.tasks.max_length
        # Under one token budget a pass needs `rows * (a * width + b * width**2 + c)` bytes, `rows = budget / width`: most at
        # one end or the other.
        self._widths = (min(config.prompt.length + SHORTEST_TEXT, greatest), greatest)

    def estimate(self, setting: Setting) -> Estimate:
        """Work out one meta-step under these settings."""
        size, shape, hardware = setting.shard_size, self.shape, self.hardware
        parameters = self.weights.total * self.element / size
        prompt = 4 * self.config.prompt.length * shape.config.hidden_size
        trained, d, phi = prompt, shape.config.hidden_size, self.config.regularizer
        if phi.enabled and self.config.meta.algorithm != "multitask":
            # Low-rank layers of 2dr + d, and the gate's m(d + 2) + 1, in float32 (METHOD section 4).
            layers = (phi.hidden_layers + 1) * (2 * d * min(phi.rank, d) + d)
            trained += 4 * (layers + phi.gate_hidden * (d + 2) + 1)
        state = COPIES * trained + TASK_TENSORS * setting.tasks * prompt
        at_end = state + (COPIES_AT_END - COPIES) * trained
        activations = max(self._pass_bytes(setting, load) for load in self.loads)
        microbatches = sum(
            load.repeats * math.ceil(rows_per_rank(setting, load) / self._rows(setting, load, self.row_length))
            for load in self.loads
        )
        # A micro-batch gathers each block in the forward and again in the backward pass, and embeddings and head once.
        gathers = microbatches * (2 * len(self.weights.blocks) + 1) * (size > 1)
        weights = 2 * self.weights.total - self.weights.root
        gathered = microbatches * weights * self.element * (size - 1) / size
        flops = 0.0
        for load in self.loads:
            of_row = self.costs.row_flops(shape, self.row_length, self._pass(setting, load))
            flops += load.repeats * rows_per_rank(setting, load) * of_row
        # The largest token budget, in rows of the greatest length, whose passes fit into what is left; 0 if none.
        longest, left = self.config.tasks.max_length, hardware.usable - parameters - state
        useful_budget = max(rows_per_rank(setting, load) * longest * (1 + load.mixed) for load in self.loads)

        def need(budget: int) -> int:
            return max(self._pass_bytes(replace(setting, max_tokens=budget), load) for load in self.loads)

        largest_budget = longest * bisect_right(range(longest, useful_budget + 1, longest), left, key=need)
        # A pass ends with one all-reduce of each task's gradient, pooled state, and a few numbers.
        num_passes = sum(load.repeats for load in self.loads)
        reduced = setting.tasks * (prompt + 4 * shape.config.hidden_size)
        return Estimate(
            setting=setting,
            parameters=parameters,
            activations=activations,
            peak=parameters + max(state + activations, at_end),
            largest_budget=largest_budget,
            useful_budget=useful_budget,
            gathers=gathers,
            gathered=gathered,
            flops=flops,
            compute_seconds=flops / hardware.flops,
            gather_seconds=hardware.gather_seconds(gathered, gathers, size),
            all_reduce_seconds=num_passes * hardware.all_reduce_seconds(reduced, setting.gpus),
        )

    def fits(self, found: Estimate) -> bool:
        """Return whether a rank's peak leaves the reserve free."""
        return found.peak <= self.hardware.usable

    def _pass(self, setting: Setting, load: Load) -> Pass:
        return Pass(load.mixed, setting.checkpointing, self.element, self.config.backbone.dropout > 0)

    def _rows(self, setting: Setting, load: Load, width: int) -> int:
        """Return the rows of the largest micro-batch."""
        return min(rows_per_rank(setting, load), max(1, setting.max_tokens // (width * (1 + load.mixed))))

    def _pass_bytes(self, setting: Setting, load: Load) -> int:
        """Return what a pass holds at its peak, whatever the lengths of its rows; gathered weights are part of it."""
        gathered = (self.weights.root + GATHERED_BLOCKS * max(self.weights.blocks)) * self.element
        one, shape = self._pass(setting, load), self.shape
        rows: int = max(
            self._rows(setting, load, width) * self.costs.peak_bytes(shape, width, one) for width in self._widths
        )
        return rows + (gathered if setting.shard_size > 1 else 0)
