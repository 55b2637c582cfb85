"""What one meta-step needs on given GPUs under given settings: memory, traffic and the least time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from supmer.config import Config
from supmer.planning.costs import Costs, MemoryLine
from supmer.planning.hardware import Hardware

Sharding = Literal["none", "hybrid", "full"]
SHARDINGS: tuple[Sharding, ...] = get_args(Sharding)
"""From the least to the most that is gathered over a network."""

TASK_TENSORS = 12
"""Tensors of a prompt's size that a task keeps through the query pass: gradients, adapted prompt, the graph of psi."""
SHORTEST_TEXT = 8
"""Tokens of the shortest text that memory is planned for."""
REGULARIZER_COPIES, PEAK_REGULARIZER_COPIES = 4, 6
"""Copies of phi: weights, two of Adam, gradients; at a step's end besides its share of the new gradients and their sum."""


@dataclass(frozen=True)
class Setting:
    """The settings that a plan may vary; the others are the configuration's.

    Attributes:
        gpus: GPUs, one worker each.
        tasks: `meta.tasks_per_step`, at least one a worker.
        sharding, shard_size: how the backbone is split; `shard_size` ranks share one copy.
        checkpointing: `backbone.gradient_checkpointing`.
        max_tokens: `train.max_tokens_per_microbatch`.
    """

    gpus: int
    tasks: int
    sharding: Sharding
    shard_size: int
    checkpointing: bool
    max_tokens: int

    @property
    def tasks_per_rank(self) -> int:
        """Episodes of the rank that has most."""
        return math.ceil(self.tasks / self.gpus)


class PassLoad(NamedTuple):
    """A pass of the meta-step: rows of one task, whether they are mixed, and how often it runs."""

    mixed: bool
    rows: int
    repeats: int


@dataclass(frozen=True)
class Estimate:
    """What one rank needs (the one with most episodes). Bytes, FLOPs and seconds of one meta-step."""

    setting: Setting
    parameters: int
    state: int
    activations: int
    peak: int
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
        """Least time of a meta-step: gathering may hide behind computing, the gradients' all-reduce may not."""
        return max(self.compute_seconds, self.gather_seconds) + self.all_reduce_seconds

    @property
    def episodes_per_second(self) -> float:
        """Episodes of all ranks together, at most."""
        return self.setting.tasks / self.seconds


def setting_of(config: Config, gpus: int, hardware: Hardware, sharding: Sharding | None = None) -> Setting:
    """Return the configuration's settings on `gpus` GPUs, with an episode for each at least."""
    sharding = "none" if gpus == 1 else sharding or config.train.sharding
    sizes = {"none": 1, "full": gpus, "hybrid": _hybrid_size(config, gpus, hardware)}
    return Setting(
        gpus=gpus,
        tasks=max(config.meta.tasks_per_step, gpus),
        sharding=sharding,
        shard_size=sizes[sharding],
        checkpointing=config.backbone.gradient_checkpointing,
        max_tokens=config.train.max_tokens_per_microbatch,
    )


def _hybrid_size(config: Config, gpus: int, hardware: Hardware) -> int:
    """Return `train.shard_size` where it is set and divides the GPUs, else the GPUs of a node."""
    size = config.train.shard_size
    return size if 1 < size < gpus and gpus % size == 0 else math.gcd(gpus, hardware.gpus_per_node)


def estimate(costs: Costs, setting: Setting, hardware: Hardware, row_length: int | None = None) -> Estimate:
    """Work out one meta-step.

    Args:
        costs: of the backbone.
        setting: what is varied.
        hardware: the GPUs.
        row_length: mean encoder positions of a row with the prompt, for FLOPs and traffic (default: the greatest).
            Memory is that of the lengths that need most.
    """
    parameters = costs.parameter_bytes(setting.shard_size)
    state, end_of_step = _state_bytes(costs, setting)
    activations = max(_pass_bytes(costs, setting, load) for load in pass_loads(costs.config))
    microbatches = _num_microbatches(costs.config, setting, row_length or costs.config.tasks.max_length)
    gathers = _gathers_per_microbatch(costs, setting) * microbatches
    gathered = microbatches * _gathered_per_microbatch(costs, setting)
    flops = _flops(costs, setting, row_length or costs.config.tasks.max_length)
    return Estimate(
        setting=setting,
        parameters=parameters,
        state=state,
        activations=activations,
        peak=parameters + max(state + activations, end_of_step),
        largest_budget=_largest_budget(costs, setting, hardware.usable - parameters - state),
        useful_budget=_useful_budget(costs.config, setting),
        gathers=gathers,
        gathered=gathered,
        flops=flops,
        compute_seconds=flops / hardware.flops,
        gather_seconds=hardware.gather_seconds(gathered, gathers, setting.shard_size),
        all_reduce_seconds=hardware.all_reduce_seconds(_gradient_bytes(costs), setting.gpus),
    )


