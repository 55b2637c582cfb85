"""The hardware that a plan is for."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import ByteSize, TypeAdapter, ValidationError

from supmer.errors import setting_error


@dataclass(frozen=True)
class Hardware:
    """GPUs in nodes.

    Attributes:
        memory: bytes of one GPU.
        reserve: bytes of `memory` that tensors cannot have (CUDA context, NCCL's buffers, fragments).
        flops: FLOP/s of one GPU.
        bandwidth: bytes/s that a GPU receives from the others of its node.
        network: bytes/s that a node receives from other nodes.
        gpus_per_node: GPUs of one node.
        latency: seconds that a collective takes for each doubling of its ranks, besides its bytes.
    """

    memory: int
    reserve: int
    flops: float
    bandwidth: float
    network: float
    gpus_per_node: int
    latency: float

    @property
    def usable(self) -> int:
        """Bytes of one GPU that tensors can have."""
        return self.memory - self.reserve

    def gather_seconds(self, num_bytes: float, num_gathers: float, size: int) -> float:
        """Return the least time of all-gathers over `size` ranks that bring each rank `num_bytes` in all.

        The ranks form a ring, node after node, so each node's connection carries what every rank receives.
        """
        if size == 1:
            return 0.0
        slowest = self.bandwidth if size <= self.gpus_per_node else min(self.bandwidth, self.network)
        return num_bytes / slowest + num_gathers * self.latency * math.log2(size)

    def all_reduce_seconds(self, num_bytes: float, world: int) -> float:
        """Return the least time of one all-reduce of `num_bytes` over all ranks: two trips round the ring."""
        return self.gather_seconds(2 * num_bytes * (world - 1) / world, 2, world)


def parse_units(option: str, value: str) -> float:
    """Read a number that is not negative, plain (`1e14`) or with a unit (`24GiB`, `25GB`, `120T`); else UserError."""
    try:
        number = float(value)
    except ValueError:
        try:
            number = float(TypeAdapter(ByteSize).validate_python(value))
        except ValidationError:
            number = math.nan
    if not 0 <= number < math.inf:
        raise setting_error(option, value, "must be a number of at least 0, with a unit or without, such as 24GiB or 120T")
    return number


def parse_count(option: str, value: str) -> int:
    """Read a whole number of at least 1; else UserError."""
    if not value.isdecimal() or int(value) < 1:
        raise setting_error(option, value, "must be a whole number of at least 1")
    return int(value)
