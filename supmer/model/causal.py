"""A decoder-only language model under soft prompts (METHOD section 10): it reads ``P ++ text`` and says the label next.

Shapes: B rows, L prompt length, S positions of text, D label positions, d model width, V vocabulary.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from supmer.backbone.batches import at_least_float32
from supmer.errors import setting_error
from supmer.model.attention_mask import use_attention_that_does_not_wait, whole_mask
from supmer.model.prompted import Mixing, PassOutput, Pooling, PromptedModel, both_sides
from supmer.model.rows import IGNORED_LABEL, Rows, collate
from supmer.tasks.episode import NO_CENTROID, Example

MAX_ERROR = 0.02
"""Relative difference of logits that rounding may make, in bfloat16 too."""


class PromptedCausal(PromptedModel):
    """A frozen decoder-only model. The states at the answer position are mixed, the last that both rows have in common.

    Rows are padded at their right: a causal mask never lets a real token see the padding, so no other mask is needed. The
    gate's pooled state averages the last hidden states of prompt and text.
    """

    outer_positions: ClassVar[int] = 1  # the label's first token

    def __init__(self, backbone: PreTrainedModel, centroids: Tensor | None = None, pooling: Pooling = "masked") -> None:
        use_attention_that_does_not_wait(backbone)
        super().__init__(backbone, centroids, pooling)

    def forward(
        self, prompts: Tensor, rows: Rows, mixing: Mixing | None = None, prompt_mask: Tensor | None = None
    ) -> PassOutput:
        row_prompts = prompts[rows.task_index]
        if mixing is None:
            states, hidden_sum, hidden_count = self._read(row_prompts, rows, prompt_mask)
        else:
            assert rows.labels.shape[1] == 1, "only states at the first label position are mixed"
            both, sums, counts = self._read(torch.cat([row_prompts, row_prompts]), both_sides(rows, mixing))
            lam = mixing.lam.to(both.dtype).view(-1, 1, 1)
            query, augmentation = both.chunk(2)
            states = lam * query + (1 - lam) * augmentation
            hidden_sum, hidden_count = sums.chunk(2)[0], counts.chunk(2)[0]
        return PassOutput(self._head(states), hidden_sum, hidden_count)

    def _read(self, row_prompts: Tensor, rows: Rows, prompt_mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the last states [B, D, d] from which the label tokens are said, and the pooled sum and count."""
        prompt_length, text_length = row_prompts.shape[1], rows.input_ids.shape[1]
        inputs, mask = self.embed(row_prompts, with_label_tokens(rows), prompt_mask)
        places = {} if prompt_mask is None else {"position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0)}
        # Pooling over all positions also averages states of the padding, which the mask makes what they are.
        needs_mask = prompt_mask is not None or self.pooling == "all"
        seen = mask if needs_mask else whole_mask(mask)
        hidden = self.backbone.base_model(inputs_embeds=inputs, attention_mask=seen, **places).last_hidden_state
        positions = torch.arange(rows.labels.shape[1], device=mask.device)
        answer = prompt_length + rows.attention_mask.sum(dim=1, keepdim=True) - 1 + positions
        states = hidden.gather(1, answer.unsqueeze(-1).expand(-1, -1, hidden.shape[2]))
        pooled = hidden[:, : prompt_length + text_length].detach()
        is_text = torch.cat([mask[:, :prompt_length], rows.attention_mask], dim=1)
        return states, *self.pool(pooled, is_text)

    def _head(self, states: Tensor) -> Tensor:
        config = self.backbone.config
        logits = at_least_float32(self.backbone.get_output_embeddings()(states))
        logits = logits * (getattr(config, "logit_scale", None) or 1)  # Cohere
        logits = logits / (getattr(config, "logits_scaling", None) or 1)  # Granite
        cap = getattr(config, "final_logit_softcapping", None)  # Gemma
        return logits if cap is None else cap * torch.tanh(logits / cap)


@torch.no_grad()
def check_logits(model: PromptedCausal) -> None:
    """Check on one row without a prompt that logits are those of the backbone's own forward; it must have its weights.

    Raises:
        UserError: the backbone does more between its tokens and its logits than this module knows.
    """
    tokens = np.arange(2, dtype=np.int32)
    row = Example(tokens, np.full_like(tokens, NO_CENTROID), tokens[:1], label=0)
    found = model(torch.empty(1, 0, model.width, device=model.device), collate([row], [0]).to(model.device)).logits[0, 0]
    ids = torch.from_numpy(tokens).long().to(model.device).unsqueeze(0)
    expected = at_least_float32(model.backbone(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -1])
    error = float((found - expected).norm() / expected.norm())
    if error > MAX_ERROR:
        problem = f"logits of a {model.backbone.config.model_type} model are not those of its output layer"
        raise setting_error("backbone.name", model.backbone.name_or_path, f"{problem} (off by {error:.0%})")


def with_label_tokens(rows: Rows) -> Rows:
    """Return rows [B, S + D - 1] with all tokens of their labels but the last after the text, as the model reads them."""
    num_rows, num_labels = rows.labels.shape
    if num_labels == 1:
        return rows
    longer = rows.input_ids.new_zeros(num_rows, num_labels - 1)
    input_ids = torch.cat([rows.input_ids, longer], dim=1)
    mask = torch.cat([rows.attention_mask, longer], dim=1)
    centroids = torch.cat([rows.centroid_ids, longer + NO_CENTROID], dim=1)
    places = rows.attention_mask.sum(dim=1, keepdim=True) + torch.arange(num_labels - 1, device=mask.device)
    given = rows.labels[:, :-1]
    input_ids = input_ids.scatter(1, places, given.clamp(min=0))
    mask = mask.scatter(1, places, (given != IGNORED_LABEL).to(mask.dtype))
    return rows._replace(input_ids=input_ids, attention_mask=mask, centroid_ids=centroids)