def pass_loads(config: Config) -> list[PassLoad]:
    """Return the passes of a meta-step; second order by central differences repeats the support pass twice a step."""
    tasks, meta = config.tasks, config.meta
    if meta.algorithm == "multitask":
        return [PassLoad(mixed=False, rows=tasks.num_support + tasks.num_query, repeats=1)]
    repeats = meta.inner_steps * (3 if meta.order == "second" else 1)
    query = PassLoad(mixed=config.curriculum.mode != "none", rows=tasks.num_query, repeats=1)
    return [PassLoad(mixed=False, rows=tasks.num_support, repeats=repeats), query]


def _rows_per_microbatch(max_tokens: int, load: PassLoad, length: int, num_rows: int) -> int:
    return min(num_rows, max(1, max_tokens // (length * (1 + load.mixed))))


def _widths(config: Config) -> tuple[int, int]:
    """Return the least and the greatest encoder positions of a row.

    Under one token budget a pass needs `rows * (a * width + b * width**2 + c)` bytes with `rows = budget / width`: most at
    one of the two ends.
    """
    return min(config.prompt.length + SHORTEST_TEXT, config.tasks.max_length), config.tasks.max_length


def _pass_bytes(costs: Costs, setting: Setting, load: PassLoad) -> int:
    """Return what a pass holds at its peak, whatever the lengths of its rows."""
    num_rows = load.rows * setting.tasks_per_rank
    rows = {width: _rows_per_microbatch(setting.max_tokens, load, width, num_rows) for width in _widths(costs.config)}
    return int(max(_memory_line(costs, setting, load, width).bytes_for(rows[width]) for width in rows))


def _memory_line(costs: Costs, setting: Setting, load: PassLoad, width: int) -> MemoryLine:
    checkpointing = setting.checkpointing
    return costs.memory(mixed=load.mixed, width=width, sharded=setting.shard_size > 1, checkpointing=checkpointing)


def _largest_budget(costs: Costs, setting: Setting, num_bytes: int) -> int:
    """Return the largest token budget whose passes fit into `num_bytes`; 0 where a single row does not.

    It is one of whole rows of the greatest length; shorter rows set no limit where all of a pass fit at once.
    """
    length, budgets = costs.config.tasks.max_length, []
    for load in pass_loads(costs.config):
        for width in _widths(costs.config):
            rows = _memory_line(costs, setting, load, width).rows_within(num_bytes)
            if rows == 0:
                return 0
            if width == length or rows < load.rows * setting.tasks_per_rank:
                budgets.append(rows * width * (1 + load.mixed))
    return max(length, min(budgets) // length * length)


def _useful_budget(config: Config, setting: Setting) -> int:
    """Return the token budget beyond which nothing changes: each pass is one micro-batch."""
    length = config.tasks.max_length
    return max(load.rows * setting.tasks_per_rank * length * (1 + load.mixed) for load in pass_loads(config))


def _num_microbatches(config: Config, setting: Setting, length: int) -> int:
    total = 0
    for load in pass_loads(config):
        num_rows = load.rows * setting.tasks_per_rank
        total += load.repeats * math.ceil(num_rows / _rows_per_microbatch(setting.max_tokens, load, length, num_rows))
    return total


def _gathers_per_microbatch(costs: Costs, setting: Setting) -> int:
    """Count all-gathers: each block's in the forward and again in the backward pass, and the root's (embeddings, head).

    The root stays gathered in between.
    """
    if setting.shard_size == 1:
        return 0
    return costs.num_blocks * _gathers_per_block() + 1


def _gathered_per_microbatch(costs: Costs, setting: Setting) -> int:
    """Return the bytes that a rank receives from others."""
    size = setting.shard_size
    root = costs.parameter_bytes(size) - costs.block_bytes(size)
    return (size - 1) * (root + _gathers_per_block() * costs.block_bytes(size))


def _gathers_per_block() -> int:
    return 2


def _flops(costs: Costs, setting: Setting, length: int) -> float:
    return setting.tasks_per_rank * sum(
        load.repeats * load.rows * costs.flops(mixed=load.mixed, width=length, checkpointing=setting.checkpointing)
        for load in pass_loads(costs.config)
    )


def _prompt_bytes(costs: Costs) -> int:
    return 4 * costs.config.prompt.length * int(costs.shape.config.d_model)


def _gradient_bytes(costs: Costs) -> int:
    return costs.regularizer_bytes + _prompt_bytes(costs)


def _state_bytes(costs: Costs, setting: Setting) -> tuple[int, int]:
    """Return the bytes of prompt, regularizer, optimizers and tasks during the passes, and at the step's end."""
    tasks = TASK_TENSORS * setting.tasks_per_rank * _prompt_bytes(costs)
    own = _gradient_bytes(costs)
    return REGULARIZER_COPIES * own + tasks, PEAK_REGULARIZER_COPIES * own + tasks
