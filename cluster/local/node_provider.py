"""Ray nodes as processes of this machine, for the autoscaler of `make cluster-local`."""

from __future__ import annotations

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider


class LocalNodeProvider(FakeMultiNodeProvider):  # type: ignore[misc]  # Ray is untyped here
    """Ray's own provider for tests, which would go on listing a node whose raylet has died; a cloud does not."""

    def non_terminated_nodes(self, tag_filters: dict[str, str]) -> list[str]:
        """Return the ids of the nodes that are there and have these tags."""
        with self.lock:
            lost = [name for name, entry in self._nodes.items() if "node" in entry and entry["node"].dead_processes()]
            for name in lost:
                self.terminate_node(name)
            found: list[str] = super().non_terminated_nodes(tag_filters)
            return found
