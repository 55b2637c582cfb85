"""LoRA, BitFit and prefix tuning: what the parts compute, and that the backbone is as it was without them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from factories import random_example, tiny_model
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    T5ForConditionalGeneration,
)

from supmer.config import Config
from supmer.config.load import with_settings
from supmer.fewshot.cell_runner import CellRunner
from supmer.fewshot.cells import Cell
from supmer.fewshot.comparison import prepare_tasks
from supmer.fewshot.methods import METHODS, bitfit, lora, prefix_tuning
from supmer.fewshot.starting_points import StartingPoints
from supmer.model.causal import PromptedCausal
from supmer.model.prompted import PromptedModel
from supmer.model.rows import Rows, collate
from supmer.model.seq2seq import PromptedSeq2Seq
from supmer.tasks.episode import NO_CENTROID

INSERTED = {
    "lora": (lora.inserted, 4),
    "bitfit": (bitfit.inserted, 0),
    "prefix_tuning": (prefix_tuning.inserted, 3),
}
SHAPE = {"vocab_size": 200, "bos_token_id": 1, "eos_token_id": 2}
CAUSAL = {
    "llama": LlamaConfig(
        **SHAPE,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
    ),
    "gpt2": GPT2Config(**SHAPE, n_embd=32, n_layer=2, n_head=4, n_positions=64, attn_pdrop=0, embd_pdrop=0, resid_pdrop=0),
}


def causal_model(config: PreTrainedConfig) -> PromptedCausal:
    torch.manual_seed(0)
    backbone = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    return PromptedCausal(backbone)


def rows_of(model: PromptedModel, number: int = 4) -> Rows:
    rng = np.random.default_rng(1)
    rows = collate([random_example(rng) for _ in range(number)], [0] * number)
    rows = rows._replace(centroid_ids=torch.full_like(rows.centroid_ids, NO_CENTROID))
    return rows._replace(labels=rows.labels[:, :2]) if isinstance(model, PromptedCausal) else rows


def logits(model: PromptedModel, rows: Rows) -> Tensor:
    return model(torch.empty(1, 0, model.width), rows).logits


@torch.no_grad()
def shake(parameters: dict[str, Tensor]) -> None:
    generator = torch.Generator().manual_seed(3)
    for parameter in parameters.values():
        parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


@pytest.fixture(params=["t5", *CAUSAL])
def model(request: pytest.FixtureRequest) -> PromptedModel:
    return tiny_model().eval() if request.param == "t5" else causal_model(CAUSAL[request.param])


@pytest.mark.parametrize("method", INSERTED)
def test_the_backbone_is_as_it_was(model: PromptedModel, method: str) -> None:
    rows, (insert, size) = rows_of(model), INSERTED[method]
    before, values = logits(model, rows), {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modules = [(name, id(module)) for name, module in model.named_modules()]
    with insert(model, size, 0) as parameters:
        if method != "prefix_tuning":  # parts that compute nothing at first
            torch.testing.assert_close(logits(model, rows), before)
        shake(parameters)
        changed = logits(model, rows)
        assert (changed - before).abs().max() > 1e-3
        changed.sum().backward()
        assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in parameters.values())
    assert torch.equal(logits(model, rows), before)
    assert [(name, id(module)) for name, module in model.named_modules()] == modules
    assert all(torch.equal(tensor, values[name]) for name, tensor in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def plain_t5(model: PromptedSeq2Seq) -> T5ForConditionalGeneration:
    """Return a T5 of the same weights, with the attention that transformers has."""
    plain = T5ForConditionalGeneration(model.backbone.config).eval()
    plain.load_state_dict(model.backbone.state_dict())
    return plain


def plain_logits(plain: T5ForConditionalGeneration, rows: Rows) -> Tensor:
    return plain(input_ids=rows.input_ids, attention_mask=rows.attention_mask, labels=rows.labels).logits


def test_lora_is_an_update_of_the_weights() -> None:
    """In the cross-attention too, which uses the value's weight without calling its layer."""
    model = tiny_model().eval()
    rows, plain = rows_of(model), plain_t5(model)
    with lora.inserted(model, 4, 0) as parameters:
        shake(parameters)
        for name, down in parameters.items():
            if ".lora_A." in name:
                layer = plain.get_submodule(name.split(".lora_A.")[0])
                layer.weight.data += 2 * parameters[name.replace(".lora_A.", ".lora_B.")].detach() @ down.detach()
        torch.testing.assert_close(logits(model, rows), plain_logits(plain, rows), atol=1e-4, rtol=1e-4)
    assert len(parameters) == 2 * 2 * 3 * 2  # A and B of query and value, in 2 encoder and 2 x 2 decoder attentions


