"""A support or query pass of a few rows, and what torch says that it costs: the oracle of the planner's formulas."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from supmer.meta.passes import Microbatch, query_loss, support_loss
from supmer.model.prompted import Mixing, PromptedModel
from supmer.model.rows import Rows
from supmer.planning.measuring import CPU_ATTENTION

ROWS, POSITIONS, PROMPT = 4, 48, 20


def saved_bytes(model: PromptedModel, targets: int, *, mixed: bool) -> int:
    """Return the bytes of all storages that autograd saves in a pass, besides the model's own."""
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    found: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = _loss(model, targets, mixed=mixed)
    assert loss.requires_grad
    return sum(tensor.untyped_storage().nbytes() for pointer, tensor in found.items() if pointer not in own)


def counted_flops(model: PromptedModel, targets: int, *, mixed: bool) -> int:
    """Count a forward and a backward pass."""
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        _loss(model, targets, mixed=mixed).backward()  # type: ignore[no-untyped-call]
    return int(counter.get_total_flops())


def _loss(model: PromptedModel, targets: int, *, mixed: bool) -> Tensor:
    prompt = torch.randn(1, PROMPT, model.width, requires_grad=True)
    mixing = Mixing(_random_rows(targets), torch.full((ROWS,), 0.7)) if mixed else None
    batch = Microbatch(_random_rows(targets), torch.ones(ROWS), mixing)
    row_loss = query_loss if mixed else support_loss
    return row_loss(model(prompt, batch.rows, mixing).logits, batch).sum()


def _random_rows(targets: int) -> Rows:
    ids = torch.randint(0, 600, (ROWS, POSITIONS - PROMPT))
    mask = torch.ones_like(ids)
    mask[0, -1] = 0  # without padding, attention would leave out its mask
    labels = torch.randint(0, 600, (ROWS, targets))
    return Rows(ids, mask, torch.full_like(ids, -1), labels, torch.zeros(ROWS, dtype=torch.long))
