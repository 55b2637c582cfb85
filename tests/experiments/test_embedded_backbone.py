"""The recipe of the embedded backbone in small, through its command line, and the probe that judges a backbone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scripts import ROOT
from transformers import BertConfig, BertModel, BertTokenizerFast

from experiments.embedded_backbone.pretraining import Pretraining, PretrainingData
from experiments.embedded_backbone.probe import accuracies, largest_class
from experiments.embedded_backbone.settings import RECIPE, Recipe, read_recipe
from experiments.embedded_backbone.stages import make_backbone
from experiments.embedded_backbone.tokenizer import train_tokenizer
from supmer.backbone.load import load_backbone, load_tokenizer
from supmer.config import BackboneConfig
from supmer.config.load import load_config
from supmer.errors import UserError

SMALL = {
    **{"vocab_size": 600, "d_model": 32, "d_ff": 32, "num_layers": 2, "num_decoder_layers": 1, "num_heads": 2},
    **{"steps": 12, "batch_size": 4, "sequence_length": 48, "distill_batch_size": 8, "max_sentences": 80},
    **{"lookup_steps": 3, "rates": [[0, 1e-3], [12, 0]], "checkpoint_every": 5},
}


def small_recipe(**settings: object) -> Recipe:
    return Recipe.model_validate({**yaml.safe_load(RECIPE.read_text()), **SMALL, **settings})


def run_module(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "experiments.embedded_backbone", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)


def save_teacher(folder: Path) -> Path:
    """Write a random BERT of width 16 that knows letters."""
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = BertConfig(
            vocab_size=len(vocabulary), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
        )
        BertModel(sizes).save_pretrained(folder)
    return folder


@pytest.mark.cluster
@pytest.mark.slow
def test_a_backbone_is_made_once_and_others_can_load_it(tmp_path: Path) -> None:
    recipe, settings = tmp_path / "recipe.yaml", small_recipe(teacher=str(save_teacher(tmp_path / "teacher")))
    recipe.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    places = [f"run.dir={tmp_path}", "run.name=small", "corpus.format=package_docs", "corpus.packages=[optuna]"]
    first = run_module("--recipe", recipe, *places)
    assert first.returncode == 0, first.stderr
    config = BackboneConfig(name=first.stdout.strip().splitlines()[-1].removeprefix("backbone.name="))
    assert (load_backbone(config).config.num_layers, load_backbone(config).config.num_decoder_layers) == (2, 1)
    assert len(load_tokenizer(config)) == 700

    whole, settings = load_config(None, places), read_recipe(recipe)
    assert str(make_backbone(whole, settings, lambda: False)) == config.name
    with pytest.raises(UserError, match=r"^run\.name=small: .* was begun with other settings"):
        make_backbone(whole, settings.model_copy(update={"steps": 9}), lambda: False)


def test_a_stopped_and_continued_training_equals_an_unbroken_one(tmp_path: Path) -> None:
    text = ROOT.joinpath("README.md").read_text() + ROOT.joinpath("docs", "method.md").read_text()
    tokenizer = train_tokenizer([text], 600)
    ids = np.asarray(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], dtype=np.int32)
    sentences, sequences = ids[: 100 * 20].reshape(100, 20).tolist(), ids[: 60 * 48].reshape(60, 48)
    vectors = np.random.default_rng(0).standard_normal((700, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    data = PretrainingData(sentences, vectors[:100], sequences, vectors[100:])
    whole, first, second = (Pretraining(tokenizer, data, small_recipe()) for _ in range(3))
    assert whole.run(tmp_path / "whole.pt", lambda: False)
    assert not first.run(tmp_path / "part.pt", lambda: first.step == 7)
    second.load(tmp_path / "part.pt")
    assert second.step == 7 and second.run(tmp_path / "part.pt", lambda: False)
    for ours, theirs in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_mistake_in_the_recipe_is_named(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.read_text().replace("d_ff: 768", "d_ff: 4"))
    with pytest.raises(UserError, match=f"--recipe {path}: d_ff: Input should be greater"):
        read_recipe(path)


def test_the_embedded_backbone_knows_more_than_a_random_one() -> None:
    config = load_config(None, ["backbone.name=embedded", "fewshot.seeds=[0,1]", "fewshot.max_test_rows=60"])
    random = config.backbone.model_copy(update={"weights": "random"})
    ours, theirs = (np.mean(accuracies(config, "library-docs", backbone)) for backbone in (config.backbone, random))
    assert ours > theirs + 0.05
    assert ours > largest_class(config, "library-docs")
