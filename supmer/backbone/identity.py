"""Which backbone this is, so that stores and checkpoints made with another are recognized."""

from __future__ import annotations

import hashlib
from pathlib import Path

from supmer.config import BackboneConfig


def backbone_identity(config: BackboneConfig) -> dict[str, str | None]:
    """Return what identifies a backbone: of a local folder, the embedded one too, the content; of a hub name the commit."""
    identity = {
        "name": config.name,
        "revision": config.revision,
        "weights": config.weights,
        "content": folder_digest(config.location),
        "tokenizer": folder_digest(config.tokenizer) if config.tokenizer else None,
    }
    if config.tokenizer_revision is not None:
        identity["tokenizer_revision"] = config.tokenizer_revision
    return identity


def folder_digest(name: str) -> str | None:
    """Return the SHA-256 over a model folder's configuration, weight and tokenizer files; None for a hub name."""
    folder = Path(name)
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in (".json", ".safetensors", ".model"):
            digest.update(file.name.encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
