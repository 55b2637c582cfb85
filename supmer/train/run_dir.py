"""The run directory ``<run.dir>/<run.name>/`` and the settings it is bound to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from supmer import storage
from supmer.cli import to_yaml, validate
from supmer.config import Config
from supmer.errors import UserError
from supmer.sole_job import sole_job

FREE_SETTINGS = (
    "run.dir",
    "run.name",
    "run.on_conflict",
    "backbone.cache_dir",
    "backbone.gradient_checkpointing",
    "corpus.store_dir",
    "corpus.embedders",
    "corpus.embed_batch_tokens",
    "train",
    "fewshot",
    "tune.num_trials",
    "tune.max_concurrent",
    "tune.max_retries",
    "tune.stall_seconds",
    "log",
)
"""Settings and sections that may change between the parts of one run: they say where and how fast, not what."""


@dataclass(frozen=True)
class RunDirectory:
    """Paths in a run directory; `uri` is absolute."""

    uri: str

    @property
    def config(self) -> str:
        return storage.join(self.uri, "config.yaml")

    @property
    def metrics(self) -> str:
        return storage.join(self.uri, "metrics.jsonl")

    @property
    def trials(self) -> str:
        """The ledger that a sweep has in place of metrics."""
        return storage.join(self.uri, "trials.jsonl")

    @property
    def prompt(self) -> str:
        return storage.join(self.uri, "prompt.safetensors")

    @property
    def regularizer(self) -> str:
        return storage.join(self.uri, "regularizer.safetensors")

    @property
    def report(self) -> str:
        return storage.join(self.uri, "report.html")

    @property
    def checkpoints(self) -> str:
        return storage.join(self.uri, "checkpoints")


def claim(config: Config) -> tuple[Config, RunDirectory]:
    """Take the run directory of a configuration, and write `config.yaml` into it.

    Where the name belongs to a run with other settings, `run.on_conflict` decides: refuse, take the next free name
    (returned in the configuration), or delete that run.

    Raises:
        UserError: the name belongs to a run with other settings, which the message lists, another job is at work there, or
            `run.dir` cannot be written.
    """
    storage.check_writable("run.dir", config.run.dir)
    directory = RunDirectory(config.run_dir)
    differing = _differences_from_stored(config, directory)
    if differing and config.run.on_conflict == "refuse":
        raise UserError(
            f"run.name={config.run.name}: {directory.uri} holds a run with other settings ({', '.join(differing)}); "
            "give another run.name, or run.on_conflict=new or overwrite"
        )
    if differing and config.run.on_conflict == "new":
        config = _next_free_name(config)
        directory = RunDirectory(config.run_dir)
    elif differing:
        with sole_job(directory.uri):  # not what another job is writing
            storage.delete_folder(directory.uri)
    with sole_job(directory.uri):  # a job that is refused for another's sake must not leave its settings there
        _write_config(config, directory)
    return config, directory


def find(config: Config) -> RunDirectory:
    """Return the run directory of a run that began, without writing to it.

    Raises:
        UserError: there is none, or it belongs to other settings, which the message lists.
    """
    directory = RunDirectory(config.run_dir)
    if not storage.exists(directory.metrics):
        raise UserError(f"run.name={config.run.name}: no run has begun in {directory.uri}")
    if differing := _differences_from_stored(config, directory):
        raise UserError(f"run.name={config.run.name}: {directory.uri} has other settings ({', '.join(differing)})")
    return directory


def config_hash(config: Config) -> str:
    """Return the SHA-256 over the settings that bind a run, defaults left out so that new settings do not change it."""
    bound = dict(_bound(config.model_dump(mode="json", exclude_defaults=True)))
    return hashlib.sha256(json.dumps(bound, sort_keys=True).encode()).hexdigest()


def _write_config(config: Config, directory: RunDirectory) -> None:
    resolved = to_yaml(config).encode()
    if not storage.exists(directory.config) or storage.read_bytes(directory.config) != resolved:
        storage.write_bytes(directory.config, resolved)


def _next_free_name(config: Config) -> Config:
    number = 2
    while True:
        run = config.run.model_copy(update={"name": f"{config.run.name}-{number}"})
        candidate = config.model_copy(update={"run": run})
        if not _differences_from_stored(candidate, RunDirectory(candidate.run_dir)):
            return candidate
        number += 1


def _differences_from_stored(config: Config, directory: RunDirectory) -> list[str]:
    """Return ``setting: stored -> given`` for each binding setting in which the stored run differs.

    A run that never began to train, for a mistake that was mended since, binds nothing.
    """
    has_begun = storage.exists(directory.metrics) or storage.exists(directory.trials)
    if not (has_begun and storage.exists(directory.config)):
        return []
    try:
        stored = validate(yaml.safe_load(storage.read_bytes(directory.config)))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, UserError) as error:
        return [f"config.yaml is not readable: {error}"]
    before, after = dict(_bound(stored.model_dump(mode="json"))), dict(_bound(config.model_dump(mode="json")))
    return [f"{name}: {before[name]} -> {after[name]}" for name in after if before[name] != after[name]]


def _bound(values: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in _flatten(values, ""):
        if not any(name == free or name.startswith(f"{free}.") for free in FREE_SETTINGS):
            yield name, value


def _flatten(values: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
