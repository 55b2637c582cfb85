"""The passes of a meta-step read no number back from the device: on a GPU the processor would wait there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from factories import random_episodes, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode

from supmer.config import MetaConfig, RegularizerConfig
from supmer.meta.objective import meta_gradients
from supmer.meta.passes import PassPlan
from supmer.model.regularizer import GradientRegularizer

META = torch.device("meta")


@pytest.mark.parametrize("lam", [0.7, None], ids=["mixed", "unmixed"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("order", ["first", "second"])
def test_meta_gradients_of_tensors_without_values(attention: str, order: str, lam: float | None) -> None:
    """Any number that is read, and any size that depends on one, raises an error."""
    model = tiny_model()
    model.backbone.set_attn_implementation(attention)
    model.to(META)
    psi = GradientRegularizer(16, RegularizerConfig(rank=4)).to(META)
    prompt, settings = torch.zeros(5, 16, device=META), MetaConfig(order=order, inner_steps=2)
    found = meta_gradients(model, psi, prompt, random_episodes(), lam, 0.1, PassPlan(80), settings=settings)
    assert found.prompt.shape == (5, 16) and found.prompt.device.type == "meta"


class Reads(TorchDispatchMode):
    """Counts the operators that hand a number to Python, or whose result's size depends on one."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal.default")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(name in str(func) for name in self.NAMES):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def test_meta_gradients_of_tensors_with_values() -> None:
    model, psi = tiny_model(), GradientRegularizer(16, RegularizerConfig(rank=4))
    model.backbone.set_attn_implementation("sdpa")
    with Reads() as reads:
        meta_gradients(model, psi, torch.randn(5, 16), random_episodes(), 0.7, 0.1, PassPlan(80))
    assert reads.found == []
