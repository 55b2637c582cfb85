"""PERFECT on a T5: what is trained, what is left in the backbone, and that it learns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from device_reads import Reads
from factories import FIRST_SENTINEL, WIDTH, random_example, tiny_model
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PreTrainedTokenizerBase,
    T5Config,
    T5ForConditionalGeneration,
)

from supmer.backbone.load import enable_checkpointing
from supmer.config import Config, PerfectConfig
from supmer.config.load import validate
from supmer.fewshot.cell_runner import CellRunner, build_template
from supmer.fewshot.cells import Cell, cell_keys
from supmer.fewshot.comparison import prepare_tasks
from supmer.fewshot.data import Row
from supmer.fewshot.forms import asked
from supmer.fewshot.labels import LabelWords
from supmer.fewshot.methods.perfect import backward, scorer, set_prototypes, tune
from supmer.fewshot.methods.perfect_parts import Adapter, PerfectParts
from supmer.fewshot.methods.perfect_scores import label_scores, mask_states
from supmer.fewshot.scoring import score_labels
from supmer.fewshot.starting_points import StartingPoints
from supmer.fewshot.task import load_task
from supmer.fewshot.tuning import Context, FewShotRows
from supmer.model.build import build_model
from supmer.model.causal import PromptedCausal
from supmer.model.prompted import PromptedModel
from supmer.model.rows import Rows, collate
from supmer.model.seq2seq import PromptedSeq2Seq
from supmer.tasks.episode import NO_CENTROID, Example

PAIR = [FIRST_SENTINEL, FIRST_SENTINEL - 1]


def settings_of(config: Config, **perfect: object) -> Config:
    settings = {**config.fewshot.perfect.model_dump(), **perfect}
    return validate({**config.model_dump(), "fewshot": {**config.fewshot.model_dump(), "perfect": settings}})


def masked_rows(number: int = 6, masks: list[int] | None = None) -> list[Example]:
    """Draw rows with mask slots somewhere in them."""
    rng, slots = np.random.default_rng(0), np.asarray(masks or PAIR, dtype=np.int32)
    rows = []
    for label in range(number):
        drawn = random_example(rng)
        place = int(rng.integers(len(drawn.input_ids)))
        ids = np.insert(drawn.input_ids, place, slots)
        rows.append(Example(ids, np.full(len(ids), NO_CENTROID, np.int32), slots, label % 2))
    return rows


def batch_of(rows: list[Example]) -> Rows:
    return collate(rows, [0] * len(rows))


def parts_of(model: PromptedModel, num_classes: int = 2, seed: int = 0, **settings: object) -> PerfectParts:
    return PerfectParts(model, num_classes, PerfectConfig.model_validate({"num_masks": 2, **settings}), seed)


def snapshot(model: PromptedModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def is_as(model: PromptedModel, before: dict[str, torch.Tensor], modules: list[torch.nn.Module]) -> bool:
    """Whether a model has the tensors, bit for bit, and the modules that it had, and no hooks that it had not."""
    now = model.state_dict()
    same = now.keys() == before.keys() and all(torch.equal(now[name], before[name]) for name in now)
    return same and list(model.modules()) == modules


@pytest.mark.parametrize("states", ["decoder", "encoder"])
def test_states_are_those_of_plain_transformers_one_row_at_a_time(states: str) -> None:
    model = tiny_model()
    rows = masked_rows()
    found = mask_states(model, batch_of(rows), states)
    assert found.shape == (len(rows), 2, WIDTH)
    for row, state in zip(rows, found, strict=True):
        ids = torch.from_numpy(row.input_ids).long().unsqueeze(0)
        output = model.backbone(input_ids=ids, decoder_input_ids=torch.tensor([[0, *PAIR]]), output_hidden_states=True)
        places = [row.input_ids.tolist().index(slot) for slot in PAIR]
        decoder, encoder = output.decoder_hidden_states[-1][0, 1:], output.encoder_last_hidden_state[0, places]
        torch.testing.assert_close(state, decoder if states == "decoder" else encoder, rtol=1e-5, atol=1e-5)


def test_sizes() -> None:
    generator = torch.Generator().manual_seed(0)
    assert sum(p.numel() for p in Adapter(1024, 64, generator).parameters()) == 132_160
    # width 32 and 2 + 2 layers; the embedded backbone's shape; t5-base
    for shape, expected in (((32, 2, 2), 1_096), ((256, 4, 2), 55_392), ((768, 12, 12), 1_838_208)):
        width, encoder, decoder = shape
        config = T5Config(
            vocab_size=100, d_model=width, d_ff=64, num_heads=4, num_layers=encoder, num_decoder_layers=decoder
        )
        with torch.device("meta"):
            model = PromptedSeq2Seq(T5ForConditionalGeneration(config))
            parts = PerfectParts(model, 2, PerfectConfig(), seed=0)
        assert sum(parameter.numel() for parameter in parts.parameters()) == expected


def test_a_new_adapter_is_close_to_the_identity_but_not_it() -> None:
    adapter = Adapter(64, 4, torch.Generator().manual_seed(0))
    states = torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
    assert 0 < (adapter(states) - states).norm() / states.norm() < 0.05
    assert adapter(states.bfloat16()).dtype == torch.bfloat16
    down, up = adapter.down, adapter.up
    u = states @ down.weight.T + down.bias
    gelu_new = 0.5 * u * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (u + 0.044715 * u**3)))
    torch.testing.assert_close(adapter(states), states + gelu_new @ up.weight.T + up.bias)


@pytest.mark.parametrize("tied", [True, False])
def test_zero_adapters_leave_every_logit(tied: bool) -> None:
    model = tiny_model(tied=tied)
    rows, prompt = batch_of(masked_rows()), torch.empty(1, 0, WIDTH)
    before = model(prompt, rows).logits
    parts = parts_of(model)
    for adapter in parts.adapters:
        torch.nn.init.zeros_(adapter.up.weight)
    with parts.inserted(model):
        assert torch.equal(model(prompt, rows).logits, before)
    for adapter in parts.adapters:
        torch.nn.init.ones_(adapter.up.weight)
    with parts.inserted(model):
        assert not torch.allclose(model(prompt, rows).logits, before, atol=1e-2)
    assert torch.equal(model(prompt, rows).logits, before)


def test_trained_layer_norms_are_those_used() -> None:
    model, rows = tiny_model(), batch_of(masked_rows())
    parts = parts_of(model)
    with parts.inserted(model):
        before = mask_states(model, rows, "decoder")
        with torch.no_grad():
            parts.norms[5].mul_(2)  # the decoder's last one, after the five of the encoder
        torch.testing.assert_close(mask_states(model, rows, "decoder"), 2 * before)


def test_label_embeddings_of_the_head_score_as_zero_shot(config: Config, tokenizer: PreTrainedTokenizerBase) -> None:
    prepared = prepare_tasks(config)["colour"]
    model = build_model(config)
    words = LabelWords(prepared.task.label_words, tokenizer, "colour")
    examples = build_template(config, prepared.task, 0, tokenizer, "plain").encode(prepared.rows.test[:9])
    expected = score_labels(model, torch.empty(0, model.width), examples, words, 1000)
    parts = PerfectParts(model, 2, PerfectConfig(), seed=0)
    head = model.backbone.get_output_embeddings().weight[words.first_tokens]
    factor = model.width**-0.5 if model.backbone.config.scale_decoder_outputs else 1.0
    parts.labels.data.copy_(head.unsqueeze(1) * factor)
    for adapter in parts.adapters:
        torch.nn.init.zeros_(adapter.up.weight)
    with parts.inserted(model), torch.no_grad():
        scores = label_scores(mask_states(model, batch_of(examples), "decoder"), parts.labels)[:, 0]
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.fixture
def tiny() -> Iterator[tuple[Context, FewShotRows]]:
    """A tiny model with dropout and rows of two classes, which it must leave as it found it."""
    config = settings_of(Config(), num_masks=2, steps=6, eval_every=2, batch_size=4, rate=1e-2)
    model = tiny_model(dropout=0.2)
    before, modules = snapshot(model), list(model.modules())
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules]
    rows = masked_rows(12)
    words = LabelWords.__new__(LabelWords)
    words.tokens = [(10,), (11,)]
    yield Context(config, model), FewShotRows(words, rows[:8], rows[8:], ["accuracy"], seed=0)
    assert is_as(model, before, modules)
    assert [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules] == hooks
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("states", ["decoder", "encoder"])
def test_tuning_leaves_the_backbone_as_it_was(tiny: tuple[Context, FewShotRows], states: str) -> None:
    context, rows = tiny
    context = replace(context, config=settings_of(context.config, states=states))
    tuned = tune(context, rows)
    assert [point.step for point in tuned.curve] == [2, 4, 6]
    fresh = PerfectParts(context.model, 2, context.config.fewshot.perfect, seed=0).state_dict()
    assert all(not torch.equal(tuned.parts[name], fresh[name]) for name in fresh)


def test_an_error_in_tuning_leaves_the_backbone_as_it_was(tiny: tuple[Context, FewShotRows]) -> None:
    context, rows = tiny
    with pytest.raises(KeyError):
        tune(context, replace(rows, metrics=["none such"]))


def test_only_the_parts_have_gradients_in_any_number_of_passes(tiny: tuple[Context, FewShotRows]) -> None:
    context, rows = tiny
    context.model.backbone.config.dropout_rate = 0.0
    context.model.eval()
    found = []
    for budget in (1000, 20):
        train = context.config.train.model_copy(update={"max_tokens_per_microbatch": budget})
        parts = parts_of(context.model)
        weights = [0.5 + row for row in range(len(rows.train))]
        small = replace(context, config=context.config.model_copy(update={"train": train}))
        with parts.inserted(context.model), Reads() as reads:
            loss = backward(small, parts, rows.train, weights)
        assert reads.found == []
        found.append([loss, *(parameter.grad for parameter in parts.parameters())])
        assert all(gradient is not None and bool(gradient.any()) for gradient in found[-1])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("still", "moving"), [("rate", "label_rate"), ("label_rate", "rate")])
def test_the_two_rates(tiny: tuple[Context, FewShotRows], still: str, moving: str) -> None:
    context, rows = tiny
    context = replace(context, config=settings_of(context.config, **{still: 1e-30, moving: 1e-2}))
    parts = tune(context, rows).parts
    fresh = PerfectParts(context.model, 2, context.config.fewshot.perfect, seed=0).state_dict()
    moved = {name: not torch.allclose(parts[name], fresh[name], rtol=0, atol=1e-20) for name in fresh}
    labels_moved, others_moved = moved["labels"], [moved[name] for name in fresh if name not in ("labels", "prototypes")]
    assert labels_moved is (moving == "label_rate") and set(others_moved) == {moving == "rate"}


def test_prototypes_do_not_depend_on_order_passes_or_dropout(tiny: tuple[Context, FewShotRows]) -> None:
    context, rows = tiny
    context.model.train()
    parts = parts_of(context.model)
    found = []
    for examples, budget in ((rows.train, 1000), (rows.train[::-1], 20)):
        train = context.config.train.model_copy(update={"max_tokens_per_microbatch": budget})
        with parts.inserted(context.model):
            set_prototypes(replace(context, config=context.config.model_copy(update={"train": train})), parts, examples)
        found.append(parts.prototypes.clone())
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


def test_labels_of_scored_rows_are_never_looked_at(tiny: tuple[Context, FewShotRows]) -> None:
    context, rows = tiny
    score = scorer(context, tune(context, rows).parts, rows.words)
    blind = [replace(row, label=-1) for row in rows.dev]
    np.testing.assert_array_equal(score(rows.dev), score(blind))


def test_scores_with_a_bfloat16_backbone_are_float32(tiny: tuple[Context, FewShotRows]) -> None:
    context, rows = tiny
    model = tiny_model().to(torch.bfloat16)
    parts = tune(replace(context, model=model), rows).parts
    assert {tensor.dtype for tensor in parts.values()} == {torch.float32}
    assert scorer(replace(context, model=model), parts, rows.words)(rows.dev).dtype == np.float32


def test_gradient_checkpointing_gives_the_same_gradients(tiny: tuple[Context, FewShotRows]) -> None:
    context, rows = tiny
    found = []
    for checkpointing in (False, True):
        model = tiny_model()
        if checkpointing:
            enable_checkpointing(model.backbone)
        model.train()
        parts = parts_of(model)
        with parts.inserted(model):
            backward(replace(context, model=model), parts, rows.train, [1.0] * len(rows.train))
        found.append([parameter.grad for parameter in parts.parameters()])
    torch.testing.assert_close(*found)


SHAPE = {"vocab_size": 96, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4}
CAUSAL = {
    "llama": LlamaConfig(**SHAPE, intermediate_size=24, num_key_value_heads=2),
    "gpt2": GPT2Config(vocab_size=96, n_embd=WIDTH, n_layer=2, n_head=4),
}


@pytest.mark.parametrize("family", CAUSAL)
def test_decoder_only_backbones(tiny: tuple[Context, FewShotRows], family: str) -> None:
    """The state is that at the row's end; adapters stand behind each `mlp`; the backbone stays as it was."""
    context, rows = tiny
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = AutoModelForCausalLM.from_config(CAUSAL[family]).requires_grad_(False).eval()
    model = PromptedCausal(backbone)
    states = mask_states(model, batch_of(rows.train), "decoder")
    for row, state in zip(rows.train, states, strict=True):
        ids = torch.from_numpy(row.input_ids).long().unsqueeze(0)
        plain = backbone.base_model(input_ids=ids).last_hidden_state[:, -1]
        torch.testing.assert_close(state, plain, rtol=1e-4, atol=1e-5)
    before, modules = snapshot(model), list(model.modules())
    config = settings_of(context.config, num_masks=1)
    tuned = tune(replace(context, config=config, model=model), rows)
    fresh = PerfectParts(model, 2, config.fewshot.perfect, seed=0)
    assert len(fresh.adapters) == 2 and len(fresh.norms) == (5 if family == "llama" else 10)
    assert all(not torch.equal(tuned.parts[name], tensor) for name, tensor in fresh.state_dict().items())
    assert is_as(model, before, modules)


