"""What every node says about itself: versions, disk, shared memory; whether it reaches storage and backbone."""

from __future__ import annotations

import platform
import posixpath
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from supmer import storage
from supmer.backbone.load import load_model_config, load_tokenizer
from supmer.config import BackboneConfig

PACKAGES = ("ray", "torch", "transformers", "accelerate", "pyarrow", "supmer")
SHARED_MEMORY = "/dev/shm"
ASK_TIMEOUT_SECONDS = 180

T = TypeVar("T")


@dataclass(frozen=True)
class Node:
    """A live node as Ray knows it; `name` is its address and the end of its id."""

    id: str
    name: str
    object_store_bytes: int


@dataclass(frozen=True)
class Facts:
    """What a node found out about itself; sizes in bytes."""

    versions: dict[str, str]
    disk_free: int
    shared_memory: int


def live_nodes() -> list[Node]:
    """List the nodes of the cluster that are alive, the head included."""
    return [_node(entry) for entry in ray.nodes() if entry["Alive"]]


def _node(entry: dict[str, Any]) -> Node:
    name = f"{entry['NodeManagerAddress']}/{entry['NodeID'][-5:]}"
    return Node(entry["NodeID"], name, int(entry["Resources"].get("object_store_memory", 0)))


def ask_nodes(nodes: Sequence[Node], question: Callable[..., T], *arguments: object) -> dict[str, T | Exception]:
    """Run `question(*arguments)` once on each node; an answer that failed or timed out is its exception."""
    references = {node.name: _on(node, question).remote(*arguments) for node in nodes}
    ray.wait(list(references.values()), num_returns=len(references), timeout=ASK_TIMEOUT_SECONDS)
    return {name: _result(reference) for name, reference in references.items()}


def _on(node: Node, question: Callable[..., T]) -> Any:
    here = NodeAffinitySchedulingStrategy(node.id, soft=False)
    return ray.remote(question).options(num_cpus=0, scheduling_strategy=here, max_retries=0)


def _result(reference: Any) -> Any:
    try:
        return ray.get(reference, timeout=1)
    except ray.exceptions.RayTaskError as error:
        return error.cause
    except ray.exceptions.RayError as error:
        return error


def facts() -> Facts:
    """Describe the node that this runs on."""
    return Facts(
        versions={"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        disk_free=shutil.disk_usage(tempfile.gettempdir()).free,
        shared_memory=shutil.disk_usage(SHARED_MEMORY).total,
    )


def write_mark(folder: str) -> None:
    """Write a small file, named after this node's id, into shared storage."""
    storage.write_bytes(storage.join(folder, ray.get_runtime_context().get_node_id()), b"here")


def read_marks(folder: str) -> set[str]:
    """Return the ids of the nodes whose files are visible here."""
    return {posixpath.basename(file.path) for file in storage.list_files(folder) if file.size > 0}


def reach_backbone(backbone: BackboneConfig) -> None:
    """Load the backbone's configuration and tokenizer.

    Raises:
        UserError: one of them is not to be had here.
    """
    load_model_config(backbone)
    load_tokenizer(backbone)
