"""LoRA (Hu et al. 2022) by PEFT: low-rank updates of the query and value projections of every attention."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from supmer.errors import setting_error
from supmer.fewshot.parts import method_of
from supmer.model.prompted import PromptedModel

TARGETS = (("q", "v"), ("q_proj", "v_proj"), ("qkv_proj",), ("c_attn",), ("query_key_value",))
"""Names of the projections in the families of backbones."""


@contextmanager
def inserted(model: PromptedModel, rank: int, seed: int) -> Iterator[dict[str, Tensor]]:
    """Put LoRA layers of a rank into the backbone, which at first compute nothing; scaled by alpha / rank = 2."""
    from peft import LoraConfig, LoraModel  # here: PEFT takes seconds to import

    layers = {name.rsplit(".", 1)[-1]: layer for name, layer in model.backbone.named_modules()}
    targets = next((names for names in TARGETS if layers.keys() >= set(names)), None)
    if targets is None:
        raise setting_error("fewshot.methods", "lora", "the attention of backbone.name has no projections of known names")
    transposed = isinstance(layers[targets[0]], Conv1D)
    settings = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(targets), fan_in_fan_out=transposed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        updated = LoraModel(model.backbone, settings, "default").to(model.device)
    try:
        yield {name: parameter for name, parameter in model.backbone.named_parameters() if "lora_" in name}
    finally:
        updated.unload()
        model.backbone.requires_grad_(False)


METHOD = method_of(
    inserted,
    rate=1e-3,
    size=lambda settings: settings.lora_rank,
    size_of=lambda tensors: next((len(tensor) for name, tensor in tensors.items() if ".lora_A." in name), 1),
)
