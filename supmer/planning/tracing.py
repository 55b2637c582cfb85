"""One forward and backward pass on fake tensors: what it holds in memory at its peak and how many FLOPs it does.

The passes are those of the real model, sharded by the real code in a world of fake ranks, watched by torch's own memory
tracker of FSDP and its FLOP counter. Shapes: B rows, S encoder positions with the prompt, D decoder positions.
"""

from __future__ import annotations

import os
import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple
from unittest import mock

import torch
from accelerate.state import AcceleratorState
from torch import Tensor, distributed, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils import flop_counter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakIdKeyDictionary

from supmer.config import Config
from supmer.meta.passes import Microbatch, query_loss, support_loss
from supmer.model.prompted import Mixing, PromptedSeq2Seq
from supmer.model.rows import Rows
from supmer.model.sharding import shard
from supmer.planning.shapes import Shape, build_on_meta

NUM_LABELS = 3
"""Decoder positions of a row: `<X> label <Y>`."""
SHARDED_WORLD = 2
"""Ranks of the fake world; gathered weights and activations do not depend on their number."""


@dataclass(frozen=True)
class PassShape:
    """One micro-batch.

    Attributes:
        rows: B, rows that are decoded.
        width: S, encoder positions of each with the prompt.
        mixed: each row is mixed with an augmentation row, so that twice as many are encoded.
    """

    rows: int
    width: int
    mixed: bool

    @property
    def tokens(self) -> int:
        """Encoder positions of the micro-batch, the unit of `train.max_tokens_per_microbatch`."""
        return self.rows * self.width * (2 if self.mixed else 1)


class Flops(NamedTuple):
    """Floating-point operations (a multiply-add counts as two); `backward` includes recomputed activations."""

    forward: float
    backward: float


@dataclass(frozen=True)
class Tracer:
    """Traces passes of one backbone under one configuration.

    Attributes:
        config: precision, attention, dropout, gradient checkpointing, prompt, resharding.
        shape: the backbone.
        gpu: count what a GPU's kernels keep (dropout masks of one byte, none for attention), not what a CPU's do.
    """

    config: Config
    shape: Shape
    gpu: bool = True

    def peak_bytes(self, batch: PassShape, *, sharded: bool, depth: int | None = None) -> int:
        """Return the most that a rank holds besides its own parameters: activations and, if sharded, gathered weights."""
        return self._sharded_peak(batch, depth) if sharded else self._peak(batch, depth)

    def _sharded_peak(self, batch: PassShape, depth: int | None) -> int:
        with fake_world(SHARDED_WORLD), warnings.catch_warnings():
            # Blocks under gradient checkpointing return a bias that is a view; nobody changes it in place.
            warnings.filterwarnings("ignore", "FSDP2-wrapped module", UserWarning)
            model = shard(self.build(depth), SHARDED_WORLD)
            with FakeTensorMode(allow_non_fake_inputs=True):
                prompt, microbatch = self._enter(model, batch)
                with FSDPMemTracker(model) as tracker:
                    _loss(model, prompt, microbatch).backward()  # type: ignore[no-untyped-call]
                peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]
                return int(peak["Total"] - peak["Sharded Param"])

    def _peak(self, batch: PassShape, depth: int | None) -> int:
        model = self.build(depth)
        with FakeTensorMode(allow_non_fake_inputs=True):
            prompt, microbatch = self._enter(model, batch)
            with LiveBytes(known=[*model.parameters(), *model.buffers()]) as live:
                _loss(model, prompt, microbatch).backward()  # type: ignore[no-untyped-call]
            return int(live.peak)

    def flops(self, batch: PassShape, depth: int | None = None) -> Flops:
        """Count the FLOPs of one forward and backward pass."""
        model = self.build(depth)
        counter = FlopCounterMode(display=False, custom_mapping=_FUSED_ATTENTION)
        with FakeTensorMode(allow_non_fake_inputs=True):
            prompt, microbatch = self._enter(model, batch)
            with counter:
                loss = _loss(model, prompt, microbatch)
                forward = counter.get_total_flops()
                loss.backward()  # type: ignore[no-untyped-call]
                return Flops(forward, counter.get_total_flops() - forward)

    def build(self, depth: int | None = None) -> PromptedSeq2Seq:
        """Build the model on the meta device, in the mode that meta-training puts it in."""
        model = PromptedSeq2Seq(build_on_meta(self.shape, self.config.backbone, depth), None, self.config.meta.pooling)
        if self.gpu:
            _use_gpu_dropout(model)
        return model.train()

    def _enter(self, model: PromptedSeq2Seq, batch: PassShape) -> tuple[Tensor, Microbatch]:
        """Give a model on the meta device fake weights, and return a fake prompt and micro-batch for it."""
        model.to_empty(device="cpu")
        prompt = torch.zeros(1, self.config.prompt.length, self.shape.config.d_model, requires_grad=True)
        return prompt, make_microbatch(batch, self.config.prompt.length)


