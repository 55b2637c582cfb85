"""Prefix tuning (Li and Liang 2021) by PEFT: keys and values before those of the decoder's self-attention, by layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache

from supmer.fewshot.parts import method_of
from supmer.model.prompted import PromptedModel


@contextmanager
def inserted(model: PromptedModel, length: int, seed: int) -> Iterator[dict[str, Tensor]]:
    """Let the decoder attend to so many trained positions, as if it had read them before the row.

    Shapes: P prefix positions, n layers, h heads of keys and values, k head width.
    """
    from peft import PrefixEncoder, PrefixTuningConfig  # here: PEFT takes seconds to import

    config = model.backbone.config
    is_pair = config.is_encoder_decoder
    num_layers = config.num_decoder_layers if is_pair else config.num_hidden_layers
    num_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_width = getattr(config, "d_kv", None) or getattr(config, "head_dim", None)
    head_width = head_width or config.hidden_size // config.num_attention_heads
    settings = PrefixTuningConfig(
        num_virtual_tokens=length, token_dim=num_heads * head_width, num_layers=num_layers, prefix_projection=False
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = PrefixEncoder(settings).to(model.device)

    def prefix(num_rows: int) -> DynamicCache:
        weight = encoder.embedding.weight.to(model.backbone.dtype)
        states = weight.view(length, num_layers, 2, num_heads, head_width).permute(1, 2, 3, 0, 4)  # [n, 2, h, P, k]
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(states):
            cache.update(*(side.expand(num_rows, -1, -1, -1) for side in (keys, values)), layer)
        return cache

    def read_prefix(_: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if is_pair:
            cache = EncoderDecoderCache(prefix(len(options["encoder_hidden_states"])), DynamicCache())
            return arguments, {**options, "past_key_values": cache}
        mask = options["attention_mask"]
        seen = {"attention_mask": torch.cat([mask.new_ones(len(mask), length), mask], dim=1)}
        if options.get("position_ids") is not None:
            seen["position_ids"] = options["position_ids"] + length
        return arguments, {**options, **seen, "past_key_values": prefix(len(mask)), "use_cache": True}

    reader = model.backbone.get_decoder() if is_pair else model.backbone.base_model
    handle = reader.register_forward_pre_hook(read_prefix, with_kwargs=True)
    try:
        yield {"prefix": encoder.embedding.weight}
    finally:
        handle.remove()


METHOD = method_of(
    inserted, rate=1e-2, size=lambda settings: settings.prefix_length, size_of=lambda tensors: len(tensors["prefix"])
)
