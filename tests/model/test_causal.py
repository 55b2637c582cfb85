"""Decoder-only backbones under soft prompts, against plain transformers calls (METHOD section 10)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AttentionMaskInterface,
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    PhiConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

from supmer.errors import UserError
from supmer.model.attention_mask import NOT_WAITING, whole_mask
from supmer.model.causal import PromptedCausal, check_logits
from supmer.model.prompted import Mixing
from supmer.model.rows import IGNORED_LABEL, collate
from supmer.tasks.episode import NO_CENTROID, Example

VOCABULARY, WIDTH, LENGTH = 64, 16, 4

SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
FAMILIES: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SHAPE, tie_word_embeddings=False),
    "llama-tied": LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**SHAPE, tie_word_embeddings=True),
    "mistral": MistralConfig(**SHAPE, sliding_window=6),
    "gemma2": Gemma2Config(**SHAPE, head_dim=4, final_logit_softcapping=2.0),
    "cohere": CohereConfig(**SHAPE, logit_scale=0.25),
    "granite": GraniteConfig(**SHAPE, logits_scaling=4.0, embedding_multiplier=3.0),
    "phi": PhiConfig(**{**SHAPE, "num_key_value_heads": 4}),
    "gpt2": GPT2Config(vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=2, n_head=4),
}


def tiny_backbone(family: str) -> PreTrainedModel:
    """Return a random model of two layers; its weights are large enough for logits to differ."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            FAMILIES[family], attn_implementation="eager" if family == "gemma2" else "sdpa"
        )
        for parameter in model.parameters():
            if parameter.dim() == 2:
                torch.nn.init.normal_(parameter, std=0.3)
    model.config.use_cache = False
    return model.requires_grad_(False).eval()


def random_rows(count: int, seed: int = 0, num_labels: int = 1) -> list[Example]:
    """Return rows of random length, with labels of one to `num_labels` tokens."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        ids = rng.integers(1, VOCABULARY, int(rng.integers(3, 10))).astype(np.int32)
        target = rng.integers(1, VOCABULARY, int(rng.integers(1, num_labels + 1))).astype(np.int32)
        rows.append(Example(ids, np.full(len(ids), NO_CENTROID, np.int32), target, 0))
    return rows


def random_prompts() -> torch.Tensor:
    return 0.3 * torch.randn(2, LENGTH, WIDTH, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_a_plain_call_row_by_row(family: str) -> None:
    """Rows of many lengths, padded at their right, and labels of several tokens."""
    model, prompts, rows, tasks = (
        PromptedCausal(tiny_backbone(family)),
        random_prompts(),
        random_rows(5, num_labels=3),
        [0, 1, 1, 0, 1],
    )
    output = model(prompts, collate(rows, tasks))
    for index, row in enumerate(rows):
        ids = torch.as_tensor(np.concatenate([row.input_ids, row.target_ids[:-1]]), dtype=torch.long)
        inputs = torch.cat([prompts[tasks[index]], model.backbone.get_input_embeddings()(ids)])[None]
        plain = model.backbone(inputs_embeds=inputs, output_hidden_states=True)
        count, end = len(row.target_ids), LENGTH + len(row.input_ids)
        torch.testing.assert_close(output.logits[index, :count], plain.logits[0, end - 1 :], rtol=1e-4, atol=1e-5)
        hidden = plain.hidden_states[-1][0, :end]
        torch.testing.assert_close(output.hidden_sum[index], hidden.sum(dim=0), rtol=1e-4, atol=1e-4)
        assert output.hidden_count[index] == end


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_that_are_the_models_own_pass_the_check(family: str) -> None:
    check_logits(PromptedCausal(tiny_backbone(family)))


def test_a_model_that_does_more_to_its_logits_is_refused() -> None:
    backbone = tiny_backbone("llama")
    forward = backbone.forward

    def scaled(*arguments: Any, **options: Any) -> Any:
        output = forward(*arguments, **options)
        output.logits = 0.5 * output.logits
        return output

    backbone.forward = scaled
    with pytest.raises(UserError, match=r"^backbone\.name=.*llama"):
        check_logits(PromptedCausal(backbone))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_mixing_equals_mixed_states_at_the_answer(family: str) -> None:
    model, prompts = PromptedCausal(tiny_backbone(family)), random_prompts()
    queries, partners = random_rows(3), random_rows(3, seed=1)
    width = max(len(row.input_ids) for row in [*queries, *partners])
    lam = torch.tensor([0.3, 0.6, 1.0])
    output = model(prompts, collate(queries, [0, 1, 0], width), Mixing(collate(partners, [0, 1, 0], width), lam))
    for index, pair in enumerate(zip(queries, partners, strict=True)):
        states = []
        for row in pair:
            ids = torch.as_tensor(row.input_ids, dtype=torch.long)
            inputs = torch.cat([prompts[[0, 1, 0][index]], model.backbone.get_input_embeddings()(ids)])[None]
            states.append(model.backbone(inputs_embeds=inputs, output_hidden_states=True).hidden_states[-1][0, -1])
        mixed = lam[index] * states[0] + (1 - lam[index]) * states[1]
        expected = model.backbone.get_output_embeddings()(mixed)
        torch.testing.assert_close(output.logits[index, 0], expected, rtol=1e-4, atol=1e-5)


def test_rows_without_a_window_need_no_mask() -> None:
    PromptedCausal(tiny_backbone("llama"))
    mask_of = AttentionMaskInterface()[NOT_WAITING]
    sizes = {"batch_size": 2, "q_length": 5, "kv_length": 5}
    assert mask_of(**sizes, attention_mask=whole_mask(torch.empty(2, 5))) is None
    padded = torch.arange(5) < torch.tensor([[5], [3]])
    assert torch.equal(mask_of(**sizes, attention_mask=padded), torch.ones(5, 5).tril().bool() & padded[:, None, None])


def test_padding_and_the_other_rows_change_nothing() -> None:
    model, prompts, rows = PromptedCausal(tiny_backbone("llama")), random_prompts(), random_rows(4, num_labels=2)
    together = model(prompts, collate(rows, [0] * 4, width=20))
    for index, row in enumerate(rows):
        alone = model(prompts, collate([row], [0]))
        count = len(row.target_ids)
        assert (together.logits[index, :count] - alone.logits[0]).abs().max() < 1e-5
    assert IGNORED_LABEL in collate(rows, [0] * 4).labels


def test_centroid_positions_replace_the_embedding() -> None:
    model, prompts = PromptedCausal(tiny_backbone("llama"), torch.randn(8, WIDTH)), random_prompts()
    ids, target = np.array([5, 6, 7], np.int32), np.array([10], np.int32)
    with torch.no_grad():
        model.backbone.get_input_embeddings().weight[6] = model.centroids[3]
    shown = Example(ids, np.array([-1, 3, -1], np.int32), target, 0)
    by_token = Example(ids, np.full(3, NO_CENTROID, np.int32), target, 0)
    output = model(prompts, collate([shown, by_token], [0, 0]))
    torch.testing.assert_close(output.logits[0], output.logits[1])
