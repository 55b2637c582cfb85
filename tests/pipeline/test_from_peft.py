"""Prompts that come back from PEFT adapters and from the hub's cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from fewshot_material import PROMPT_LENGTH, WIDTH, make_backbone
from peft import PromptTuningConfig, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from scripts import call
from transformers import AutoModelForSeq2SeqLM
from tuned_cells import make_cells, rows_of

from supmer.config import Config
from supmer.errors import UserError
from supmer.fewshot.places import local_place
from supmer.fewshot.starting_points import read_prompt
from supmer.predict.predictor import Predictor

CELL = "colour.supmer.k4.pattern0.seed0"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return make_cells(tmp_path_factory.mktemp("cells"))


@pytest.fixture
def adapter(run: Config, tmp_path: Path) -> Path:
    """A cell's prompt as `export peft` writes it."""
    done = call("export.py", "peft", "--run", run.run_dir, "--cell", CELL, "--out", tmp_path / "adapter")
    assert done.returncode == 0, done.stderr
    return tmp_path / "adapter"


def test_what_was_exported_comes_back_bit_for_bit(run: Config, adapter: Path, tmp_path: Path) -> None:
    done = call("export.py", "from-peft", "--adapter", adapter, "--out", tmp_path / "back")
    assert done.returncode == 0 and "fewshot.from_run=" in done.stdout, done.stderr
    cell = Path(run.run_dir) / "fewshot" / CELL
    for name in ("prompt.safetensors", "definition.json"):
        assert (tmp_path / "back" / name).read_bytes() == (cell / name).read_bytes()
    details = json.loads((cell / "details.json").read_text())
    rows = rows_of(run)["colour"][:20]
    for place in (adapter, tmp_path / "back"):
        predictor = Predictor.load(str(place))
        labels = predictor.predict(rows).labels
        assert labels == [details["record"]["label_words"][np.argmax(scores)] for scores in details["scores"][:20]]
    torch.testing.assert_close(read_prompt(str(adapter), "x"), load_file(cell / "prompt.safetensors")["prompt"])


def test_the_card_gives_the_measures_as_the_hub_reads_them(run: Config, adapter: Path) -> None:
    [model] = yaml.safe_load((adapter / "README.md").read_text().split("---")[1])["model-index"]
    record = json.loads((Path(run.run_dir) / "fewshot" / CELL / "details.json").read_text())["record"]
    [result] = model["results"]
    assert result["metrics"] == [{"type": "accuracy", "name": "accuracy", "value": record["score"]}]
    assert result["dataset"]["type"] == "colour" and "200 test rows" in result["dataset"]["name"]


# PEFT 0.21 reads a property that transformers 5 has renamed.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_an_adapter_that_peft_itself_has_made_is_read(tmp_path: Path) -> None:
    backbone = AutoModelForSeq2SeqLM.from_pretrained(make_backbone(tmp_path / "t5"), dtype=torch.float32)
    config = PromptTuningConfig(
        task_type=TaskType.SEQ_2_SEQ_LM, num_virtual_tokens=PROMPT_LENGTH, num_transformer_submodules=1
    )
    model = get_peft_model(backbone, config)
    model.save_pretrained(tmp_path / "adapter")
    done = call("export.py", "from-peft", "--adapter", tmp_path / "adapter", "--out", tmp_path / "back")
    assert done.returncode == 0, done.stderr
    [prompt] = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert torch.equal(load_file(tmp_path / "back" / "prompt.safetensors")["prompt"], prompt.detach())


def other_config(folder: Path, **values: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"peft_type": "LORA"}, "adapter_config.json has peft_type=LORA, must be PROMPT_TUNING"),
        ({"task_type": "SEQ_CLS"}, "task_type=SEQ_CLS, must be SEQ_2_SEQ_LM or CAUSAL_LM"),
        ({"num_transformer_submodules": 2}, "num_transformer_submodules=2, must be 1 (2 also prompts the decoder)"),
        ({"num_virtual_tokens": 7}, f"has shape ({PROMPT_LENGTH}, {WIDTH}), adapter_config.json says (7, {WIDTH})"),
    ],
)
def test_another_adapter_is_refused(adapter: Path, tmp_path: Path, values: dict[str, Any], message: str) -> None:
    other_config(adapter, **values)
    done = call("export.py", "from-peft", "--adapter", adapter, "--out", tmp_path / "back")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert message in done.stderr
    assert not (tmp_path / "back").exists()


def test_a_base_model_of_another_width_is_refused(adapter: Path, tmp_path: Path) -> None:
    from supmer.config import BackboneConfig

    other_config(adapter, base_model_name_or_path=BackboneConfig(name="embedded").location)
    done = call("export.py", "from-peft", "--adapter", adapter, "--out", tmp_path / "back")
    assert done.returncode == 2 and f"its prompt has width {WIDTH}, its base model" in done.stderr


@pytest.mark.parametrize("damage", ["missing", "pickled", "not finite", "no json"])
def test_damage_is_one_line(adapter: Path, tmp_path: Path, damage: str) -> None:
    weights = adapter / "adapter_model.safetensors"
    if damage == "pickled":
        weights.rename(adapter / "adapter_model.bin")
    elif damage == "not finite":
        save_file({"prompt_embeddings": torch.full((PROMPT_LENGTH, WIDTH), torch.nan)}, weights)
    elif damage == "no json":
        (adapter / "adapter_config.json").write_text("[" * 10_000)
    else:
        shutil.rmtree(adapter)
    done = call("export.py", "from-peft", "--adapter", adapter, "--out", tmp_path / "back")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stderr.startswith("error: --adapter")


def test_a_folder_of_the_hubs_cache_is_a_place(run: Config, tmp_path: Path) -> None:
    cache, commit = tmp_path / "models--me--prompt", "0" * 40
    shutil.copytree(Path(run.run_dir) / "fewshot" / CELL, cache / "snapshots" / commit)
    place = cache / "snapshots" / commit
    assert local_place(str(cache), "x") == str(place)
    shutil.copytree(place, cache / "snapshots" / ("1" * 40))
    with pytest.raises(UserError, match=r"x=.*: must name one of its snapshots"):
        local_place(str(cache), "x")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    assert read_prompt(str(cache), "x").shape == (PROMPT_LENGTH, WIDTH)
    assert Predictor.load(str(cache)).task.name == "colour"
    assert local_place(run.run_dir, "x") == run.run_dir


@pytest.mark.parametrize("place", ["hf://prompt", "hf://a/b/c"])
def test_a_name_that_no_repository_has_is_refused(place: str) -> None:
    with pytest.raises(UserError, match=r"fewshot\.from_run=hf://.*: must be hf://user/repo"):
        local_place(place, "fewshot.from_run")


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"fewshot\.from_run=hf://me/prompt: cannot be fetched"):
        local_place("hf://me/prompt", "fewshot.from_run")
