"""The workers as the run would start them: do they come, do they see a GPU, do they reach each other?"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import ray
import torch
import torch.distributed
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from supmer.config import TrainConfig
from supmer.placement import role_resources, worker_resources

JOIN_TIMEOUT = timedelta(seconds=60)
NUM_FLOATS = 4 * 2**20
NUM_ROUNDS = 3


class RankReport(NamedTuple):
    """One worker's view: its device, and seconds for one all-reduce of 16 MiB."""

    host: str
    device: str
    all_reduce_seconds: float
    is_correct: bool


@contextmanager
def reserve_workers(train: TrainConfig) -> Iterator[PlacementGroup]:
    """Ask for what the run's workers and one episode builder reserve, so that an autoscaler starts the nodes."""
    bundles = [worker_resources(train)] * train.min_workers + [{"CPU": train.cpus_per_builder} | role_resources("data")]
    group = placement_group(bundles)
    try:
        yield group
    finally:
        remove_placement_group(group)


def all_reduce_between(group: PlacementGroup, train: TrainConfig, timeout: float) -> list[RankReport]:
    """Form the workers' process group, by NCCL if they have GPUs and gloo if not, and reduce a tensor.

    Raises:
        ray.exceptions.RayError: a worker failed or did not answer in `timeout` seconds.
    """
    actor = ray.remote(num_cpus=train.cpus_per_worker, num_gpus=train.gpus_per_worker)(_Rank)
    places = (PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=i) for i in range(train.min_workers))
    ranks = [actor.options(scheduling_strategy=place).remote() for place in places]
    try:
        address = ray.get(ranks[0].free_address.remote(), timeout=timeout)
        reports = [rank.all_reduce.remote(index, len(ranks), address) for index, rank in enumerate(ranks)]
        return list(ray.get(reports, timeout=timeout))
    finally:
        for rank in ranks:
            ray.kill(rank)


class _Rank:
    """A worker process, as an actor."""

    def free_address(self) -> str:
        """Return an address of this node, with a port that is free."""
        host = ray.util.get_node_ip_address()
        with socket.create_server((host, 0)) as server:
            return f"tcp://{host}:{server.getsockname()[1]}"

    def all_reduce(self, rank: int, world_size: int, address: str) -> RankReport:
        has_gpu = torch.cuda.is_available()
        torch.distributed.init_process_group(
            "nccl" if has_gpu else "gloo", init_method=address, rank=rank, world_size=world_size, timeout=JOIN_TIMEOUT
        )
        device = torch.device("cuda", 0) if has_gpu else torch.device("cpu")
        seconds, is_correct = [], True
        for _ in range(NUM_ROUNDS):
            values = torch.full((NUM_FLOATS,), float(rank + 1), device=device)
            start = time.perf_counter()
            torch.distributed.all_reduce(values)
            is_correct &= bool((values == world_size * (world_size + 1) / 2).all())  # waits for the device as well
            seconds.append(time.perf_counter() - start)
        torch.distributed.destroy_process_group()
        name = torch.cuda.get_device_name(device) if has_gpu else "cpu"
        return RankReport(socket.gethostname(), name, min(seconds), is_correct)
