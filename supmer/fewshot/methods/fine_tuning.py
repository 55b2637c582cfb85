"""Full fine-tuning: all weights of a copy of the backbone, on the pattern without any prompt."""

from __future__ import annotations

import copy

import torch

from supmer.fewshot.tuning import Bench, FewShotRows, Method, Tuned, best_point, evaluate_rows, keep_best
from supmer.meta.losses import cross_entropy
from supmer.model.rows import collate, plan_microbatches
from supmer.tasks.episode import Example


def tune(bench: Bench, rows: FewShotRows) -> Tuned:
    """Train the copy, in fp32, by Adam at `fewshot.fine_tuning_rate` and keep the best on dev."""
    model = copy.deepcopy(bench.model).float().requires_grad_(True)
    prompt = torch.empty(0, model.backbone.config.d_model, device=bench.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=bench.config.fewshot.fine_tuning_rate)
    best: dict[str, torch.Tensor] = {}

    def step(batch: list[Example]) -> float:
        model.train()
        optimizer.zero_grad()
        loss = 0.0
        for group in plan_microbatches([len(example.input_ids) for example in batch], 0, bench.max_tokens):
            microbatch = collate([batch[index] for index in group], [0] * len(group)).to(bench.device)
            output = model(prompt.unsqueeze(0), microbatch)
            loss_sum = cross_entropy(output.logits, microbatch.labels).sum() / len(batch)
            torch.autograd.backward([loss_sum])
            loss += loss_sum.item()
        optimizer.step()
        return loss

    def keep() -> None:
        best.update({name: tensor.detach().clone() for name, tensor in model.state_dict().items()})

    def dev_score() -> float:
        return evaluate_rows(bench, model, prompt, rows)

    curve = keep_best(bench.config.fewshot, rows, step, dev_score, keep)
    model.load_state_dict(best)
    chosen = best_point(curve)
    return Tuned(model.requires_grad_(False), prompt, chosen.step, chosen.dev_score, curve)


METHOD = Method(tune)
