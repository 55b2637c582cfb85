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


REVISIONS = ("revision", "tokenizer_revision")


def as_begun(config: Config, checkpoints: str) -> Config:
    """Return `config` at the commits of the hub that the newest checkpoint names: a run keeps the weights it began with."""
    name = checkpoint.find_newest(checkpoints, warn=logger.debug)
    unpinned = [setting for setting in REVISIONS if getattr(config.backbone, setting) is None]
    if name is None or not unpinned:
        return config
    begun_with = checkpoint.read_manifest(storage.join(checkpoints, name)).origin.backbone
    revisions = {setting: begun_with.get(setting) for setting in unpinned}
    return config.model_copy(update={"backbone": config.backbone.model_copy(update=revisions)})


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