@contextmanager
def fake_world(size: int) -> Iterator[None]:
    """Make this process rank 0 of a `torch.distributed` world whose other ranks do not exist.

    Raises:
        RuntimeError: the process already is part of a world.
    """
    ranks = {"WORLD_SIZE": size, "RANK": 0, "LOCAL_RANK": 0, "MASTER_PORT": 0}
    variables = {name: str(value) for name, value in ranks.items()}
    with mock.patch.dict(os.environ, {**variables, "MASTER_ADDR": "localhost", "ACCELERATE_USE_CPU": "true"}):
        AcceleratorState._reset_state(reset_partial_state=True)
        distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=size)
        try:
            yield
        finally:
            distributed.destroy_process_group()
            AcceleratorState._reset_state(reset_partial_state=True)


def _loss(model: PromptedSeq2Seq, prompt: Tensor, batch: Microbatch) -> Tensor:
    output = model(prompt, batch.rows, batch.mixing)
    row_loss = support_loss if batch.mixing is None else query_loss
    return (row_loss(output.logits, batch) * batch.weights).sum()


def make_microbatch(batch: PassShape, prompt_length: int) -> Microbatch:
    """Make a micro-batch of this size; what its tensors hold is without meaning."""
    rows = _rows(batch.rows, batch.width - prompt_length)
    mixing = Mixing(_rows(batch.rows, batch.width - prompt_length), torch.ones(batch.rows)) if batch.mixed else None
    return Microbatch(rows, torch.ones(batch.rows), mixing)


def _rows(count: int, width: int) -> Rows:
    ids = torch.zeros(count, width, dtype=torch.long)
    labels = torch.zeros(count, NUM_LABELS, dtype=torch.long)
    return Rows(ids, torch.ones_like(ids), torch.zeros_like(ids), labels, torch.zeros(count, dtype=torch.long))


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the bytes of all storages made inside it; torch's own tracker of unsharded models wants no frozen weights.

    Args:
        known: tensors that were there before, which do not count.
    """

    def __init__(self, known: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self._now = 0
        self._known: WeakIdKeyDictionary = WeakIdKeyDictionary({tensor.untyped_storage(): True for tensor in known})

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._see(tensor.untyped_storage())
        return result

    def _see(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known[storage] = True
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._forget, storage.nbytes())

    def _forget(self, num_bytes: int) -> None:
        self._now -= num_bytes


class _OneByteDropout(nn.Dropout):
    """Dropout as on a GPU, which keeps one byte per element; a CPU keeps a mask of the input's own type."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.native_dropout(x, self.p, True)[0] if self.training and self.p > 0 else x


def _use_gpu_dropout(model: nn.Module) -> None:
    """Replace dropout by what a GPU does; its fused attention draws the mask again instead of keeping it."""
    for module in list(model.modules()):
        if isinstance(getattr(module, "dropout", None), float):
            setattr(module, "dropout", 0.0)  # noqa: B010 - the checker takes it for a module
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, _OneByteDropout(child.p))


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(flop_counter.sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


def _attention_backward_flops(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(flop_counter.sdpa_backward_flop_count(grad, query, key, value))  # type: ignore[no-untyped-call]


_FUSED_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward_flops,
}
"""The counter knows only the fused attention of GPUs."""
