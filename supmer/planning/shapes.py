"""Shapes of backbones, from a name or a `config.json`: planning needs no weights and, for known names, no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from transformers import AutoConfig, PretrainedConfig, T5Config

from supmer.backbone.kinds import T5_TYPES, check_kind
from supmer.backbone.load import load_model_config
from supmer.config import BackboneConfig
from supmer.errors import UserError, setting_error

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

FUSED_BACKWARD = 2.5
"""Fused attention computes 2 matrix products forward and 5 backward, the scores again among them (arXiv 2205.14135)."""


class Shape(NamedTuple):
    """A backbone's name, where its shape was read, transformers' configuration, and whether its head has own weights."""

    name: str
    source: str
    config: Any
    own_head: bool


class Weights(NamedTuple):
    """Numbers of parameters: of all outside the blocks (embeddings, head, last norms), and of each block."""

    root: int
    blocks: tuple[int, ...]

    @property
    def total(self) -> int:
        """All parameters."""
        return self.root + sum(self.blocks)


class Pass(NamedTuple):
    """What the memory and the FLOPs of a row depend on besides the backbone.

    Attributes:
        mixed: the row is read twice, once as its augmentation.
        checkpointing: blocks keep their input only, and run forward a second time in the backward pass (arXiv 1604.06174).
        element: bytes of an element, 4 in float32 and 2 in bfloat16.
        dropout: dropout layers are on.
    """

    mixed: bool
    checkpointing: bool
    element: int = 4
    dropout: bool = False


def resolve_shape(config: BackboneConfig, override: str | None = None) -> Shape:
    """Return the shape of the configured backbone: of a local folder, a known name, or the hub's `config.json`.

    Args:
        config: which backbone.
        override: a known name, a `config.json` or a folder with one, in place of the configured backbone.

    Raises:
        UserError: nothing of this name is known, or it is a model that has no plan.
    """
    name = override or config.location
    if name in KNOWN and not Path(name).exists():
        width, feed_forward, layers, heads = KNOWN[name]
        is_first = name.startswith("google-t5/")
        kind = "relu" if is_first else "gated-gelu"
        sizes = {"d_model": width, "d_ff": feed_forward, "num_layers": layers, "num_heads": heads, "feed_forward_proj": kind}
        return Shape(name, "a known name", T5Config(**sizes), own_head=not is_first)
    try:
        found = AutoConfig.from_pretrained(override) if override else load_model_config(config)
        check_kind(name, found)
    except (OSError, ValueError, UserError) as error:
        if override is None:
            raise
        allowed = f"must be a model's config.json, a folder with one, or one of {', '.join(KNOWN)}"
        raise setting_error("--shape", override, allowed) from error
    if not found.is_encoder_decoder:
        return Shape(name, "its config.json", found, own_head=not found.tie_word_embeddings)
    if found.model_type not in T5_TYPES:
        problem = f"plans are of T5, mT5 and decoder-only models, this one is {found.model_type!r}"
        raise setting_error("--shape" if override else "backbone.name", name, problem)
    # A T5's configuration object forgets whether the head is tied when transformers loads it.
    settings, _ = PretrainedConfig.get_config_dict(name, revision=None if override else config.revision)
    return Shape(name, "its config.json", found, own_head=not settings.get("tie_word_embeddings", True))