def test_bitfit_is_what_biases_of_the_layers_compute() -> None:
    model = tiny_model().eval()
    rows, plain = rows_of(model), plain_t5(model)
    with bitfit.inserted(model, 0, 0) as parameters:
        shake(parameters)
        for name, bias in parameters.items():
            plain.get_submodule(name.removesuffix(".bias")).bias = nn.Parameter(bias.detach())
        torch.testing.assert_close(logits(model, rows), plain_logits(plain, rows), atol=1e-4, rtol=1e-4)


def test_a_prefix_is_what_a_t5_has_read_before() -> None:
    """Keys and values that the decoder's layers made of three tokens take the place of those tokens."""
    model = tiny_model().eval()
    rows, read = rows_of(model), torch.tensor([[7, 8, 9]]).expand(4, -1)
    encoder, decoder = model.backbone.get_encoder(), model.backbone.get_decoder()
    hidden = encoder(input_ids=rows.input_ids, attention_mask=rows.attention_mask).last_hidden_state
    given = {"encoder_hidden_states": hidden, "encoder_attention_mask": rows.attention_mask, "use_cache": False}
    inputs = model.backbone.prepare_decoder_input_ids_from_labels(rows.labels)
    whole = decoder(input_ids=torch.cat([read, inputs], dim=1), **given).last_hidden_state[:, 3:]
    # Keys and values depend on the row through cross-attention: rows one by one.
    for row in range(len(hidden)):
        one = {name: value[row : row + 1] for name, value in given.items() if name != "use_cache"}
        cache = decoder(input_ids=read[:1], use_cache=True, **one).past_key_values.self_attention_cache
        with prefix_tuning.inserted(model, 3, 0) as parameters:
            set_prefix(parameters, cache)
            found = decoder(input_ids=inputs[row : row + 1], **one).last_hidden_state
        torch.testing.assert_close(found, whole[row : row + 1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", CAUSAL)
def test_a_prefix_is_what_a_decoder_only_model_has_read_before(name: str) -> None:
    model = causal_model(CAUSAL[name])
    rows, read = rows_of(model), torch.tensor([[7, 8, 9]])
    cache = model.backbone(read, use_cache=True).past_key_values
    table = model.backbone.get_input_embeddings()
    whole = model(table(read), rows).logits
    no_prompt = torch.empty(1, 0, model.width)
    with prefix_tuning.inserted(model, 3, 0) as parameters:
        set_prefix(parameters, cache)
        found = model(no_prompt, rows).logits
        scored = model(no_prompt, rows, prompt_mask=torch.ones(1, 0, dtype=torch.long)).logits
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(scored, whole, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def set_prefix(parameters: dict[str, Tensor], cache: DynamicCache) -> None:
    layers = [torch.stack([layer.keys[0], layer.values[0]]) for layer in cache.layers]  # [2, h, P, k]
    parameters["prefix"].copy_(torch.stack(layers).permute(3, 0, 1, 2, 4).flatten(1))


@pytest.mark.parametrize("method", INSERTED)
def test_it_learns_and_repeats(config: Config, method: str) -> None:
    rate = 0.5 if method == "prefix_tuning" else 0.02
    own = {"steps": 40, "eval_every": 20, "batch_size": 8, "learning_rates": {method: rate}}
    config = with_settings(config, {f"fewshot.{name}": value for name, value in own.items()})
    runner = CellRunner(config, prepare_tasks(config), StartingPoints())
    cell = Cell("colour", 0, method, 0, 16, 0)
    first, second = runner.run(cell), runner.run(cell)
    losses = [point.loss for point in first.curve]
    assert losses[-1] < 0.8 * losses[0]
    np.testing.assert_array_equal(first.scores, second.scores)
    assert first.definition.method == method and first.prompt.size == 0 and first.parts


def test_rates_are_the_methods_own(config: Config) -> None:
    assert METHODS["lora"].rate == 1e-3
    cells = {method: Cell("colour", 0, method, 0, 4, 0) for method in ("lora", "prompt_tuning")}
    other = with_settings(config, {"fewshot.learning_rate": 0.5})
    for method, cell in cells.items():
        parts = [CellRunner(c, prepare_tasks(c), StartingPoints()).run(cell) for c in (config, other)]
        same = np.array_equal(parts[0].scores, parts[1].scores)
        assert same is (method == "lora")
