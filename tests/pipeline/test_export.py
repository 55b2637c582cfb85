from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from fewshot_material import PROMPT_LENGTH, WIDTH, job_settings, make_backbone, make_run, make_task, sentences
from peft import PeftModel
from safetensors.torch import load_file, save_file
from scripts import ROOT, call
from transformers import AutoModelForSeq2SeqLM

from experiments.embedded_backbone.tokenizer import train_tokenizer
from supmer.backbone.load import load_tokenizer
from supmer.config import Config
from supmer.config.load import to_yaml, validate
from supmer.errors import UserError
from supmer.fewshot.cell_runner import CellRunner
from supmer.fewshot.cells import Cell
from supmer.fewshot.comparison import prepare_tasks
from supmer.fewshot.peft_adapter import export_peft
from supmer.fewshot.published import convert_published
from supmer.fewshot.results import Results
from supmer.fewshot.starting_points import StartingPoints, read_starting_points
from supmer.model.build import build_model
from supmer.model.rows import Rows

# PEFT 0.21 reads a property that transformers 5 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

PUBLISHED_LENGTH, PUBLISHED_WIDTH = 100, 768


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config]:
    folder = tmp_path_factory.mktemp("export")
    settings = job_settings(make_backbone(folder / "t5", tied=request.param), make_task(folder), folder / "runs")
    config = validate(settings)
    run = make_run(Path(config.run_dir))
    (run / "config.yaml").write_text(to_yaml(config))
    return run, config


def our_logits(config: Config, prompt: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor) -> Any:
    rows = Rows(ids, mask, torch.full_like(ids, -1), labels, torch.zeros(len(ids), dtype=torch.long))
    with torch.no_grad():
        return build_model(config).double()(prompt.double().unsqueeze(0), rows).logits


def peft_logits(config: Config, adapter: Path, ids: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor) -> Any:
    backbone = AutoModelForSeq2SeqLM.from_pretrained(config.backbone.name, dtype=torch.float32)
    model = PeftModel.from_pretrained(backbone, str(adapter)).double().eval()
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask, labels=labels).logits


def test_logits_through_peft_equal_ours(run: tuple[Path, Config], tmp_path: Path) -> None:
    folder, config = run
    export_peft(str(folder), str(tmp_path))
    tokenizer = load_tokenizer(config.backbone)
    encoded = tokenizer(
        [f"{text} It was <extra_id_0> ." for text in sentences(40, seed=9)],
        add_special_tokens=False,
        padding=True,
        return_tensors="pt",
    )
    labels = tokenizer(["<extra_id_0> good<extra_id_1>"] * 40, add_special_tokens=False, return_tensors="pt").input_ids
    inputs = (encoded.input_ids, encoded.attention_mask, labels)
    prompt = load_file(folder / "prompt.safetensors")["prompt"]
    expected = our_logits(config, prompt, *inputs)
    torch.testing.assert_close(peft_logits(config, tmp_path, *inputs), expected)
    assert not torch.allclose(our_logits(config, prompt + 1, *inputs), expected, atol=1e-2)


def test_an_adapter_starts_pefts_own_prompt_tuning(run: tuple[Path, Config], tmp_path: Path) -> None:
    folder, config = run
    export_peft(str(folder), str(tmp_path))
    continued = (tmp_path / "README.md").read_text().split("```python\n")[2].split("```")[0]
    backbone = AutoModelForSeq2SeqLM.from_pretrained(config.backbone.name, dtype=torch.float32)
    names: dict[str, Any] = {"backbone": backbone}
    exec(continued.replace("this/folder", str(tmp_path)), names)
    model = names["model"]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert [tuple(parameter.shape) for parameter in trainable] == [(PROMPT_LENGTH, WIDTH)]
    torch.testing.assert_close(trainable[0].detach(), load_file(folder / "prompt.safetensors")["prompt"])
    ids = torch.tensor([[5, 6, 7]])
    model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss.backward()
    assert trainable[0].grad.abs().sum() > 0


