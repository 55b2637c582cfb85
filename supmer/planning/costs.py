"""Costs of a backbone's passes for any number of rows, from a few traces.

Memory and FLOPs of a pass grow by the same amount with each row and with each layer, once activations rather than
gathered weights make the peak; so shallow traces of two sizes give the whole model's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from supmer.config import Config
from supmer.model.regularizer import GradientRegularizer
from supmer.planning.shapes import Shape, build_on_meta
from supmer.planning.tracing import PassShape, Tracer

DEPTHS = (2, 4)
"""Layers of the traced models."""
NUM_ROWS = (8, 16)
"""Rows of the traced passes, enough for activations to outweigh gathered weights."""


@dataclass(frozen=True)
class MemoryLine:
    """Bytes held at the peak besides a rank's own parameters: `base + per_row * rows`, and at least `floor`."""

    base: float
    per_row: float
    floor: float

    def bytes_for(self, rows: int) -> float:
        return max(self.base + self.per_row * rows, self.floor)

    def rows_within(self, num_bytes: float) -> int:
        """Return how many rows fit (0: none)."""
        fits = num_bytes >= self.bytes_for(1)
        return max(1, int((num_bytes - self.base) // self.per_row)) if fits else 0


class Costs:
    """Traced costs of one backbone; each is traced when it is first asked for.

    Args:
        config: the whole configuration.
        shape: the backbone.
        gpu: whether the kernels are a GPU's.
    """

    def __init__(self, config: Config, shape: Shape, *, gpu: bool = True) -> None:
        self.config = config
        self.shape = shape
        self.gpu = gpu
        self._memory = cache(self._trace_memory)
        self._flops = cache(self._trace_flops)
        model = build_on_meta(shape, config.backbone)
        self._tensors = dict(model.named_parameters())
        self.num_blocks: int = model.config.num_layers + model.config.num_decoder_layers

    def memory(self, *, mixed: bool, width: int, sharded: bool, checkpointing: bool) -> MemoryLine:
        """Return the memory of passes over rows of `width` encoder positions."""
        return self._memory(mixed, width, sharded, checkpointing)

    def flops(self, *, mixed: bool, width: int, checkpointing: bool) -> float:
        """Return the FLOPs of one row's forward and backward, of `width` encoder positions."""
        return self._flops(mixed, width, checkpointing)

    def parameter_bytes(self, size: int = 1) -> int:
        """Return the bytes of the backbone that each of `size` ranks stores."""
        return sum(_share(tensor, size) for tensor in self._tensors.values())

    def block_bytes(self, size: int = 1) -> int:
        """Return those of the transformer blocks, without embeddings and head."""
        return sum(_share(tensor, size) for name, tensor in self._tensors.items() if ".block." in name)

    @property
    def regularizer_bytes(self) -> int:
        """Bytes of phi, in float32; 0 where there is none."""
        if not self.config.regularizer.enabled or self.config.meta.algorithm == "multitask":
            return 0
        with torch.device("meta"):
            settings = self.config.regularizer.model_copy(update={"init": "xavier"})
            phi = GradientRegularizer(self.shape.config.d_model, settings)
        return sum(parameter.numel() * parameter.element_size() for parameter in phi.parameters())

    def _tracer(self, checkpointing: bool) -> Tracer:
        backbone = self.config.backbone.model_copy(update={"gradient_checkpointing": checkpointing})
        return Tracer(self.config.model_copy(update={"backbone": backbone}), self.shape, self.gpu)

    def _depths(self) -> tuple[int, ...]:
        """Depths to trace: of models whose encoder and decoder differ in depth, or shallow ones, only their own."""
        config = self.shape.config
        return DEPTHS if config.num_layers == config.num_decoder_layers > max(DEPTHS) else ()

    def _at_full_depth(self, measure: dict[int | None, float]) -> float:
        if None in measure:
            return measure[None]
        low, high = DEPTHS
        per_layer = (measure[high] - measure[low]) / (high - low)
        return measure[low] + per_layer * int(self.shape.config.num_layers - low)

    def _trace_memory(self, mixed: bool, width: int, sharded: bool, checkpointing: bool) -> MemoryLine:
        tracer, depths = self._tracer(checkpointing), self._depths() or (None,)

        def peak(rows: int) -> float:
            batch = PassShape(rows, width, mixed)
            return self._at_full_depth({depth: tracer.peak_bytes(batch, sharded=sharded, depth=depth) for depth in depths})

        few, many = NUM_ROWS
        per_row = (peak(many) - peak(few)) / (many - few)
        one_row = tracer.peak_bytes(PassShape(1, width, mixed), sharded=sharded, depth=depths[0])
        return MemoryLine(peak(few) - few * per_row, per_row, one_row)

    def _trace_flops(self, mixed: bool, width: int, checkpointing: bool) -> float:
        tracer, depths = self._tracer(checkpointing), self._depths() or (None,)
        batch = PassShape(1, width, mixed)
        return self._at_full_depth({depth: sum(tracer.flops(batch, depth)) for depth in depths})


def _share(tensor: Tensor, size: int) -> int:
    """Return the bytes of one rank's part: tensors are split along their first dimension, the last part may be smaller."""
    return -(-tensor.shape[0] // size) * tensor[0].numel() * tensor.element_size()
