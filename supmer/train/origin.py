"""What the checkpoints of a run belong to."""

from __future__ import annotations

from typing import Any

from supmer.backbone.load import backbone_identity
from supmer.config import Config
from supmer.corpus.manifest import read_manifest
from supmer.train.job import Origin
from supmer.train.run_dir import config_hash


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
