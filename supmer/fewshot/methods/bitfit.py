"""BitFit (Ben Zaken et al. 2022): the biases of the linear layers, added at 0 where the backbone has none, as in a T5."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from supmer.fewshot.parts import method_of
from supmer.model.cross_attention import FewQueryAttention
from supmer.model.prompted import PromptedModel


@contextmanager
def inserted(model: PromptedModel, _: int, seed: int) -> Iterator[dict[str, Tensor]]:
    """Let each linear layer but the LM head add a vector to what it gives, which is 0 at first.

    A key's bias adds the same to all scores of a query, and a value's bias adds a constant before the output projection,
    whose own bias can do the same: where T5's cross-attention uses these weights without calling the layers, no bias is
    missed.
    """
    head = model.backbone.get_output_embeddings()
    uncalled = {
        id(layer)
        for attention in model.backbone.modules()
        if isinstance(attention, FewQueryAttention)
        for layer in (attention.k, attention.v)
    }
    biases: dict[str, Tensor] = {}
    handles = []
    for name, layer in model.backbone.named_modules():
        if not isinstance(layer, nn.Linear | Conv1D) or layer is head or id(layer) in uncalled:
            continue
        width = layer.nf if isinstance(layer, Conv1D) else layer.out_features
        bias = nn.Parameter(torch.zeros(width, device=model.device))
        biases[f"{name}.bias"] = bias

        def add(_: nn.Module, __: Any, output: Tensor, bias: Tensor = bias) -> Tensor:
            return output + bias.to(output.dtype)

        handles.append(layer.register_forward_hook(add))
    try:
        yield biases
    finally:
        for handle in handles:
            handle.remove()


METHOD = method_of(inserted, rate=1e-2)
