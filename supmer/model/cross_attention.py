"""Cross-attention of few decoder positions over long inputs, without projecting every encoder state to keys and values.

With q_h the query of head h and H the encoder states, ``q_h (H K_h)^T = (q_h K_h^T) H^T`` and ``a (H V_h) = (a H) V_h``: the
projections move from S encoder positions to D decoder positions per head. With D = 3 that leaves out a seventh of all
FLOPs of a T5, and the keys and values that a backward pass would keep.
Shapes: B rows, D decoder positions, S encoder positions, h heads, k head width, d model width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from supmer.model.attention_mask import masked


class FewQueryAttention(nn.Module):
    """A T5's cross-attention, its products taken in the order that suits few queries.

    Args:
        attention: the backbone's own module, whose projections `q`, `k`, `v`, `o` are used under the same names.
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = attention.q, attention.k, attention.v, attention.o
        self.num_heads: int = attention.n_heads
        self.dropout = nn.Dropout(attention.dropout)
        self.train(attention.training)

    def forward(
        self, hidden_states: Tensor, mask: Tensor | None, key_value_states: Tensor, **_: Any
    ) -> tuple[Tensor, None, None]:
        """Attend from decoder states [B, D, d] to encoder states [B, S, d].

        Args:
            hidden_states: [B, D, d].
            mask: [B, 1, D, S], True (or 0) where attention is allowed, False (or -inf) where not; None: everywhere.
            key_value_states: [B, S, d].
        """
        queries = self.q(hidden_states).view(*hidden_states.shape[:2], self.num_heads, -1)
        absorbed = torch.einsum("bdhk,hkm->bhdm", queries, self._by_head(self.k))
        scores = torch.einsum("bhdm,bsm->bhds", absorbed, key_value_states)
        weights = self.dropout(masked(scores, mask).softmax(dim=-1))
        seen = torch.einsum("bhds,bsm->bhdm", weights, key_value_states)
        values = torch.einsum("bhdm,hkm->bdhk", seen, self._by_head(self.v))
        return self.o(values.flatten(2)), None, None

    def _by_head(self, projection: Any) -> Tensor:
        """Return the weight of a projection as [h, k, d], with the updates of PEFT's LoRA layers in it."""
        weight = projection.weight
        for name in getattr(projection, "active_adapters", ()):
            weight = weight + projection.get_delta_weight(name).to(weight.dtype)
        by_head: Tensor = weight.view(self.num_heads, -1, projection.in_features)
        return by_head


def use_few_query_attention(backbone: PreTrainedModel) -> None:
    """Replace the cross-attention of each decoder block (once); parameters keep their names and values."""
    decoder: Any = backbone.get_decoder()
    for block in decoder.block:
        layer = block.layer[1]
        if not isinstance(layer.EncDecAttention, FewQueryAttention):
            layer.EncDecAttention = FewQueryAttention(layer.EncDecAttention)
