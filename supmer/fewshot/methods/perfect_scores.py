"""PERFECT's states, loss and similarities: pure functions.

Shapes: B rows, M mask slots, C classes, d model width.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from supmer.backbone.batches import at_least_float32
from supmer.config import PerfectConfig
from supmer.model.attention_mask import whole_mask
from supmer.model.prompted import PromptedModel
from supmer.model.rows import Rows
from supmer.model.seq2seq import PromptedSeq2Seq


def mask_states(model: PromptedModel, rows: Rows, states: str) -> Tensor:
    """Return the last states at the mask slots [B, M, d], float32.

    Args:
        model: the backbone, which reads the rows without a prompt.
        rows: B rows, each with the sentinels of its M slots, which `labels` [B, M] repeats.
        states: `encoder`: where the sentinels stand in the row; `decoder`: where the decoder reads ``<pad>`` and the same
            sentinels, each in the position that pre-training turns into the first token of the blank. A decoder-only model
            has one slot, at the row's end.
    """
    backbone = model.backbone
    if not backbone.config.is_encoder_decoder:
        last = rows.attention_mask.sum(dim=1) - 1
        output = backbone.base_model(input_ids=rows.input_ids, attention_mask=whole_mask(rows.input_ids))
        return at_least_float32(output.last_hidden_state[torch.arange(len(last), device=last.device), last]).unsqueeze(1)
    assert isinstance(model, PromptedSeq2Seq)
    encoder, decoder, mask = (
        backbone.get_encoder(),
        backbone.get_decoder(),
        model.allowed(rows.attention_mask, rows.is_padded),
    )
    hidden: Tensor = encoder(input_ids=rows.input_ids, attention_mask=mask).last_hidden_state
    if states == "encoder":
        places = (rows.input_ids.unsqueeze(1) == rows.labels.unsqueeze(2)).int().argmax(dim=2)
        picked = hidden.gather(1, places.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
        return at_least_float32(picked)
    start = rows.labels.new_full((len(hidden), 1), backbone.config.decoder_start_token_id)
    output = decoder(
        input_ids=torch.cat([start, rows.labels], dim=1),
        encoder_hidden_states=hidden,
        encoder_attention_mask=mask,
        use_cache=False,
    )
    return at_least_float32(output.last_hidden_state[:, 1:])


def label_scores(states: Tensor, labels: Tensor) -> Tensor:
    """Return ``s[b, i, c] = h[b, i] . E[c, i]`` [B, M, C] of states [B, M, d] and label embeddings [C, M, d]."""
    return torch.einsum("bmd,cmd->bmc", states, labels)


def hinge(scores: Tensor, classes: Tensor) -> Tensor:
    """Return each row's hinge [B] of scores [B, M, C]: ``1/C sum_{j != y} max(0, 1 - s_y + s_j)``, mean over masks."""
    num_rows, num_masks, _ = scores.shape
    repeated = classes.repeat_interleave(num_masks)
    each = nn.functional.multi_margin_loss(scores.flatten(end_dim=1), repeated, reduction="none")
    return each.view(num_rows, num_masks).mean(dim=1)


def class_means(batches: Iterable[tuple[Tensor, Tensor]], num_classes: int) -> Tensor:
    """Return the prototypes [C, M, d]: the mean state of each class's rows, given as states [B, M, d] and classes [B]."""
    sums, counts = [], []
    for states, classes in batches:
        sums.append(states.new_zeros(num_classes, *states.shape[1:]).index_add(0, classes, states))
        counts.append(classes.bincount(minlength=num_classes))
    return torch.stack(sums).sum(dim=0) / torch.stack(counts).sum(dim=0).view(-1, 1, 1)


def similarities(states: Tensor, prototypes: Tensor) -> Tensor:
    """Return ``exp(-|u - v|^2)`` [B, M, C] of the directions u of states [B, M, d] and v of prototypes [C, M, d]."""
    directions = nn.functional.normalize(states, dim=-1), nn.functional.normalize(prototypes, dim=-1)
    cosines = torch.einsum("bmd,cmd->bmc", *directions)
    return torch.exp(2 * cosines - 2)  # |u - v|^2 = 2 - 2 cos


def class_scores(states: Tensor, labels: Tensor, prototypes: Tensor, settings: PerfectConfig) -> Tensor:
    """Return the scores of rows [B, C], of which prediction takes the largest.

    `settings` say whether states [B, M, d] are compared with label embeddings or prototypes [C, M, d].
    """
    if settings.inference == "classifier":
        return label_scores(states, labels).mean(dim=1)
    found = similarities(states, prototypes if settings.inference == "prototypes" else labels)
    return found.amax(dim=1) if settings.aggregation == "max" else found.mean(dim=1)
