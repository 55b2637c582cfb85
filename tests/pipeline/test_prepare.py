"""`pipeline/prepare.py` as a user runs it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from scripts import Finished, call, run
from transformers import T5Config, T5ForConditionalGeneration

from experiments.embedded_backbone.tokenizer import train_tokenizer
from supmer.corpus.manifest import SCHEMA_VERSION, Manifest, StoredFile, write_manifest

WORDS = ["river", "stone", "engine", "letter", "garden", "music", "number", "window", "market", "winter"]
DOCUMENTS = [
    " ".join(f"The {WORDS[(i + j) % 10]} of {WORDS[i % 7]} holds a {WORDS[(3 * i + 2 * j) % 10]}." for j in range(12))
    for i in range(30)
]


def assert_one_line(result: Finished, message: str) -> None:
    assert result.returncode == 2, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]
    assert result.stderr.splitlines()[-1] == errors[0]
    assert "Traceback" not in result.stderr


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbone")
    tokenizer = train_tokenizer(DOCUMENTS, 110)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = T5Config(vocab_size=len(tokenizer), d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
        sizes.decoder_start_token_id = 0
        T5ForConditionalGeneration(sizes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    assert_one_line(
        call("prepare.py", "backbone.name=embedded", f"corpus.paths=[{tmp_path}]"),
        f"corpus.paths={tmp_path}: no files there",
    )


def test_a_store_is_inspected_without_preparing_anything(tmp_path: Path) -> None:
    files = [
        StoredFile(split="train", cluster=0, path="a", row_groups=[30, 30]),
        StoredFile(split="validation", cluster=0, path="b", row_groups=[7]),
        StoredFile(split="train", cluster=1, path="c", row_groups=[40]),
    ]
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        fingerprint="f00",
        inputs={"sentencex": "1.2"},
        embeddings="text-a/embeddings-b",
        counts={"units": 107, "broken_files": 2},
        d_model=8,
        min_cluster_size=16,
        inertia=1.5,
        merged_from=[[0, 2], [1]],
        nearest=[["A river."], ["A stone."]],
        typical_words=[["river", "water"], ["stone"]],
        silhouette=0.25,
        files=files,
    )
    write_manifest(str(tmp_path / "store"), manifest)
    result = call("prepare.py", "--inspect", str(tmp_path / "store"))
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert {"units: 107", "broken_files: 2", 'sentencex: "1.2"'} <= set(lines)
    assert "cluster 0 (60 train + 7 validation, merged from 2): [river, water] A river." in lines
    assert "cluster 1 (40 train + 0 validation): [stone] A stone." in lines
    assert_one_line(call("prepare.py", "--inspect", str(tmp_path)), f"store {tmp_path}: has no manifest.json")


@pytest.mark.slow
def test_a_store_is_prepared_then_re_used(tmp_path: Path, backbone: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.txt").write_text("\n".join(DOCUMENTS) + "\n")
    settings = [
        f"backbone.name={backbone}",
        f"corpus.paths=[{tmp_path}/a.txt]",
        "corpus.text_document=line",
        "corpus.validation_fraction=0.4",
        f"corpus.store_dir={tmp_path}/stores",
        "tasks.num_support=2",
        "tasks.num_query=2",
        "tasks.num_options=2",
    ]
    first = run("prepare.py", *settings, "clusters.num_clusters=4")
    assert first.returncode == 0, first.stderr
    assert "Warning" not in first.stderr
    assert "cluster 0 (" in first.stderr and "median" in first.stderr
    assert call("prepare.py", *settings, "clusters.num_clusters=4").returncode == 0
    assert "re-used" in caplog.text and "took" not in caplog.text
    listed = call("prepare.py", "--list-stores", f"corpus.store_dir={tmp_path}/stores")
    names = [line.split()[0] for line in listed.stdout.splitlines()[1:-1]]
    assert (listed.returncode, len(names)) == (0, 3), listed.stderr
    removed = call("prepare.py", "--remove", ",".join(names), f"corpus.store_dir={tmp_path}/stores")
    assert removed.returncode == 0 and removed.stdout.count("freed") == 2
    assert not list((tmp_path / "stores").iterdir())
