"""The prompted model against plain transformers calls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from factories import VOCABULARY, WIDTH, random_example, random_prompt, tiny_backbone, tiny_model
from transformers.modeling_outputs import BaseModelOutput

from supmer.config import PromptConfig
from supmer.errors import UserError
from supmer.model.prompted import Mixing, initial_prompt
from supmer.model.rows import collate
from supmer.model.seq2seq import PromptedSeq2Seq
from supmer.tasks.episode import NO_CENTROID, Example


def plain_rows(count: int, seed: int = 0) -> list[Example]:
    """Rows without centroids."""
    rng = np.random.default_rng(seed)
    rows = [random_example(rng) for _ in range(count)]
    return [Example(r.input_ids, np.full(len(r.input_ids), NO_CENTROID, np.int32), r.target_ids, r.label) for r in rows]


@pytest.mark.parametrize("tied", [True, False])
def test_logits_equal_a_plain_call_row_by_row(tied: bool) -> None:
    model, examples = tiny_model(tied=tied), plain_rows(4)
    prompts = torch.stack([random_prompt(seed=seed) for seed in range(2)])
    tasks = [0, 1, 1, 0]
    output = model(prompts, collate(examples, tasks))
    for index, example in enumerate(examples):
        ids = torch.as_tensor(example.input_ids, dtype=torch.long)
        inputs = torch.cat([prompts[tasks[index]], model.backbone.shared(ids)])[None]
        labels = torch.as_tensor(example.target_ids, dtype=torch.long)[None]
        expected = model.backbone(inputs_embeds=inputs, labels=labels)
        torch.testing.assert_close(output.logits[index], expected.logits[0], rtol=1e-4, atol=1e-5)
        hidden = expected.encoder_last_hidden_state[0]
        torch.testing.assert_close(output.hidden_sum[index], hidden.sum(dim=0), rtol=1e-4, atol=1e-4)
        assert output.hidden_count[index] == len(hidden)


def test_centroid_positions_replace_the_embedding() -> None:
    model, prompt = tiny_model(), random_prompt()[None]
    ids, target = np.array([5, 6, 7], np.int32), np.array([95, 10, 94], np.int32)
    shown = Example(ids, np.array([-1, 3, -1], np.int32), target, 0)
    with torch.no_grad():
        model.backbone.shared.weight[6] = model.centroids[3]
    by_token = Example(ids, np.full(3, NO_CENTROID, np.int32), target, 0)
    output = model(prompt, collate([shown, by_token], [0, 0]))
    torch.testing.assert_close(output.logits[0], output.logits[1])


def test_mixing_equals_mixed_encoder_states() -> None:
    model, prompt = tiny_model(), random_prompt()[None]
    query, partner = plain_rows(3), plain_rows(3, seed=1)
    width = max(len(row.input_ids) for row in [*query, *partner])
    rows, augmentation = collate(query, [0] * 3, width), collate(partner, [0] * 3, width)
    lam = torch.tensor([0.3, 0.6, 1.0])
    output = model(prompt, rows, Mixing(augmentation, lam))
    states = []
    for side in (rows, augmentation):
        inputs = torch.cat([prompt.expand(3, -1, -1), model.backbone.shared(side.input_ids)], dim=1)
        mask = torch.cat([torch.ones(3, 5, dtype=torch.long), side.attention_mask], dim=1)
        states.append((model.backbone.encoder(inputs_embeds=inputs, attention_mask=mask).last_hidden_state, mask))
    weight = lam.view(3, 1, 1)
    mixed = BaseModelOutput(last_hidden_state=weight * states[0][0] + (1 - weight) * states[1][0])
    union = torch.maximum(states[0][1], states[1][1])
    expected = model.backbone(encoder_outputs=mixed, attention_mask=union, labels=rows.labels).logits
    torch.testing.assert_close(output.logits, expected, rtol=1e-4, atol=1e-5)


def test_padding_does_not_change_a_row() -> None:
    model, prompt, examples = tiny_model(), random_prompt()[None], plain_rows(3)
    narrow, wide = (model(prompt, collate(examples, [0] * 3, width)) for width in (0, 40))
    torch.testing.assert_close(narrow.logits, wide.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(narrow.hidden_sum, wide.hidden_sum, rtol=1e-4, atol=1e-4)


def test_published_pooling_counts_padding() -> None:
    model, prompt, examples = tiny_model(pooling="all"), random_prompt()[None], plain_rows(3)
    assert model(prompt, collate(examples, [0] * 3, 40)).hidden_count.tolist() == [45, 45, 45]


def test_bfloat16_backbone_keeps_float32_prompt_and_logits() -> None:
    model, examples = tiny_model().bfloat16(), plain_rows(3)
    prompt = random_prompt()[None].requires_grad_()
    output = model(prompt, collate(examples, [0] * 3))
    assert output.logits.dtype == output.hidden_sum.dtype == torch.float32
    (gradient,) = torch.autograd.grad(output.logits.sum(), prompt)
    assert gradient.dtype == torch.float32
    full = tiny_model()(prompt, collate(examples, [0] * 3))
    torch.testing.assert_close(output.logits, full.logits, rtol=0.1, atol=0.15)


def test_vocabulary_prompt_is_made_of_embeddings() -> None:
    model = tiny_model()
    prompt = initial_prompt(PromptConfig(length=7), model, seed=3)
    table = model.backbone.shared.weight
    assert prompt.shape == (7, WIDTH)
    assert all((table == row).all(dim=1).any() for row in prompt)
    assert torch.equal(prompt, initial_prompt(PromptConfig(length=7), model, seed=3))
    assert not torch.equal(prompt, initial_prompt(PromptConfig(length=7), model, seed=4))
    assert len(table) == VOCABULARY


def test_normal_prompt_has_the_asked_spread() -> None:
    prompt = initial_prompt(PromptConfig(length=400, init="normal", init_std=0.5), tiny_model(), seed=0)
    assert float(prompt.std()) == pytest.approx(0.5, rel=0.05)


def test_centroids_of_another_width_are_refused() -> None:
    with pytest.raises(UserError, match=r"width 16 differs from the store's 12"):
        PromptedSeq2Seq(tiny_backbone(), torch.zeros(4, 12))
