"""`backbone.name=warmup` through the real corpus reader: made once, re-used, never half there."""

from __future__ import annotations

import logging
import random
from pathlib import Path

import pytest
import ray

from supmer.backbone.load import load_backbone, load_tokenizer
from supmer.cli import load_config
from supmer.config import Config
from supmer.errors import UserError
from supmer.pretrain.warmup import choose_texts, resolve_backbone

SMALL = {
    **{"vocab_size": 600, "d_model": 16, "d_ff": 16, "num_layers": 1, "num_heads": 2},
    **{"steps": 2, "batch_size": 4, "sequence_length": 32},
}


def config(folder: Path, *overrides: str) -> Config:
    return load_config(
        None,
        [
            "backbone.name=warmup",
            f"backbone.cache_dir={folder}",
            "corpus.format=package_docs",
            "corpus.packages=[optuna]",
            *(f"backbone.warmup.{name}={value}" for name, value in SMALL.items()),
            *overrides,
        ],
    )


def test_other_backbones_are_left_alone(tmp_path: Path) -> None:
    other = config(tmp_path, f"backbone.name={tmp_path}")
    assert resolve_backbone(other) is other
    assert list(tmp_path.iterdir()) == []


def test_choice_of_texts_does_not_depend_on_order() -> None:
    documents = [(f"document {number}", f"{number:02d} " * 10) for number in range(40)]
    shuffled = random.Random(0).sample(documents, len(documents))
    assert choose_texts(shuffled, 10_000) == [text for _, text in sorted(documents)]
    some = choose_texts(shuffled, 300)
    assert some == choose_texts(documents, 300)
    assert len(some) == 10


@pytest.mark.cluster
def test_backbone_is_made_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    try:
        first = resolve_backbone(config(tmp_path))
        with pytest.raises(UserError, match=r"backbone\.warmup\.sequence_length=10000"):
            resolve_backbone(config(tmp_path, "backbone.warmup.sequence_length=10000"))
    finally:
        ray.shutdown()
    folder = Path(first.backbone.name)
    assert folder.is_absolute() and folder.parent == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == [folder.name], "a failed or finished run leaves other files"
    assert len(load_tokenizer(first.backbone)) == load_backbone(first.backbone).config.vocab_size == 700
    assert "held-out span-corruption loss" in caplog.text and "re-used" not in caplog.text

    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert resolve_backbone(config(tmp_path, "run.seed=7", "corpus.min_unit_tokens=9")) == first.model_copy(
        update={
            "run": first.run.model_copy(update={"seed": 7}),
            "corpus": first.corpus.model_copy(update={"min_unit_tokens": 9}),
        }
    )
    assert "re-used" in caplog.text
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