def test_it_learns(config: Config) -> None:
    """On a task that a random backbone can do, and better than without a step."""
    perfect = {"steps": 60, "eval_every": 20, "batch_size": 16, "rate": 1e-3, "label_rate": 1e-2}
    config = settings_of(config, **perfect)
    tasks = prepare_tasks(config)
    runner = CellRunner(config, tasks, StartingPoints())
    result = runner.run(Cell("colour", 0, "perfect", 0, 16, 0))
    losses = [point.loss for point in result.curve]
    assert losses[-1] < 0.5 * losses[0]
    assert result.score == np.mean(result.scores.argmax(axis=1) == np.asarray(result.labels))
    assert result.pattern_text == "{text} <X>" and result.definition.perfect == config.fewshot.perfect


def test_the_next_method_is_not_affected(config: Config) -> None:
    config = settings_of(config, steps=3, eval_every=3)
    tasks = prepare_tasks(config)
    vanilla = Cell("colour", 0, "prompt_tuning", 0, 4, 0)
    alone = CellRunner(config, tasks, StartingPoints()).run(vanilla)
    runner = CellRunner(config, tasks, StartingPoints())
    runner.run(Cell("colour", 0, "perfect", 0, 4, 0))
    after = runner.run(vanilla)
    np.testing.assert_array_equal(after.scores, alone.scores)
    np.testing.assert_array_equal(after.prompt, alone.prompt)


