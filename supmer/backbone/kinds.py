"""The kinds of backbones: T5-family encoder-decoders, and the decoder-only models of `AutoModelForCausalLM`."""

from __future__ import annotations

from typing import Any

from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
)

from supmer.errors import setting_error

T5_TYPES = ("t5", "mt5")
ENCODER_DECODERS = (*T5_TYPES, "umt5", "longt5")
NO_SENTINELS = (
    *("bart", "mbart", "plbart", "pegasus", "marian", "mvp", "prophetnet", "m2m_100"),
    *("blenderbot", "blenderbot-small"),
)
SIZES = ("d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads", "vocab_size")
CAUSAL_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
DROPOUTS = ("dropout_rate", "attention_dropout", "hidden_dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop")
"""Names that families give to their rates of dropout."""


def model_class(model_config: Any) -> Any:
    """Return transformers' class of models of a configuration's kind."""
    return AutoModelForSeq2SeqLM if model_config.is_encoder_decoder else AutoModelForCausalLM


def block_names(model: Any) -> list[str]:
    """Return the class names of a model's blocks, as transformers names them for sharding; none for some old families."""
    return sorted(model._no_split_modules or ())


def check_kind(name: str, model_config: Any) -> None:
    """Check that a configuration is one of a model that a prompt can stand before, and its sizes.

    Raises:
        UserError: it is not; `name` is the backbone's.
    """
    kind = type(model_config)
    # Encoders like BERT's have a causal class too.
    is_causal = kind in MODEL_FOR_CAUSAL_LM_MAPPING and kind not in MODEL_FOR_MASKED_LM_MAPPING
    is_decoder_only = is_causal and not model_config.is_encoder_decoder
    if model_config.model_type not in ENCODER_DECODERS and not (
        is_decoder_only and block_names(MODEL_FOR_CAUSAL_LM_MAPPING[kind])
    ):
        why = " (which has no sentinels to ask for a label by)" if model_config.model_type in NO_SENTINELS else ""
        allowed = f"must be a T5-family or a decoder-only language model, this one is {model_config.model_type!r}{why}"
        raise setting_error("backbone.name", name, allowed)
    sizes = SIZES if model_config.is_encoder_decoder else CAUSAL_SIZES
    small = next((f"{size}={getattr(model_config, size)}" for size in sizes if getattr(model_config, size) < 1), None)
    if small:
        raise setting_error("backbone.name", name, f"config.json has {small}: must be at least 1")
    if not model_config.is_encoder_decoder:
        return
    start = getattr(model_config, "decoder_start_token_id", None)
    if start is None:
        raise setting_error("backbone.name", name, "config.json has no decoder_start_token_id (0 for a T5)")
    if not isinstance(start, int) or not 0 <= start < model_config.vocab_size:
        allowed = f"must be a token id below vocab_size={model_config.vocab_size}"
        raise setting_error("backbone.name", name, f"config.json has decoder_start_token_id={start}: {allowed}")
