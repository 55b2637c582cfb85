"""The run directory ``<run.dir>/<run.name>/``, the settings it is bound to, and what its checkpoints belong to."""

from __future__ import annotations

import posixpath
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from supmer import storage
from supmer.backbone.identity import backbone_identity
from supmer.config import Config
from supmer.config.effects import RUN_EFFECTS, digest, settings_that_affect
from supmer.config.scalars import parse_yaml
from supmer.config.values import to_yaml, validate, with_settings
from supmer.corpus.manifest import read_manifest
from supmer.errors import UserError, setting_error
from supmer.sole_job import sole_job


class RunDirectory:
    """Paths in a run directory; `uri` is absolute, and `trials` the ledger that a sweep has in place of metrics."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.config = storage.join(uri, "config.yaml")
        self.metrics = storage.join(uri, "metrics.jsonl")
        self.trials = storage.join(uri, "trials.jsonl")
        self.prompt = storage.join(uri, "prompt.safetensors")
        self.regularizer = storage.join(uri, "regularizer.safetensors")
        self.report = storage.join(uri, "report.html")
        self.checkpoints = storage.join(uri, "checkpoints")


def find_sweep(directory: RunDirectory) -> RunDirectory | None:
    """Return the run directory of the sweep that a run is a trial of."""
    sweep = RunDirectory(posixpath.dirname(posixpath.dirname(directory.uri)))
    return sweep if storage.exists(sweep.trials) else None


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
        raise setting_error(
            "run.name",
            config.run.name,
            f"{directory.uri} holds a run with other settings ({', '.join(differing)}); "
            "give another run.name, or run.on_conflict=new or overwrite",
        )
    if differing and config.run.on_conflict == "new":
        name, number = config.run.name, 1
        while _differences_from_stored(config, directory):
            number += 1
            config = with_settings(config, {"run.name": f"{name}-{number}"})
            directory = RunDirectory(config.run_dir)
    elif differing:
        with sole_job(directory.uri):  # not what another job is writing
            storage.delete_folder(directory.uri)
    with sole_job(directory.uri):  # a job that is refused for another's sake must not leave its settings there
        resolved = to_yaml(config).encode()
        if not storage.exists(directory.config) or storage.read_bytes(directory.config) != resolved:
            storage.write_bytes(directory.config, resolved)
    return config, directory


def find(config: Config) -> RunDirectory:
    """Return the run directory of a run that began, without writing to it.

    Raises:
        UserError: there is none, or it belongs to other settings, which the message lists.
    """
    directory = RunDirectory(config.run_dir)
    if not storage.exists(directory.metrics):
        raise setting_error("run.name", config.run.name, f"no run has begun in {directory.uri}")
    if differing := _differences_from_stored(config, directory):
        raise setting_error("run.name", config.run.name, f"{directory.uri} has other settings ({', '.join(differing)})")
    return directory


def config_hash(config: Config) -> str:
    """Return the SHA-256 over the settings that bind a run."""
    return digest(config, *RUN_EFFECTS)


class Origin(BaseModel):
    """What a state belongs to; it cannot be continued with anything else."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config_hash: str
    backbone: dict[str, str | None]
    store_fingerprint: str


def origin_of(config: Config, resolved: Config, store_uri: str) -> Origin:
    """Return what a run's checkpoints belong to; of a local backbone the content counts, not where it lies.

    Args:
        config: the settings as they were given.
        resolved: the same with the backbone that was found or made for them.
        store_uri: its task store.
    """
    identity: dict[str, Any] = backbone_identity(resolved.backbone)
    if identity["content"]:
        identity["name"] = None
    return Origin(config_hash=config_hash(config), backbone=identity, store_fingerprint=read_manifest(store_uri).fingerprint)


def as_begun(config: Config, begun: Origin | None) -> Config:
    """Return `config` at the commits of the hub that a run began with, which it keeps; `begun` is None where it is new."""
    unpinned = [setting for setting in ("revision", "tokenizer_revision") if getattr(config.backbone, setting) is None]
    if begun is None or not unpinned:
        return config
    revisions = {f"backbone.{setting}": begun.backbone.get(setting) for setting in unpinned}
    return with_settings(config, revisions)


def _differences_from_stored(config: Config, directory: RunDirectory) -> list[str]:
    """Return ``setting: stored -> given`` for each binding setting in which the stored run differs.

    A run that never began to train, for a mistake that was mended since, binds nothing.
    """
    has_begun = storage.exists(directory.metrics) or storage.exists(directory.trials)
    if not (has_begun and storage.exists(directory.config)):
        return []
    try:
        stored = validate(parse_yaml(storage.read_bytes(directory.config)))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, UserError) as error:
        return [f"config.yaml is not readable: {error}"]
    before, after = (settings_that_affect(each, *RUN_EFFECTS) for each in (stored, config))
    return [f"{name}: {before[name]} -> {after[name]}" for name in after if before[name] != after[name]]
