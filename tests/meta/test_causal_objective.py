"""Meta-gradients of a decoder-only backbone (METHOD section 10) against an oracle of plain calls, and themselves."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from factories import NUM_CENTROIDS, VOCABULARY, WIDTH, random_episodes, random_prompt
from meta_oracle import Oracle, meta_objective
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from supmer.config import RegularizerConfig
from supmer.config.values import validate
from supmer.meta.learner import Learner
from supmer.meta.objective import MetaGradients, meta_gradients
from supmer.meta.passes import PassPlan
from supmer.model.causal import PromptedCausal
from supmer.model.regularizer import GradientRegularizer
from supmer.tasks.episode import Episode, Example

LAMS = [0.7, 1.0, 0.25]


class CausalOracle(Oracle):
    """One row at a time, without padding: the label follows the text."""

    backbone: GPT2LMHeadModel

    def states(self, prompt: Tensor, row: Example, label: list[int]) -> Tensor:
        """Last hidden states [L + S + len(label), d]."""
        ids = torch.as_tensor([*row.input_ids.tolist(), *label])
        vectors = [self.backbone.transformer.wte.weight[token] for token in ids]
        for place, cluster in enumerate(row.centroid_ids.tolist()):
            if cluster >= 0:
                vectors[place] = self.centroids[cluster]
        inputs = torch.cat([prompt, torch.stack(vectors)])
        return self.backbone.transformer(inputs_embeds=inputs[None]).last_hidden_state[0]

    def support(self, prompt: Tensor, episode: Episode, *, exact: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        assert not exact
        prompt = prompt.detach().requires_grad_()
        losses, states = [], []
        for row in episode.support:
            target, end = row.target_ids.tolist(), len(prompt) + len(row.input_ids)
            hidden = self.states(prompt, row, target[:-1])
            log_probs = self.backbone.lm_head(hidden[end - 1 :]).log_softmax(dim=-1)
            losses.append(-sum(log_probs[place, token] for place, token in enumerate(target)))
            states.append(hidden[:end].detach())
        loss = torch.stack(losses).mean()
        return loss.detach(), torch.autograd.grad(loss, prompt)[0], torch.cat(states).mean(dim=0)

    def query(self, prompt: Tensor, episode: Episode, lam: float) -> Tensor:
        losses = []
        for row, partner in zip(episode.query, episode.augmentation, strict=True):
            at_answer, partners = (self.states(prompt, one, [])[-1] for one in (row, partner))
            log_probs = self.backbone.lm_head(lam * at_answer + (1 - lam) * partners).log_softmax(dim=-1)
            target = torch.zeros(len(log_probs), dtype=prompt.dtype)
            target[row.target_ids[0]] += lam
            target[partner.target_ids[0]] += 1 - lam
            seen = target > 0
            losses.append((target[seen] * (target[seen].log() - log_probs[seen])).sum())
        return torch.stack(losses).mean()


def tiny_model(dropout: float = 0.0) -> PromptedCausal:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        rates = {"attn_pdrop": dropout, "resid_pdrop": dropout, "embd_pdrop": dropout}
        config = GPT2Config(vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=2, n_head=4, n_positions=64, **rates)
        backbone = GPT2LMHeadModel(config)
        for parameter in backbone.parameters():
            if parameter.dim() == 2:
                torch.nn.init.normal_(parameter, std=0.3)
    backbone.config.use_cache = False
    centroids = torch.randn(NUM_CENTROIDS, WIDTH, generator=torch.Generator().manual_seed(0))
    return PromptedCausal(backbone.requires_grad_(False).eval(), centroids)


def episodes(step: int = 0) -> list[Episode]:
    """Random episodes whose labels are two tokens, without sentinels."""

    def plain(rows: tuple[Example, ...]) -> tuple[Example, ...]:
        return tuple(replace(row, target_ids=row.target_ids[1:]) for row in rows)

    return [
        replace(one, support=plain(one.support), query=plain(one.query), augmentation=plain(one.augmentation))
        for one in random_episodes(seed=1, num_tasks=3, step=step)
    ]


def compute(model: PromptedCausal, psi: GradientRegularizer, tasks: list[int], max_tokens: int = 4096) -> MetaGradients:
    chosen, dtype = [episodes()[task] for task in tasks], model.centroids.dtype
    lams = torch.tensor([LAMS[task] for task in tasks], dtype=dtype)
    return meta_gradients(model, psi, random_prompt().to(dtype), chosen, lams, 0.3, PassPlan(max_tokens))


def regularizer() -> GradientRegularizer:
    generator = torch.Generator().manual_seed(2)
    return GradientRegularizer(WIDTH, RegularizerConfig(rank=8, init="xavier"), generator)


def test_oracle_in_float64() -> None:
    model, psi = tiny_model().double(), regularizer().double()
    model.set_centroids(model.centroids.double())
    oracle, phi = CausalOracle(model.backbone, model.centroids), dict(psi.named_parameters())
    expected = meta_objective(oracle, phi, random_prompt().double(), episodes(), LAMS, 0.3)
    found = compute(model, psi, [0, 1, 2], max_tokens=80)
    near = {"rtol": 1e-9, "atol": 1e-11}
    torch.testing.assert_close(found.prompt, expected["prompt"], **near)
    torch.testing.assert_close(found.query_losses, torch.stack(expected["query"]), **near)
    torch.testing.assert_close(found.support_losses, torch.stack(expected["support_losses"]), **near)
    torch.testing.assert_close(found.gates, torch.stack(expected["gates"]), **near)
    torch.testing.assert_close(found.support_gradients, torch.stack(expected["support"]), **near)
    for name, gradient in expected["phi"].items():
        torch.testing.assert_close(found.regularizer[name], gradient, **near)


@pytest.mark.parametrize("max_tokens", [17, 60])
def test_batching_does_not_matter_and_tasks_add_up(max_tokens: int) -> None:
    model, psi = tiny_model(), regularizer()
    whole = compute(model, psi, [0, 1, 2])
    first, second = compute(model, psi, [0, 2], max_tokens), compute(model, psi, [1], max_tokens)
    torch.testing.assert_close((2 * first.prompt + second.prompt) / 3, whole.prompt, rtol=1e-4, atol=1e-6)
    for name, gradient in whole.regularizer.items():
        together = (2 * first.regularizer[name] + second.regularizer[name]) / 3
        torch.testing.assert_close(together, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_resumed_run_is_the_same_bit_for_bit(dropout: float) -> None:
    config = validate(
        {"backbone": {"dropout": dropout}, "meta": {"steps": 9, "tasks_per_step": 3}, "regularizer": {"rank": 8}}
    )
    straight, first, resumed = (Learner(config, tiny_model(dropout), random_prompt()) for _ in range(3))
    for step in range(4):
        straight.step(episodes(step))
    for step in range(2):
        first.step(episodes(step))
    torch.manual_seed(1234)
    resumed.load_state_dict(first.state_dict())
    for step in range(2, 4):
        resumed.step(episodes(step))
    expected, found = straight.state_dict(), resumed.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
