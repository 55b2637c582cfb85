"""What the checkpoints of a run belong to."""

from __future__ import annotations

import logging
from typing import Any

from supmer import storage
from supmer.backbone.load import backbone_identity
from supmer.config import Config
from supmer.corpus.manifest import read_manifest
from supmer.train import checkpoint
from supmer.train.job import Origin
from supmer.train.run_dir import config_hash

logger = logging.getLogger(__name__)


def as_begun(config: Config, checkpoints: str) -> Config:
    """Return `config` at the commit of the hub that the newest checkpoint names: a run keeps the weights it began with."""
    name = checkpoint.find_newest(checkpoints, warn=logger.debug)
    if name is None or config.backbone.revision is not None:
        return config
    revision = checkpoint.read_manifest(storage.join(checkpoints, name)).origin.backbone.get("revision")
    return config.model_copy(update={"backbone": config.backbone.model_copy(update={"revision": revision})})


def origin_of(config: Config, resolved: Config, store_uri: str) -> Origin:
    """Say what a run's checkpoints belong to; of a local backbone the content counts, not where it lies.

    Args:
        config: the settings as they were given.
        resolved: the same with the backbone that was found or made for them.
        store_uri: its task store.
    """
    identity: dict[str, Any] = backbone_identity(resolved.backbone)
    if identity["content"]:
        identity["name"] = None
    return Origin(config_hash=config_hash(config), backbone=identity, store_fingerprint=read_manifest(store_uri).fingerprint)
