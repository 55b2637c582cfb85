"""Cross-attention for few queries against the backbone's own."""

from __future__ import annotations

import pytest
import torch
from factories import VOCABULARY, WIDTH, tiny_backbone
from transformers.modeling_outputs import BaseModelOutput

from supmer.model.cross_attention import FewQueryAttention, use_few_query_attention


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_logits_and_gradients_equal_those_of_the_own_attention(attention: str) -> None:
    torch.manual_seed(0)
    states = torch.randn(3, 9, WIDTH)
    mask = torch.tensor([[1] * 9, [1] * 4 + [0] * 5, [0] * 2 + [1] * 7])
    decoder_input_ids = torch.randint(2, VOCABULARY, (3, 3))
    found = []
    for replaced in (False, True):
        backbone = tiny_backbone(attention=attention)
        names = list(backbone.state_dict())
        if replaced:
            use_few_query_attention(backbone)
            use_few_query_attention(backbone)
            assert list(backbone.state_dict()) == names
            assert isinstance(backbone.decoder.block[1].layer[1].EncDecAttention, FewQueryAttention)
        leaf = states.clone().requires_grad_()
        encoded = BaseModelOutput(last_hidden_state=leaf)
        logits = backbone(encoder_outputs=encoded, attention_mask=mask, decoder_input_ids=decoder_input_ids).logits
        found.append((logits, torch.autograd.grad(logits.square().sum(), leaf)[0]))
    for own, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, own, rtol=1e-4, atol=1e-5)


def test_no_keys_and_values_wait_for_the_backward_pass() -> None:
    """Of what has the encoder's length, only its states and the attention weights of each block are kept."""
    backbone = tiny_backbone()
    use_few_query_attention(backbone)
    states = torch.randn(2, 50, WIDTH, requires_grad=True)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if 50 in tensor.shape:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes() // tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        backbone.decoder(input_ids=torch.ones(2, 3, dtype=torch.long), encoder_hidden_states=states)
    weights = 2 * 4 * 3 * 50
    assert states.numel() <= sum(kept.values()) <= states.numel() + len(backbone.decoder.block) * weights