def test_the_model_card_names_the_backbone_and_its_example_runs(run: tuple[Path, Config], tmp_path: Path) -> None:
    """The tuned prompt of a cell is exported; its card's example gives the prediction that the harness made."""
    folder, config = run
    cell = Cell("colour", 0, "prompt_tuning", 0, 4, 0)
    tasks = prepare_tasks(config)
    result = CellRunner(config, tasks, StartingPoints()).run(cell)
    Results(str(folder)).add(result, "key")
    with pytest.raises(UserError, match="--cell nonsense: no such folder in"):
        export_peft(str(folder), str(tmp_path), cell="nonsense")
    export_peft(str(folder), str(tmp_path), cell=cell.name)
    card = (tmp_path / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "peft" and front["base_model"] == config.backbone.name
    assert f"accuracy on 100 test rows: {result.score:.4f}" in card
    example = card.split("```python\n")[1].split("```")[0]
    row = tasks["colour"].rows.test[0]
    example = example.replace("this/folder", str(tmp_path)).replace("{text}", row.fields["text"])
    printed: list[str] = []
    exec(example, {"print": printed.append})
    assert printed == [["bad", "good"][int(result.scores[0].argmax())]]
    assert run_readme_example(card, tmp_path, row.fields["text"]) == printed


@pytest.mark.parametrize(
    ("words", "own_tokenizer"),
    [
        (["window", "window s"], False),
        (["tower", "garden"], True),
        (["very good", "very bad"], True),
    ],
)
def test_a_card_predicts_as_the_harness_does(tmp_path: Path, words: list[str], own_tokenizer: bool) -> None:
    """Words that begin with the same token, one word that begins with another, and a tokenizer unlike the backbone's."""
    task = make_task(tmp_path)
    task.write_text(task.read_text().replace("[bad, good]", json.dumps(words)))
    settings = job_settings(make_backbone(tmp_path / "t5", tied=False), task, tmp_path / "runs")
    weights = load_file(tmp_path / "t5" / "model.safetensors")
    weights["lm_head.weight"] *= 20  # else the shortest word would be the likeliest after every text
    save_file(weights, tmp_path / "t5" / "model.safetensors", metadata={"format": "pt"})
    if own_tokenizer:
        train_tokenizer(sentences(300, seed=5), vocab_size=150).save_pretrained(tmp_path / "own")
        settings["backbone"]["tokenizer"] = str(tmp_path / "own")
    settings["fewshot"]["steps"] = 2
    config = validate(settings)
    make_run(Path(config.run_dir))
    (Path(config.run_dir) / "config.yaml").write_text(to_yaml(config))
    tasks = prepare_tasks(config)
    cell = Cell("colour", 0, "prompt_tuning", 0, 4, 0)
    result = CellRunner(config, tasks, StartingPoints()).run(cell)
    Results(config.run_dir).add(result, "key")
    export_peft(config.run_dir, str(tmp_path / "adapter"), cell=cell.name)
    example = (tmp_path / "adapter" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {"print": lambda _: None}
    exec(example.replace("this/folder", str(tmp_path / "adapter")), names)
    rows = [row.fields["text"] for row in tasks["colour"].rows.test]
    found = [names["predict"](f"{text} It was <extra_id_0> .") for text in rows]
    expected = [words[index] for index in result.scores.argmax(axis=1)]
    assert found == expected and len(found) == 100
    assert set(expected) == set(words), "a backbone that always says the same would prove nothing"


def test_an_adapter_of_random_weights_is_refused(run: tuple[Path, Config], tmp_path: Path) -> None:
    _, config = run
    made = make_run(tmp_path / "made")
    weights = config.backbone.model_copy(update={"weights": "random"})
    (made / "config.yaml").write_text(to_yaml(config.model_copy(update={"backbone": weights})))
    with pytest.raises(UserError, match=r"backbone\.weights=random, which no other tool can load"):
        export_peft(str(made), str(tmp_path / "out"))


def run_readme_example(card: str, adapter: Path, text: str) -> list[str]:
    """Run the lines of the README that use peft on another adapter and its task."""
    blocks = [block.split("```")[0] for block in (ROOT / "README.md").read_text().split("```python\n")[1:]]
    (example,) = [block for block in blocks if "from peft import" in block]
    pattern = re.search(r'"(\{text\}.*?)"', card.replace("'", '"'))
    assert pattern is not None
    example = example.replace('"adapter"', repr(str(adapter)))
    example = re.sub(r"(?m)^text = .*$", lambda _: f"text = {pattern[1].replace('{text}', text)!r}", example)
    example = re.sub(r"(?m)^words = .*$", "words = ['bad', 'good']", example)
    printed: list[str] = []
    exec(example, {"print": printed.append})
    return printed


def test_a_run_that_does_not_name_its_backbone_needs_base_model(run: tuple[Path, Config], tmp_path: Path) -> None:
    _, config = run
    made = make_run(tmp_path / "made")
    with pytest.raises(UserError, match=r"has no config.yaml that names the backbone; give --base-model"):
        export_peft(str(made), str(tmp_path / "out"))
    export_peft(str(made), str(tmp_path / "out"), base_model=config.backbone.name)
    written = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert written["num_transformer_submodules"] == 1 and written["base_model_name_or_path"] == config.backbone.name
    with pytest.raises(UserError, match=r"has no prompt.safetensors"):
        export_peft(str(tmp_path / "nowhere"), str(tmp_path / "out"), base_model=config.backbone.name)


def published_regularizer(width: int = PUBLISHED_WIDTH) -> dict[str, torch.Tensor]:
    """A state dict with the names, shapes and NaN statistics of a published file."""
    generator = torch.Generator().manual_seed(4)
    rank = min(1920, width)
    state = {}
    for layer in range(2):
        state[f"mlp.layers.{layer}.u"] = torch.randn(width, rank, generator=generator)
        state[f"mlp.layers.{layer}.v"] = torch.randn(rank, width, generator=generator)
        state[f"mlp.layers.{layer}.bias"] = torch.zeros(width)
    state |= {"mlp.linear_1.weight": torch.randn(24, width, generator=generator), "mlp.linear_1.bias": torch.zeros(24)}
    state |= {"mlp.linear_2.weight": torch.randn(1, 24, generator=generator), "mlp.linear_2.bias": torch.zeros(1)}
    nan = torch.full((width,), torch.nan)
    return state | {"grad_mean": nan, "grad_std": nan, "grad_s": nan, "k": torch.full((1,), torch.nan)}


@pytest.fixture
def published(tmp_path: Path) -> tuple[Path, Path]:
    torch.save(torch.randn(PUBLISHED_LENGTH, PUBLISHED_WIDTH), tmp_path / "prompt_t5-base.pt")
    torch.save(published_regularizer(), tmp_path / "gradient_edit_t5-base.pt")
    return tmp_path / "prompt_t5-base.pt", tmp_path / "gradient_edit_t5-base.pt"


def test_published_files_survive_the_round_trip_and_run(published: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    files = ("--prompt", published[0], "--regularizer", published[1])
    finished = call("export.py", "from-published", *files, "--out", out)
    assert finished.returncode == 0, finished.stderr
    prompt = load_file(out / "prompt.safetensors")["prompt"]
    torch.testing.assert_close(prompt, torch.load(published[0], weights_only=True), rtol=0, atol=0)
    state = load_file(out / "regularizer.safetensors")
    original = published_regularizer()
    assert state.keys() == original.keys()
    for name, tensor in original.items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=0, equal_nan=True)
    config = validate({"prompt": {"length": PUBLISHED_LENGTH}, "fewshot": {"from_run": str(out)}})
    points = read_starting_points(config, ["prompt", "regularizer"], PUBLISHED_WIDTH)
    assert points.prompt is not None and points.regularizer is not None


class Malicious:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (self.path, "w"))


def save(value: Any, file: Path) -> None:
    torch.save(value, file)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: save({"a": 1}, file), r"must hold one float tensor \[L, d\], not a dict"),
        (lambda file: save(torch.ones(3), file), r"not a torch.float32 tensor of shape \(3,\)"),
        (lambda file: save(torch.ones(3, 3, dtype=torch.int64), file), r"not a torch.int64 tensor of shape \(3, 3\)"),
        (lambda file: save(torch.full((3, 3), torch.nan), file), "the prompt holds values that are not finite"),
        (lambda file: save(torch.ones(1, 1).expand(9_000, 60_000), file), "has 540000000 elements, at most"),
        (lambda file: save(torch.ones(1, 1).expand(10**9, 10**9), file), r"shape \(1000000000, 1000000000\) is beyond"),
        (lambda file: save(torch.empty(0, 8), file), r"shape \(0, 8\) is beyond"),
        (lambda file: save(torch.ones(3, 3).to_sparse(), file), "must hold one float tensor"),
        (lambda file: save(Malicious(file.parent / "created"), file), "not an archive of plain tensors, refused"),
        (lambda file: file.write_bytes(pickle.dumps(Malicious(file.parent / "created"))), "not an archive of plain tensors"),
        (lambda file: file.write_bytes(b"PK\x03\x04 nonsense"), "not an archive of plain tensors"),
        (lambda file: file.write_bytes(b""), "not an archive of plain tensors"),
        (lambda file: file.unlink(missing_ok=True), "no such file"),
    ],
)
def test_hostile_prompts_are_refused_in_one_line(tmp_path: Path, spoil: Any, message: str) -> None:
    spoil(tmp_path / "prompt.pt")
    with pytest.raises(UserError, match=message) as caught:
        convert_published(str(tmp_path / "prompt.pt"), None, str(tmp_path / "out"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "created").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mlp.layers.0.u": None}, "needs mlp.layers"),
        ({"mlp.layers.1.bias": None}, "tensor 'mlp.layers.1.bias' is missing"),
        ({"extra": torch.ones(1)}, "tensor 'extra' does not belong there"),
        ({"mlp.linear_2.weight": torch.ones(2, 24)}, r"mlp.linear_2.weight has shape \(2, 24\), must be \(1, 24\)"),
        ({"mlp.layers.0.v": torch.ones(1, 1).expand(10**9, 10**9)}, "mlp.layers.0.v has shape"),
        ({"mlp.layers.0.u": torch.ones(1, 1).expand(10**9, 10**9)}, "of rank 1000000000 and 1 hidden layers is too large"),
        ({"mlp.layers.0.u": torch.ones(8, 4)}, r"mlp.layers.0.v has shape \(8, 8\), must be \(4, 8\)"),
        ({"mlp.layers.0.bias": torch.full((8,), torch.inf)}, "mlp.layers.0.bias holds values that are not finite"),
        ({"mlp.layers.0.bias": "text"}, "must hold a dict of float tensors by name"),
        ({"mlp.layers.5.u": torch.ones(8, 8)}, "needs mlp.layers"),
    ],
)
def test_hostile_regularizers_are_refused_in_one_line(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    torch.save(torch.ones(3, 8), tmp_path / "prompt.pt")
    state = {name: value for name, value in {**published_regularizer(8), **change}.items() if value is not None}
    torch.save(state, tmp_path / "regularizer.pt")
    with pytest.raises(UserError, match=message) as caught:
        convert_published(str(tmp_path / "prompt.pt"), str(tmp_path / "regularizer.pt"), str(tmp_path / "out"))
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_mistake_on_the_command_line_ends_with_code_2(tmp_path: Path) -> None:
    finished = call("export.py", "from-published", "--prompt", "none.pt", "--out", tmp_path / "out")
    assert finished.returncode == 2 and finished.stderr == "error: --prompt none.pt: no such file\n"
