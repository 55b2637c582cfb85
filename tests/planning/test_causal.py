"""The formulas of decoder-only models against real ones: parameters, torch's FLOP counter, what autograd saves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fewshot_material import sentences
from planned_pass import POSITIONS, ROWS, counted_flops, saved_bytes
from tiny_run import save_causal_backbone
from transformers import AutoConfig, AutoModelForCausalLM

from supmer.backbone.load import finish_backbone
from supmer.config import BackboneConfig
from supmer.config.load import validate
from supmer.meta.group import LocalGroup
from supmer.model.causal import PromptedCausal
from supmer.planning import causal
from supmer.planning.dry_run import plan
from supmer.planning.measuring import measure
from supmer.planning.shapes import Pass, Shape

SIZES = {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 700}
GATED = {**SIZES, "intermediate_size": 160, "num_key_value_heads": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": GATED,
    "qwen2": GATED,
    "gemma": {**GATED, "head_dim": 16},
    "gpt2": {"n_embd": 96, "n_layer": 3, "n_head": 4, "vocab_size": 700, "bos_token_id": 0, "eos_token_id": 0},
    "phi": {**SIZES, "intermediate_size": 160},
}
NEAR = {"llama": 0.05, "qwen2": 0.05, "gemma": 0.25, "gpt2": 0.55, "phi": 0.45}
"""How far kept bytes may be off: other norms and activations keep more or less than a Llama's."""


def shape_of(family: str) -> Shape:
    return Shape(family, "test", AutoConfig.for_model(family, **FAMILIES[family]), own_head=False)


def build(family: str, dtype: torch.dtype = torch.float32, *, checkpointing: bool = False) -> PromptedCausal:
    model = AutoModelForCausalLM.from_config(shape_of(family).config, attn_implementation="sdpa").to(dtype)
    settings = BackboneConfig(gradient_checkpointing=checkpointing, dropout=0.0)
    return PromptedCausal(finish_backbone(model, settings)).train()


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_those_of_the_real_model(family: str) -> None:
    found = causal.count_weights(shape_of(family))
    assert (found.total, len(found.blocks)) == (sum(weight.numel() for weight in build(family).parameters()), 3)


@pytest.mark.parametrize(("mixed", "checkpointing"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("family", FAMILIES)
def test_flops_are_those_that_torch_counts(family: str, mixed: bool, checkpointing: bool) -> None:
    counted = counted_flops(build(family, checkpointing=checkpointing), causal.TARGETS, mixed=mixed)
    flops = causal.row_flops(shape_of(family), POSITIONS, Pass(mixed, checkpointing))
    assert ROWS * flops == pytest.approx(counted, rel=0.1 if family == "gpt2" else 0.03)


@pytest.mark.parametrize(("mixed", "checkpointing"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_kept_bytes_are_near_those_that_autograd_saves(
    family: str, dtype: torch.dtype, mixed: bool, checkpointing: bool
) -> None:
    saved = saved_bytes(build(family, dtype, checkpointing=checkpointing), causal.TARGETS, mixed=mixed)
    kept = causal.kept_bytes(shape_of(family), POSITIONS, Pass(mixed, checkpointing, dtype.itemsize))
    assert ROWS * kept == pytest.approx(saved, rel=NEAR[family])


def test_a_meta_step_needs_what_the_plan_says(tmp_path: Path) -> None:
    """As `--dry-run` measures it, without Ray."""
    save_causal_backbone(tmp_path, sentences(300))
    config = validate(
        {
            "backbone": {"name": str(tmp_path), "dropout": 0.0},
            "prompt": {"length": 8},
            "tasks": {"num_support": 4, "num_query": 4, "max_length": 96, "max_option_tokens": 8},
        }
    )
    assert plan(config).flops == pytest.approx(measure(config, torch.device("cpu"), LocalGroup()).flops, rel=0.02)
