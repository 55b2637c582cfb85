"""Ray nodes as processes of this machine, for the autoscaler of `make cluster-local`."""

from __future__ import annotations

from typing import Any

from ray._private import ray_constants
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider


class LocalNodeProvider(FakeMultiNodeProvider):  # type: ignore[misc]  # Ray is untyped here
    """Ray's own provider for tests, with nodes that are more like machines: the lost are gone, each has its own folder."""

    def non_terminated_nodes(self, tag_filters: dict[str, str]) -> list[str]:
        """Return the ids of the nodes that are there and have these tags; those whose raylet has died are not."""
        with self.lock:
            lost = [name for name, entry in self._nodes.items() if "node" in entry and entry["node"].dead_processes()]
            for name in lost:
                self.terminate_node(name)
            found: list[str] = super().non_terminated_nodes(tag_filters)
            return found

    def _create_node_with_resources_and_labels(self, *arguments: Any) -> None:
        """Start one node; a directory of its own keeps it from replacing the code under the feet of others' processes."""
        with self.lock:
            ray_constants.DEFAULT_RUNTIME_ENV_DIR_NAME = f"runtime_resources_{self._next_node_id + 1}"
            super()._create_node_with_resources_and_labels(*arguments)
