"""Shapes of T5 backbones, from a name or a `config.json`: planning needs no weights and, for known names, no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from transformers import AutoConfig, PretrainedConfig, T5Config

from supmer.backbone.kinds import T5_TYPES
from supmer.backbone.load import load_model_config
from supmer.config import BackboneConfig
from supmer.errors import setting_error

# d_model, d_ff, layers of encoder and decoder each, heads
_V1 = {"small": (512, 2048, 6, 8), "base": (768, 3072, 12, 12), "large": (1024, 4096, 24, 16)}
_V1_1 = {
    "small": (512, 1024, 8, 6),
    "base": (768, 2048, 12, 12),
    "large": (1024, 2816, 24, 16),
    "xl": (2048, 5120, 24, 32),
    "xxl": (4096, 10240, 24, 64),
}
_V1_1_NAMES = ("google/flan-t5-{}", "google/t5-v1_1-{}", "google/t5-{}-lm-adapt")
KNOWN = {f"google-t5/t5-{size}": sizes for size, sizes in _V1.items()} | {
    name.format(size): sizes for name in _V1_1_NAMES for size, sizes in _V1_1.items()
}
"""Hub models whose shape is written down here; from T5 1.1 on with gated feed-forward layers and an own head."""


class Shape(NamedTuple):
    """A backbone's name, where its shape was read, transformers' configuration, and whether its head has own weights."""

    name: str
    source: str
    config: Any
    own_head: bool


def resolve_shape(config: BackboneConfig, override: str | None = None) -> Shape:
    """Return the shape of the configured backbone: of a local folder, a known name, or the hub's `config.json`.

    Args:
        config: which backbone.
        override: a known name, a `config.json` or a folder with one, in place of the configured backbone.

    Raises:
        UserError: nothing of this name is known, or it is no T5.
    """
    name = override or config.location
    if name in KNOWN and not Path(name).exists():
        width, feed_forward, layers, heads = KNOWN[name]
        is_first = name.startswith("google-t5/")
        kind = "relu" if is_first else "gated-gelu"
        sizes = {"d_model": width, "d_ff": feed_forward, "num_layers": layers, "num_heads": heads, "feed_forward_proj": kind}
        return Shape(name, "a known name", T5Config(**sizes), own_head=not is_first)
    if override is None:
        found = load_model_config(config)
        if found.model_type not in T5_TYPES:
            raise setting_error("backbone.name", config.name, f"plans are of T5 models, this one is {found.model_type!r}")
        return Shape(name, "its config.json", found, _has_own_head(name, config.revision))
    try:
        found = AutoConfig.from_pretrained(override) if Path(override).exists() else None
    except (OSError, ValueError):
        found = None
    if found is None or found.model_type not in T5_TYPES:
        allowed = f"must be a T5's config.json, a folder with one, or one of {', '.join(KNOWN)}"
        raise setting_error("--shape", override, allowed)
    return Shape(name, "its config.json", found, _has_own_head(override, None))


def _has_own_head(name: str, revision: str | None) -> bool:
    """Read whether the head is untied; a T5's configuration object forgets this when transformers loads it."""
    settings, _ = PretrainedConfig.get_config_dict(name, revision=revision)
    return not settings.get("tie_word_embeddings", True)
