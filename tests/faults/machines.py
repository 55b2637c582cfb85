"""A Ray cluster on this computer whose machines come and go, each of them a raylet with room for one worker."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import DrainNodeReason
from typing_extensions import Self

CPUS_OF_ONE_WORKER = 2
"""A worker reserves one, and a part of another for its episode builder."""


class Machines:
    """A head that computes nothing, and machines."""

    def __enter__(self) -> Self:
        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._cluster.shutdown()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def add(self) -> Any:
        """Let a machine join."""
        return self._cluster.add_node(num_cpus=CPUS_OF_ONE_WORKER)

    def lose(self, machine: Any) -> None:
        """Kill all processes of a machine at once."""
        self._cluster.remove_node(machine, allow_graceful=False)

    def preempt(self, machine: Any, seconds: int) -> None:
        """Announce that a machine will be taken away, as a cloud does for a spot machine, and take it away then."""
        deadline = time.time() + seconds
        accepted, why_not = GcsClient(address=self.address).drain_node(
            machine.node_id, DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"), "spot", int(1000 * deadline)
        )
        assert accepted, why_not
        time.sleep(max(0.0, deadline - time.time()))
        self.lose(machine)
