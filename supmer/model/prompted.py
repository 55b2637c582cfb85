"""The frozen backbone under soft prompts: one module whose forward is the whole computation.

Shapes: T tasks, L prompt length, d model width, B rows, S encoder positions without the prompt, D decoder positions,
V vocabulary. Sharding (FSDP2) allows parameters to be touched only inside the root's own forward, so embedding lookup,
prompts, encoder, mixing, decoder and head all live in it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from supmer.backbone.load import load_backbone
from supmer.config import Config, PromptConfig
from supmer.errors import UserError
from supmer.model.cross_attention import use_few_query_attention
from supmer.model.position_bias import share_position_bias
from supmer.model.rows import Rows
from supmer.tasks.episode import NO_CENTROID

Pooling = Literal["masked", "all"]


class PassOutput(NamedTuple):
    """What a forward pass returns; a tuple, so that sharding's hooks find the tensors in it.

    `logits` [B, D, V] float32 at the decoder positions; `hidden_sum` [B, d] float32 and `hidden_count` [B]: sum and number
    of the encoder's last hidden states that the gate's pooled state averages (no gradient).
    """

    logits: Tensor
    hidden_sum: Tensor
    hidden_count: Tensor


class Mixing(NamedTuple):
    """Augmentation rows [B, S] and weights `lam` [B] of the query rows they are mixed with (section 5)."""

    augmentation: Rows
    lam: Tensor

    def to(self, device: torch.device) -> Mixing:
        """Copy all tensors to a device."""
        return Mixing(self.augmentation.to(device), self.lam.to(device))


class PromptedSeq2Seq(nn.Module):
    """A frozen T5-family model, to whose encoder input every row prepends the prompt of its task.

    Args:
        backbone: the frozen model; its cross-attention is replaced by an equal one that is cheaper for short targets, and
            its encoder blocks share one masked position bias.
        centroids: cluster centroids [K, d], input embeddings of `scc` rows; None where no row uses them.
        pooling: positions that the pooled encoder state averages: real ones (prompt and text), or `all` with padding.
    """

    centroids: Tensor

    def __init__(self, backbone: PreTrainedModel, centroids: Tensor | None = None, pooling: Pooling = "masked") -> None:
        super().__init__()
        use_few_query_attention(backbone)
        share_position_bias(backbone)
        self.backbone = backbone
        self.pooling = pooling
        width = backbone.config.d_model
        self.register_buffer("centroids", torch.zeros(1, width, device=backbone.device), persistent=False)
        if centroids is not None:
            self.set_centroids(centroids)

    def set_centroids(self, centroids: Tensor) -> None:
        """Replace the centroids [K, d]; UserError if their width is not the backbone's."""
        width = self.backbone.config.d_model
        if centroids.shape[1] != width:
            name = self.backbone.name_or_path
            raise UserError(f"backbone.name={name}: width {width} differs from the store's {centroids.shape[1]}")
        self.centroids = centroids

    @property
    def device(self) -> torch.device:
        """Device of the computation."""
        return self.centroids.device

    def forward(self, prompts: Tensor, rows: Rows, mixing: Mixing | None = None) -> PassOutput:
        """Score `rows` under `prompts[rows.task_index]`.

        Args:
            prompts: [T, L, d], one prompt a task.
            rows: B rows.
            mixing: augmentation rows of the same shape; the encoder states of both are mixed row by row before decoding.
        """
        row_prompts = prompts[rows.task_index]
        if mixing is None:
            hidden, mask = self._encode(row_prompts, rows)
        else:
            hidden, mask = self._encode_mixed(row_prompts, rows, mixing)
        logits = self._decode(hidden, mask, rows.labels)
        return PassOutput(logits, *self._pool(hidden.detach(), mask))

    def _encode(self, row_prompts: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        embedded = self.backbone.get_input_embeddings()(rows.input_ids)
        is_centroid = rows.centroid_ids != NO_CENTROID
        centroids = self.centroids.to(embedded.dtype)[rows.centroid_ids.clamp(min=0)]
        embedded = torch.where(is_centroid.unsqueeze(-1), centroids, embedded)
        inputs = torch.cat([row_prompts.to(embedded.dtype), embedded], dim=1)
        mask = torch.cat([rows.attention_mask.new_ones(row_prompts.shape[:2]), rows.attention_mask], dim=1)
        hidden = self.backbone.get_encoder()(inputs_embeds=inputs, attention_mask=mask).last_hidden_state
        return hidden, mask

    def _encode_mixed(self, row_prompts: Tensor, rows: Rows, mixing: Mixing) -> tuple[Tensor, Tensor]:
        both = Rows(*(torch.cat(pair) for pair in zip(rows, mixing.augmentation, strict=True)))
        hidden, mask = self._encode(torch.cat([row_prompts, row_prompts]), both)
        hidden_query, hidden_augmentation = hidden.chunk(2)
        mask_query, mask_augmentation = mask.chunk(2)
        lam = mixing.lam.to(hidden.dtype).view(-1, 1, 1)
        return lam * hidden_query + (1 - lam) * hidden_augmentation, mask_query | mask_augmentation

    def _decode(self, hidden: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        decoder_input_ids = self.backbone.prepare_decoder_input_ids_from_labels(labels)
        output = self.backbone(
            encoder_outputs=BaseModelOutput(last_hidden_state=hidden),
            attention_mask=mask,
            decoder_input_ids=decoder_input_ids,
        )
        logits: Tensor = output.logits
        return _at_least_float32(logits)

    def _pool(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        if self.pooling == "all":
            mask = torch.ones_like(mask)
        hidden_sum = (_at_least_float32(hidden) * mask.unsqueeze(-1)).sum(dim=1)
        return hidden_sum, mask.sum(dim=1)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def build_model(config: Config, centroids: np.ndarray | None = None) -> PromptedSeq2Seq:
    """Load the backbone of a configuration and wrap it; `centroids` [K, d] come from the task store."""
    backbone = load_backbone(config.backbone)
    tensor = None if centroids is None else torch.from_numpy(np.ascontiguousarray(centroids, dtype=np.float32))
    return PromptedSeq2Seq(backbone, tensor, config.meta.pooling)


def initial_prompt(config: PromptConfig, model: PromptedSeq2Seq, seed: int) -> Tensor:
    """Return the prompt before training [L, d], fp32: embeddings of random vocabulary entries, or normal noise.

    With a sharded model all ranks must call it together.
    """
    generator = torch.Generator().manual_seed(seed)
    table = model.backbone.get_input_embeddings().weight.detach()
    if isinstance(table, DTensor):
        table = table.full_tensor()
    if config.init == "normal":
        return torch.randn(config.length, table.shape[1], generator=generator) * config.init_std
    chosen = torch.randint(table.shape[0], (config.length,), generator=generator)
    prompt: Tensor = table[chosen.to(table.device)].float().cpu()
    return prompt
