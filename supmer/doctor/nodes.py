"""What every node says about itself: versions, disk, shared memory; whether it reaches storage and backbone."""

from __future__ import annotations

import platform
import posixpath
import shutil
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import NamedTuple, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from supmer import storage
from supmer.backbone.load import load_model_config, load_tokenizer
from supmer.config import BackboneConfig

PACKAGES = ("ray", "torch", "transformers", "accelerate", "pyarrow", "supmer")
SHARED_MEMORY = "/dev/shm"
ASK_TIMEOUT_SECONDS = 180

T = TypeVar("T")


class Node(NamedTuple):
    """A live node as Ray knows it; `name` is its address and the end of its id."""

    id: str
    name: str
    object_store_bytes: int


class Facts(NamedTuple):
    """What a node found out about itself; sizes in bytes."""

    versions: dict[str, str]
    disk_free: int
    shared_memory: int


def live_nodes() -> list[Node]:
    """List the nodes of the cluster that are alive, the head included."""
    return [
        Node(
            entry["NodeID"],
            f"{entry['NodeManagerAddress']}/{entry['NodeID'][-5:]}",
            int(entry["Resources"].get("object_store_memory", 0)),
        )
        for entry in ray.nodes()
        if entry["Alive"]
    ]


def ask_nodes(nodes: Sequence[Node], question: Callable[..., T], *arguments: object) -> dict[str, T | Exception]:
    """Run `question(*arguments)` once on each node; an answer that failed or timed out is its exception."""
    task = ray.remote(num_cpus=0, max_retries=0)(question)
    references = {
        node.name: task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(*arguments)
        for node in nodes
    }
    ray.wait(list(references.values()), num_returns=len(references), timeout=ASK_TIMEOUT_SECONDS)
    answers: dict[str, T | Exception] = {}
    for name, reference in references.items():
        try:
            answers[name] = ray.get(reference, timeout=1)
        except ray.exceptions.RayError as error:
            answers[name] = getattr(error, "cause", None) or error  # what the question itself raised, if it did
    return answers


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
        UserError: this node cannot get one of them.
    """
    load_model_config(backbone)
    load_tokenizer(backbone)
