"""One meta-step at the longest rows, measured on a device: memory, FLOPs, seconds. Needs no Ray."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, T5Config, T5ForConditionalGeneration

from supmer.backbone.load import finish_backbone
from supmer.config import Config
from supmer.memory import peak_memory, reset_peak_memory, used_memory
from supmer.meta.group import Group
from supmer.meta.learner import Learner, build_learner
from supmer.model.build import wrap
from supmer.model.prompted import initial_prompt
from supmer.planning import causal, t5
from supmer.planning.shapes import resolve_shape
from supmer.tasks.episode import NO_CENTROID, Episode, Example

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Parameters of glibc's mallopt."""
CPU_ATTENTION: dict[Any, Callable[..., Any]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda *shapes, **_: sdpa_flop_count(*shapes[:3]),  # type: ignore[no-untyped-call]
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda *shapes, **_: sdpa_backward_flop_count(*shapes[:4])  # type: ignore[no-untyped-call]
    ),
}
"""FLOPs of a CPU's fused attention; the counter knows only that of GPUs."""


class Measured(NamedTuple):
    """One meta-step: bytes and FLOPs of the rank that has most, seconds, encoder tokens of all ranks; where it ran.

    `peak` counts from before the backbone was loaded; it is 0 where the system does not say.
    """

    device: str
    peak: int
    flops: int
    seconds: float
    tokens: int


def measure(config: Config, device: torch.device, group: Group, build: Callable[[], Learner] | None = None) -> Measured:
    """Do three meta-steps on the longest rows: one to warm up, one for memory and FLOPs, one for the time.

    All ranks call it together. On a CPU a tiny backbone is stepped first, so that buffers of libraries do not count.
    """
    _map_tensors_from(2**16)
    if device.type == "cpu":
        _tiny_learner(config, group).step(longest_episodes(config))
        gc.collect()
    before = used_memory(device)
    learner = untrained_learner(config, device, group) if build is None else build()
    episodes = longest_episodes(config)
    learner.step(episodes)
    reset_peak_memory(device)
    counter = FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION)
    counter.mod_tracker = _NoModules()  # type: ignore[assignment]
    with counter:
        learner.step(episodes)
    peak = group.all_reduce_max(max(0, peak_memory(device) - before))
    _map_tensors_from(2**25)
    group.all_reduce_max(0)  # all ranks are here
    started = time.perf_counter()
    record = learner.step(episodes)  # its figures are read from the device: it has finished
    seconds = time.perf_counter() - started
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return Measured(name, peak, group.all_reduce_max(counter.get_total_flops()), seconds, record.tokens)


def untrained_learner(config: Config, device: torch.device, group: Group) -> Learner:
    """Return a learner as a run begins with it, but for the centroids, which are zeros."""
    width = resolve_shape(config.backbone).config.hidden_size
    return build_learner(config, np.zeros((2, width), np.float32), device, group)


def _tiny_learner(config: Config, group: Group) -> Learner:
    """Return a learner whose backbone has next to no size."""
    if resolve_shape(config.backbone).config.is_encoder_decoder:
        sizes = {"vocab_size": 8000, "d_model": 16, "d_kv": 16, "d_ff": 16, "num_layers": 1, "num_heads": 1}
        backbone: PreTrainedModel = T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0))
    else:
        sizes = {"vocab_size": 8000, "hidden_size": 16, "intermediate_size": 16}
        backbone = LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=1, num_attention_heads=1))
    model = wrap(finish_backbone(backbone, config.backbone), torch.zeros(2, 16), "masked")
    is_sharded = config.train.sharding != "none"
    if is_sharded:
        from supmer.model.sharding import shard, shard_size  # needs accelerate, which one process alone does not

        model = shard(model, shard_size(config))
    return Learner(config, model, initial_prompt(config.prompt, model, config.run.seed), group, lockstep=is_sharded)


def longest_episodes(config: Config) -> list[Episode]:
    """Make a meta-batch of random rows of the greatest length."""
    rng, tasks = np.random.default_rng(0), config.tasks
    length = tasks.max_length - config.prompt.length
    num_targets = (t5 if resolve_shape(config.backbone).config.is_encoder_decoder else causal).TARGETS

    def rows(count: int) -> tuple[Example, ...]:
        tokens = [rng.integers(5, 255, length + num_targets).astype(np.int32) for _ in range(count)]
        anchors = np.full(length, NO_CENTROID, np.int32)
        return tuple(Example(row[:length], anchors, row[length:], label=0) for row in tokens)

    sizes = (tasks.num_support, tasks.num_query, tasks.num_query)
    return [
        Episode("nsp", 0, slot, (0,), (1,), *(rows(size) for size in sizes)) for slot in range(config.meta.tasks_per_step)
    ]


def _map_tensors_from(num_bytes: int) -> None:
    """Let the C library map each tensor of this size by itself: when freed it leaves the process at once, which shows peaks.

    Mapping takes time, so the step that is timed goes without. Only glibc can be asked.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(MMAP_THRESHOLD, num_bytes)
        library.mallopt(TRIM_THRESHOLD, num_bytes)


class _NoModules:
    """Counts over all modules together: the hooks that would count for each do not stand `autograd.grad` of a leaf."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...
