"""A T5 under soft prompts (METHOD sections 3 and 5): the prompt stands before the encoder's input.

Shapes: B rows, L prompt length, S positions of text, D label positions, d model width.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from supmer.backbone.batches import at_least_float32
from supmer.backbone.kinds import T5_TYPES
from supmer.model.cross_attention import use_few_query_attention
from supmer.model.position_bias import share_position_bias
from supmer.model.prompted import Mixing, PassOutput, Pooling, PromptedModel, both_sides
from supmer.model.rows import Rows


class PromptedSeq2Seq(PromptedModel):
    """A frozen T5-family model. The states of the encoder are mixed; the gate's pooled state averages them.

    A T5's cross-attention is replaced by an equal one that is cheaper for short targets, and its encoder blocks share one
    masked position bias. umT5 (whose blocks have biases of their own) and LongT5 are left as they are.
    """

    outer_positions: ClassVar[int] = 2  # `<X>` and the label

    def __init__(self, backbone: PreTrainedModel, centroids: Tensor | None = None, pooling: Pooling = "masked") -> None:
        is_t5 = backbone.config.model_type in T5_TYPES
        if is_t5:
            use_few_query_attention(backbone)
            share_position_bias(backbone)
        super().__init__(backbone, centroids, pooling)
        self.takes_whole_masks = is_t5

    def forward(
        self, prompts: Tensor, rows: Rows, mixing: Mixing | None = None, prompt_mask: Tensor | None = None
    ) -> PassOutput:
        row_prompts = prompts[rows.task_index]
        if mixing is None:
            hidden, mask = self._encode(row_prompts, rows, prompt_mask)
            is_padded = rows.is_padded or prompt_mask is not None
        else:
            hidden, mask = self._encode_mixed(row_prompts, rows, mixing)
            is_padded = rows.is_padded or mixing.augmentation.is_padded
        logits = self._decode(hidden, self.allowed(mask, is_padded), rows.labels)
        return PassOutput(logits, *self.pool(hidden.detach(), mask))

    def _encode(self, row_prompts: Tensor, rows: Rows, prompt_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        inputs, mask = self.embed(row_prompts, rows, prompt_mask)
        allowed = self.allowed(mask, rows.is_padded or prompt_mask is not None)
        hidden = self.backbone.get_encoder()(inputs_embeds=inputs, attention_mask=allowed).last_hidden_state
        return hidden, mask

    def _encode_mixed(self, row_prompts: Tensor, rows: Rows, mixing: Mixing) -> tuple[Tensor, Tensor]:
        hidden, mask = self._encode(torch.cat([row_prompts, row_prompts]), both_sides(rows, mixing))
        hidden_query, hidden_augmentation = hidden.chunk(2)
        mask_query, mask_augmentation = mask.chunk(2)
        lam = mixing.lam.to(hidden.dtype).view(-1, 1, 1)
        return lam * hidden_query + (1 - lam) * hidden_augmentation, mask_query | mask_augmentation

    def allowed(self, mask: Tensor, is_padded: bool) -> Tensor | None:
        """Return where attention is allowed [B, 1, 1, S] (None: everywhere).

        Of a mask [B, S] transformers would look whether it has a zero, and so wait for the GPU.
        """
        if not self.takes_whole_masks:
            return mask
        return mask[:, None, None, :].bool() if is_padded else None

    def _decode(self, hidden: Tensor, mask: Tensor | None, labels: Tensor) -> Tensor:
        decoder_input_ids = self.backbone.prepare_decoder_input_ids_from_labels(labels)
        output = self.backbone(
            encoder_outputs=BaseModelOutput(last_hidden_state=hidden),
            attention_mask=mask,
            decoder_input_ids=decoder_input_ids,
        )
        logits: Tensor = output.logits
        return at_least_float32(logits)
