"""The recipe through its command line, with a tiny teacher: a backbone others can load, and stages that are done once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from supmer.backbone.load import load_backbone, load_tokenizer
from supmer.config import BackboneConfig

ROOT = Path(__file__).parents[2]


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


def pretrain(folder: Path, teacher: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    shape = {"vocab_size": 600, "d_model": 32, "d_ff": 32, "num_layers": 2, "num_decoder_layers": 1, "num_heads": 2}
    shape |= {"steps": 6, "batch_size": 4, "sequence_length": 48}
    settings = {"teacher": teacher, "max_sentences": 80, "batch_size": 8}
    command = [sys.executable, str(ROOT / "pipeline" / "pretrain_backbone.py"), "corpus.format=package_docs"]
    command += ["corpus.packages=[optuna]", f"run.dir={folder}", f"backbone.cache_dir={folder / 'cache'}"]
    command += [f"backbone.warmup.{name}={value}" for name, value in shape.items()]
    command += [f"backbone.distill.{name}={value}" for name, value in settings.items()]
    return subprocess.run([*command, *overrides], capture_output=True, text=True, timeout=300, check=False, cwd=folder)


@pytest.mark.cluster
@pytest.mark.slow
def test_a_backbone_is_made_and_its_stages_are_kept(tmp_path: Path) -> None:
    teacher = save_teacher(tmp_path / "teacher")
    first = pretrain(tmp_path, teacher, "run.name=first")
    assert first.returncode == 0, first.stderr
    name = first.stdout.strip().splitlines()[-1].removeprefix("backbone.name=")
    config = BackboneConfig(name=name)
    assert (load_backbone(config).config.num_layers, load_backbone(config).config.num_decoder_layers) == (2, 1)
    assert len(load_tokenizer(config)) == 700
    (prepared,) = (tmp_path / "cache").iterdir()
    assert len(json.loads((prepared / "texts.json").read_text())) > 10
    embedded = {path: path.stat().st_mtime_ns for path in prepared.rglob("*")}

    second = pretrain(tmp_path, teacher, "run.name=second", "backbone.warmup.steps=3")
    assert second.returncode == 0 and "distill" in second.stderr and "teacher:" not in second.stderr, second.stderr
    assert {path: path.stat().st_mtime_ns for path in prepared.rglob("*")} == embedded

    again = pretrain(tmp_path, teacher, "run.name=first")
    assert "is there already" in again.stderr and again.stdout == first.stdout
    other = pretrain(tmp_path, teacher, "run.name=first", "backbone.warmup.steps=9")
    assert other.returncode == 2 and other.stderr.splitlines()[-1].startswith("error: run.name=first: ")
