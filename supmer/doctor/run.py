"""All checks, in the order in which a run would stumble over them."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar
from uuid import uuid4

import ray
from ray.util.placement_group import PlacementGroup
from rich.console import Console

from supmer import storage
from supmer.config import Config
from supmer.doctor.collective import all_reduce_between, reserve_workers
from supmer.doctor.nodes import Facts, Node, ask_nodes, facts, live_nodes, reach_backbone, read_marks, write_mark
from supmer.errors import UserError
from supmer.placement import check_capacity
from supmer.reports.tables import Table

logger = logging.getLogger(__name__)

GIB = 2**30
MIN_DISK_BYTES = {"local": 2 * GIB, "hub": 20 * GIB}
"""Logs and spilled objects; a hub model of this size class adds its float32 checkpoint and the download beside it."""
ALL_REDUCE_TIMEOUT_SECONDS = 120
SECONDS_BETWEEN_LINES = 10.0

T = TypeVar("T")


@dataclass(frozen=True)
class Check:
    """What was looked at, whether it is well, what was found, and what to do if it is not."""

    name: str
    passed: bool
    found: str
    remedy: str = ""


def print_table(checks: Sequence[Check], console: Console) -> None:
    """Print one row a check; the remedy only where it is needed."""
    rows = [
        (check.name, "pass" if check.passed else "FAIL", check.found, "" if check.passed else check.remedy)
        for check in checks
    ]
    table = Table(["check", "result", "found", "remedy"], rows, "cluster", num_labels=4)
    console.print(table.terminal(styles={"pass": "green", "FAIL": "red"}))


def run_checks(config: Config, wait_seconds: float = 900) -> list[Check]:
    """Check the cluster that Ray is connected to for the run that `config` describes.

    Workers are reserved as the run would, so that an autoscaling cluster grows first; that may take `wait_seconds`.
    """
    try:
        check_capacity(config)
    except UserError as error:
        return [Check("capacity", False, str(error), "lower train.workers, or raise the maxima in the cluster's definition")]
    with reserve_workers(config.train) as group:
        start = time.monotonic()
        seconds, what = 0.0, f"{config.train.min_workers} workers and an episode builder"
        while not (placed := bool(group.wait(min(SECONDS_BETWEEN_LINES, wait_seconds - seconds)))):
            seconds = time.monotonic() - start
            if seconds >= wait_seconds:
                break
            logger.info("waiting for %s (%.0f of at most %.0f s)", what, seconds, wait_seconds)
        found = f"{what} {'placed' if placed else 'not placed'} after {time.monotonic() - start:.0f} s"
        remedy = "`ray status` says what is missing: quota, spot capacity or an image that cannot be pulled"
        workers = Check("workers", placed, found, remedy)
        logger.info("asking every node: versions, disk, storage, backbone")
        nodes = live_nodes()
        answers = ask_nodes(nodes, facts)
        known = {name: answer for name, answer in answers.items() if isinstance(answer, Facts)}
        silent = _failed(answers)
        found = _failures(silent) or f"{len(nodes)} nodes answer"
        away = _failed(ask_nodes(nodes, reach_backbone, config.backbone))
        reached = _failures(away) or f"{config.backbone.name}: within reach of all nodes"
        remedy = "let the nodes out to the hub (port 443), set HF_TOKEN for a gated model, or mount a folder on all nodes"
        return [
            workers,
            Check("nodes", not silent, found, "see the node's raylet.out, or replace the node"),
            _check_versions(known),
            _check_disk(known, config),
            _check_shared_memory(known, nodes),
            _check_storage(nodes, config),
            Check("backbone", not away, reached, remedy),
            *([_check_all_reduce(group, config)] if placed else []),
        ]


def _check_versions(known: dict[str, Facts]) -> Check:
    here = facts().versions
    differing = [
        f"{name}: {package} {facts_there.versions[package]}, here {expected}"
        for name, facts_there in known.items()
        for package, expected in here.items()
        if facts_there.versions[package] != expected
    ]
    same = ", ".join(f"{package} {number}" for package, number in here.items())
    return Check("versions", not differing, "; ".join(differing) or same, "run the same image on every node")


def _check_disk(known: dict[str, Facts], config: Config) -> Check:
    needed = MIN_DISK_BYTES["hub" if "/" in config.backbone.name else "local"]
    return _check_least(
        "free disk", {name: there.disk_free for name, there in known.items()}, dict.fromkeys(known, needed), "larger disks"
    )


def _check_shared_memory(known: dict[str, Facts], nodes: Sequence[Node]) -> Check:
    needed = {node.name: node.object_store_bytes for node in nodes if node.name in known}
    found = {name: there.shared_memory for name, there in known.items()}
    return _check_least("shared memory", found, needed, "a larger --shm-size (or emptyDir), or a smaller object store")


def _check_least(name: str, found: dict[str, int], needed: dict[str, int], remedy: str) -> Check:
    """Compare bytes found on each node with bytes needed there."""
    short = [
        f"{node}: {found[node] / GIB:.1f} GiB of {needed[node] / GIB:.1f}" for node in found if found[node] < needed[node]
    ]
    least = f"at least {min(found.values(), default=0) / GIB:.1f} GiB on every node"
    return Check(name, not short, "; ".join(short) or least, remedy)


def _check_storage(nodes: Sequence[Node], config: Config) -> Check:
    """Every node writes a file below `run.dir`, and must then see the files of all."""
    remedy = "give run.dir a bucket, or an absolute path on a file system that every node mounts and user 1000 may write"
    if len({node.name.split("/")[0] for node in nodes}) > 1 and not config.run.dir.startswith(("/", "s3://", "gs://")):
        return Check("storage", False, f"run.dir={config.run.dir}: is relative, so different on every node", remedy)
    folder = storage.join(storage.absolute(config.run.dir), f".doctor-{uuid4().hex[:8]}")
    failed = _failed(ask_nodes(nodes, write_mark, folder))
    seen = ask_nodes(nodes, read_marks, folder)
    everyone = {node.id for node in nodes}
    failed |= {
        name: marks if isinstance(marks, Exception) else ValueError(f"sees {len(marks)} of {len(everyone)} files")
        for name, marks in seen.items()
        if marks != everyone
    }
    if len(failed) < len(nodes):
        storage.delete_folder(folder)
    return Check("storage", not failed, _failures(failed) or f"{config.run.dir}: all nodes write and read", remedy)


def _check_all_reduce(group: PlacementGroup, config: Config) -> Check:
    remedy = "open all ports between the nodes to each other; set NCCL_SOCKET_IFNAME where they have several interfaces"
    logger.info("reducing a tensor between the workers")
    try:
        reports = all_reduce_between(group, config.train, ALL_REDUCE_TIMEOUT_SECONDS)
    except (ray.exceptions.RayError, TimeoutError) as error:
        return Check("all-reduce", False, _first_line(error), remedy)
    devices = ", ".join(sorted({report.device for report in reports}))
    if config.train.gpus_per_worker and "cpu" in devices:
        return Check("all-reduce", False, "a worker sees no GPU", "driver 580 or newer, and the NVIDIA container runtime")
    slowest = max(report.all_reduce_seconds for report in reports)
    found = f"{len(reports)} workers on {devices}: 16 MiB in {1000 * slowest:.1f} ms"
    return Check("all-reduce", all(report.is_correct for report in reports), found, remedy)


def _failed(answers: dict[str, T | Exception]) -> dict[str, Exception]:
    return {name: answer for name, answer in answers.items() if isinstance(answer, Exception)}


def _failures(failed: dict[str, Exception]) -> str:
    return "; ".join(f"{name}: {_first_line(error)}" for name, error in failed.items())


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:200]
