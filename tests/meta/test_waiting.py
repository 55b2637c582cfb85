"""The passes of a meta-step read no number back from the device: on a GPU the processor would wait there."""

from __future__ import annotations

import pytest
import torch
from device_reads import Reads
from factories import NUM_CENTROIDS, VOCABULARY, random_episodes, tiny_model
from transformers import AutoModelForCausalLM, MistralConfig

from supmer.config import MetaConfig, RegularizerConfig
from supmer.meta.objective import meta_gradients
from supmer.meta.passes import PassPlan
from supmer.model.causal import PromptedCausal
from supmer.model.regularizer import GradientRegularizer

META = torch.device("meta")


def tiny_causal(window: int | None, attention: str = "sdpa") -> PromptedCausal:
    """Return a decoder-only model that sees `window` positions back, or all."""
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = MistralConfig(vocab_size=VOCABULARY, num_key_value_heads=2, sliding_window=window, use_cache=False, **sizes)
    backbone = AutoModelForCausalLM.from_config(config, attn_implementation=attention).requires_grad_(False)
    return PromptedCausal(backbone, torch.randn(NUM_CENTROIDS, 16))


@pytest.mark.parametrize("lam", [0.7, None], ids=["mixed", "unmixed"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("order", ["first", "second"])
def test_meta_gradients_of_tensors_without_values(attention: str, order: str, lam: float | None) -> None:
    """Any number that is read, and any size that depends on one, raises an error."""
    model = tiny_model(attention=attention).to(META)
    psi = GradientRegularizer(16, RegularizerConfig(rank=4)).to(META)
    prompt, settings = torch.zeros(5, 16, device=META), MetaConfig(order=order, inner_steps=2)
    found = meta_gradients(model, psi, prompt, random_episodes(), lam, 0.1, PassPlan(80), settings=settings)
    assert found.prompt.shape == (5, 16) and found.prompt.device.type == "meta"


@pytest.mark.parametrize(("attention", "window"), [("eager", None), ("sdpa", None), ("sdpa", 4)])
def test_meta_gradients_of_a_decoder_only_model_without_values(attention: str, window: int | None) -> None:
    model, psi = tiny_causal(window, attention).to(META), GradientRegularizer(16, RegularizerConfig(rank=4)).to(META)
    found = meta_gradients(model, psi, torch.zeros(5, 16, device=META), random_episodes(), 0.7, 0.1, PassPlan(80))
    assert found.prompt.device.type == "meta"


@pytest.mark.parametrize("kind", ["T5", "causal"])
def test_meta_gradients_of_tensors_with_values(kind: str) -> None:
    model = tiny_model(attention="sdpa") if kind == "T5" else tiny_causal(None)
    psi = GradientRegularizer(16, RegularizerConfig(rank=4))
    with Reads() as reads:
        meta_gradients(model, psi, torch.randn(5, 16), random_episodes(), 0.7, 0.1, PassPlan(80))
    assert reads.found == []
