"""A frozen backbone under soft prompts: one module whose forward is the whole computation.

Shapes: T tasks, L prompt length, d model width, B rows, S positions of text, D label positions, V vocabulary. Sharding
(FSDP2) allows parameters to be touched only inside the root's own forward, so embedding lookup, prompts, blocks, mixing
and head all live in it. `supmer.model.seq2seq` and `supmer.model.causal` hold the two kinds of backbones.
"""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from supmer.backbone.batches import masked_sum
from supmer.config import PromptConfig
from supmer.errors import setting_error
from supmer.model.rows import Rows, send
from supmer.tasks.episode import NO_CENTROID

Pooling = Literal["masked", "all"]


class PassOutput(NamedTuple):
    """What a forward pass returns; a tuple, so that sharding's hooks find the tensors in it.

    `logits` [B, D, V] float32 at the label positions; `hidden_sum` [B, d] float32 and `hidden_count` [B]: sum and number
    of the last hidden states of prompt and text that the gate's pooled state averages (no gradient).
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
        return Mixing(self.augmentation.to(device), send(self.lam, device))


class PromptedModel(nn.Module):
    """A frozen language model, to whose input every row prepends the prompt of its task.

    Args:
        backbone: the frozen model.
        centroids: cluster centroids [K, d], input embeddings of `scc` rows; None where no row uses them.
        pooling: positions that the pooled state averages: real ones (prompt and text), or `all` with padding.
    """

    outer_positions: ClassVar[int]
    """Label positions, from the first, that the outer loss looks at."""

    centroids: Tensor

    def __init__(self, backbone: PreTrainedModel, centroids: Tensor | None = None, pooling: Pooling = "masked") -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = pooling
        self.register_buffer("centroids", torch.zeros(1, self.width, device=backbone.device), persistent=False)
        if centroids is not None:
            self.set_centroids(centroids)

    @property
    def width(self) -> int:
        """d."""
        return int(self.backbone.config.hidden_size)

    @property
    def device(self) -> torch.device:
        """Device of the computation."""
        return self.centroids.device

    def set_centroids(self, centroids: Tensor) -> None:
        """Replace the centroids [K, d]; UserError if their width is not the backbone's."""
        if centroids.shape[1] != self.width:
            problem = f"width {self.width} differs from the store's {centroids.shape[1]}"
            raise setting_error("backbone.name", self.backbone.name_or_path, problem)
        self.centroids = centroids

    def forward(
        self, prompts: Tensor, rows: Rows, mixing: Mixing | None = None, prompt_mask: Tensor | None = None
    ) -> PassOutput:
        """Score `rows` under `prompts[rows.task_index]`.

        Args:
            prompts: [T, L, d], one prompt a task.
            rows: B rows.
            mixing: augmentation rows of the same shape, whose states are mixed with those of `rows`, row by row.
            prompt_mask: [T, L], 0 where a prompt shorter than L is filled up at its start; not together with `mixing`.
        """
        raise NotImplementedError

    def embed(self, row_prompts: Tensor, rows: Rows, prompt_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the input embeddings [B, L + S, d] of rows under their prompts [B, L, d], and the mask [B, L + S].

        `prompt_mask` [T, L] is by task.
        """
        embedded = self.backbone.get_input_embeddings()(rows.input_ids)
        is_centroid = rows.centroid_ids != NO_CENTROID
        centroids = self.centroids.to(embedded.dtype)[rows.centroid_ids.clamp(min=0)]
        embedded = torch.where(is_centroid.unsqueeze(-1), centroids, embedded)
        inputs = torch.cat([row_prompts.to(embedded.dtype), embedded], dim=1)
        ones = rows.attention_mask.new_ones(row_prompts.shape[:2])
        mask = torch.cat([ones if prompt_mask is None else prompt_mask[rows.task_index], rows.attention_mask], dim=1)
        return inputs, mask

    def pool(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return sum and number of the states [B, L + S, d] that the pooled state averages."""
        if self.pooling == "all":
            mask = torch.ones_like(mask)
        return masked_sum(hidden, mask)


def both_sides(rows: Rows, mixing: Mixing) -> Rows:
    """Return rows and the augmentation rows that they are mixed with, one after the other [2 B]."""
    other = mixing.augmentation
    return Rows(
        torch.cat([rows.input_ids, other.input_ids]),
        torch.cat([rows.attention_mask, other.attention_mask]),
        torch.cat([rows.centroid_ids, other.centroid_ids]),
        torch.cat([rows.labels, other.labels]),
        torch.cat([rows.task_index, other.task_index]),
        rows.is_padded or other.is_padded,
    )


def initial_prompt(config: PromptConfig, model: PromptedModel, seed: int, tokens: Tensor | None = None) -> Tensor:
    """Return the prompt before training [L, d], fp32: embeddings of random vocabulary entries, or normal noise.

    With a sharded model all ranks must call it together.

    Args:
        config: length and kind.
        model: the backbone, whose table of embeddings is used.
        seed: draws the entries or the noise.
        tokens: the entries to draw from, see `supmer.backbone.pieces.ordinary_tokens`; default: all rows of the table.
    """
    generator = torch.Generator().manual_seed(seed)
    if config.init == "normal":
        return torch.randn(config.length, model.width, generator=generator) * config.init_std
    if tokens is None:
        tokens = torch.arange(model.backbone.get_input_embeddings().weight.shape[0])
    return embeddings_of(model, tokens[torch.randint(len(tokens), (config.length,), generator=generator)])


def embeddings_of(model: PromptedModel, tokens: Tensor) -> Tensor:
    """Return the input embeddings [L, d] of tokens [L], fp32 on the CPU; with a sharded model all ranks call it together."""
    table = model.backbone.get_input_embeddings().weight.detach()
    if isinstance(table, DTensor):
        table = table.full_tensor()
    prompt: Tensor = table[tokens.to(table.device)].float().cpu()
    return prompt
