"""Shapes of backbones: known ones by name, so that planning needs neither weights nor a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM, PreTrainedModel, T5Config

from supmer.backbone.load import finish_backbone, load_model_config
from supmer.config import BackboneConfig, WarmupConfig
from supmer.errors import UserError

VOCABULARY = 32_128
NUM_SENTINELS = 100


class Shape(NamedTuple):
    """A backbone's configuration, whether its output head has weights of its own, and where this was read."""

    name: str
    config: Any
    has_own_head: bool
    source: str


def resolve_shape(config: BackboneConfig, override: str | None = None) -> Shape:
    """Return the shape of the configured backbone.

    A local folder is asked first, then the presets, then the hub.

    Args:
        config: which backbone, and its dropout.
        override: name of a preset, a `config.json` or a folder with one, used in place of `config.location`.

    Raises:
        UserError: nothing of this name is known.
    """
    name = override or config.location
    if override is None and config.name == "warmup":
        return Shape(name, _warmup_config(config.warmup, config.dropout), False, "backbone.warmup")
    path = Path(name)
    if path.exists():
        return _read(path if path.is_file() else path / "config.json", config.dropout)
    if name in PRESETS:
        settings = PRESETS[name]
        return Shape(name, _t5_config(settings, config.dropout), settings["feed_forward_proj"] != "relu", "preset")
    if override is not None:
        raise UserError(f"--shape {override}: must be a config.json, a folder with one, or one of {', '.join(PRESETS)}")
    model_config = load_model_config(config)
    return Shape(name, model_config, not model_config.tie_word_embeddings, "hub")


def build_on_meta(shape: Shape, config: BackboneConfig, depth: int | None = None) -> PreTrainedModel:
    """Build the frozen backbone without memory for weights, cut to `depth` layers in encoder and decoder each."""
    model_config = type(shape.config).from_dict(shape.config.to_dict())
    if depth is not None:
        model_config.num_layers = model_config.num_decoder_layers = depth
    with torch.device("meta"):
        model = AutoModelForSeq2SeqLM.from_config(
            model_config, dtype=getattr(torch, config.dtype), attn_implementation=config.attention
        )
        if shape.has_own_head:
            model.lm_head.weight = nn.Parameter(torch.empty_like(model.lm_head.weight))
    return finish_backbone(model, config)


def _preset(width: int, feed_forward: int, layers: int, heads: int, activation: str = "gated-gelu") -> dict[str, Any]:
    return {
        "d_model": width,
        "d_ff": feed_forward,
        "d_kv": 64,
        "num_layers": layers,
        "num_heads": heads,
        "vocab_size": VOCABULARY,
        "feed_forward_proj": activation,
    }


_VERSION_1_1 = {
    "small": _preset(512, 1024, 8, 6),
    "base": _preset(768, 2048, 12, 12),
    "large": _preset(1024, 2816, 24, 16),
    "xl": _preset(2048, 5120, 24, 32),
    "xxl": _preset(4096, 10240, 24, 64),
}

PRESETS: dict[str, dict[str, Any]] = {
    **{f"google/flan-t5-{size}": shape for size, shape in _VERSION_1_1.items()},
    **{f"google/t5-v1_1-{size}": shape for size, shape in _VERSION_1_1.items()},
    **{f"google/t5-{size}-lm-adapt": shape for size, shape in _VERSION_1_1.items()},
    "google-t5/t5-small": _preset(512, 2048, 6, 8, "relu"),
    "google-t5/t5-base": _preset(768, 3072, 12, 12, "relu"),
    "google-t5/t5-large": _preset(1024, 4096, 24, 16, "relu"),
}
"""Settings of known hub models. Those with a gated feed-forward layer have a head of their own, the first T5 had not."""


def _t5_config(settings: dict[str, Any], dropout: float) -> T5Config:
    return T5Config(**settings, dropout_rate=dropout, decoder_start_token_id=0)


def _warmup_config(warmup: WarmupConfig, dropout: float) -> T5Config:
    return T5Config(
        vocab_size=warmup.vocab_size + NUM_SENTINELS,
        d_model=warmup.d_model,
        d_kv=max(8, warmup.d_model // warmup.num_heads),
        d_ff=warmup.d_ff,
        num_layers=warmup.num_layers,
        num_decoder_layers=warmup.num_decoder_layers or warmup.num_layers,
        num_heads=warmup.num_heads,
        feed_forward_proj="gated-gelu",
        dropout_rate=dropout,
        decoder_start_token_id=0,
    )


def _read(path: Path, dropout: float) -> Shape:
    try:
        settings = json.loads(path.read_text())
        model_config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as a model's config.json ({error})") from error
    if model_config.model_type not in ("t5", "mt5"):
        raise UserError(f"{path}: must describe a T5-family model, this one is {model_config.model_type!r}")
    model_config.dropout_rate = dropout
    # transformers itself forgets this value of T5 when it loads a configuration.
    return Shape(str(path), model_config, not settings.get("tie_word_embeddings", True), "file")