def test_keys_depend_on_the_settings_of_perfect_for_its_own_cells_only(config: Config) -> None:
    tasks = prepare_tasks(config)
    cells = [Cell("colour", 0, method, 0, 4, 0) for method in ("perfect", "prompt_tuning")]
    keys = [cell_keys(c, tasks, StartingPoints(), cells) for c in (config, settings_of(config, reduction=8))]
    assert keys[0][cells[0]] != keys[1][cells[0]] and keys[0][cells[1]] == keys[1][cells[1]]


LAYOUTS = {
    **dict.fromkeys(("mr", "cr", "sst-2", "sst-5", "subj", "trec"), "{text} <X>"),
    "boolq": "{passage} {question} <X>",
    **dict.fromkeys(("rte", "cb"), "{premise} <X> {hypothesis}"),
    "wic": "{word} {sentence1} <X> {sentence2}",
    "qnli": "{sentence} <X> {question}",
    "qqp": "{question1} <X> {question2}",
    "mrpc": "{sentence1} <X> {sentence2}",
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(config: Config, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    task = load_task(name)
    assert asked(task, "plain").patterns == [LAYOUTS[name]]
    # Label words of real tasks are unknown to the tiny tokenizer; they play no part.
    task = task.model_copy(
        update={"label_words": ["red", "green", "blue", "grey", "ochre", "river"][: len(task.label_words)]}
    )
    config = settings_of(config, num_masks=3)
    template = build_template(config, task, 0, tokenizer, "plain")
    short = Row({field: f"the red {field} <extra_id_1>" for field in task.fields}, 0)
    long = Row(dict.fromkeys(task.fields, "the red river " * 100) | {"word": "tower"}, 0)
    slots = tokenizer.convert_tokens_to_ids([f"<extra_id_{index}>" for index in range(3)])
    for example in template.encode([short, long]):
        ids = example.input_ids.tolist()
        assert [token for token in ids if token in slots] == slots == example.target_ids.tolist()
        assert ids[ids.index(slots[0]) :][:3] == slots
        assert tokenizer.eos_token_id not in ids and len(ids) <= config.max_input_tokens
        assert name != "wic" or "tower" in tokenizer.decode(ids) or "word" in tokenizer.decode(ids)
