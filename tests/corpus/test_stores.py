"""Listing and removing what lies in a folder of stores, and the folders that settings lead to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from supmer import storage
from supmer.config import Config
from supmer.config.load import load_config
from supmer.corpus.fingerprint import Places, describe_inputs
from supmer.corpus.levels import mark_used, write_embeddings, write_text
from supmer.corpus.manifest import SCHEMA_VERSION, Manifest, write_manifest
from supmer.corpus.stores import list_stores, remove_stores, table
from supmer.corpus.tables import write_array
from supmer.errors import UserError
from supmer.readers.skipped import Skipped

TEXT, EMBEDDINGS = "text-0a", "text-0a/embeddings-0b"


def write_all(folder: str) -> None:
    """Write a text, its embeddings, a store made from them, what an interrupted preparation left, and a file of others."""
    write_text(storage.join(folder, TEXT), {}, [], Skipped({"units": 1200, "documents": 30}))
    write_array(storage.join(folder, EMBEDDINGS, "000000-000000.npy"), np.zeros((1200, 8), np.float32))
    write_embeddings(storage.join(folder, EMBEDDINGS), 1200, "t5-base")
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        fingerprint="0c",
        inputs={},
        embeddings=EMBEDDINGS,
        counts={},
        d_model=8,
        min_cluster_size=16,
        inertia=1.0,
        merged_from=[[0], [1]],
        nearest=[[], []],
        typical_words=[[], []],
        silhouette=None,
        files=[],
    )
    write_manifest(storage.join(folder, "0c"), manifest)
    storage.write_bytes(storage.join(folder, "0d", "manifest.json"), b'{"schema_version": 1}')
    storage.write_bytes(storage.join(folder, "0e", "work", "sorted", "000000.parquet"), b"x" * 1500)
    storage.write_bytes(storage.join(folder, "notes", "mine.txt"), b"x")
    storage.write_bytes(storage.join(folder, "readme"), b"x")


def test_everything_is_listed_with_its_size_and_last_use(tmp_path: Path) -> None:
    write_all(str(tmp_path))
    listed = {stored.name: stored for stored in list_stores(str(tmp_path))}
    assert list(listed) == ["0c", "0d", "0e", TEXT, EMBEDDINGS]
    assert listed["0e"].num_bytes == 1500
    own = list((tmp_path / EMBEDDINGS).iterdir())
    assert listed[EMBEDDINGS].num_bytes == sum(path.stat().st_size for path in own)
    lines = table(list(listed.values())).splitlines()
    assert [line.split("  ")[-1] for line in lines[1:-1]] == [
        f"store: 2 clusters, from {EMBEDDINGS}",
        "store of schema version 1, which this program cannot read",
        "not complete",
        "text: 1,200 sentences of 30 documents",
        "embeddings: 1,200 sentences by t5-base",
    ]
    assert "1.5 kB" in lines[3]
    before = listed["0c"].used
    mark_used(str(tmp_path / "0c"))
    (after,) = (stored.used for stored in list_stores(str(tmp_path)) if stored.name == "0c")
    assert before is not None and after is not None and after > before


def test_only_what_is_named_is_removed(tmp_path: Path) -> None:
    write_all(str(tmp_path))
    with pytest.raises(UserError, match=r"^--remove=notes: must be one of 0c, 0d, 0e, "):
        remove_stores(str(tmp_path), ["0c", "notes"])
    assert len(list_stores(str(tmp_path))) == 5
    (line,) = remove_stores(str(tmp_path), [TEXT])
    assert line.startswith(f"removed {TEXT}: 38.") and "kB freed; 0c can be used as before" in line
    assert [stored.name for stored in list_stores(str(tmp_path))] == ["0c", "0d", "0e"]
    assert remove_stores(str(tmp_path), ["0d", "0e"])[1] == "removed 0e: 1.5 kB freed"
    assert {path.name for path in tmp_path.iterdir()} == {"0c", "notes", "readme"}


def places(tiny_files: Path, *overrides: str) -> Places:
    given = [f"backbone.name={tiny_files}/backbone", f"corpus.paths=[{tiny_files}/corpus.jsonl]", *overrides]
    config: Config = load_config(None, given)
    return Places.of(config.corpus, describe_inputs(config))


@pytest.mark.parametrize(
    ("setting", "same"),
    [
        ("corpus.embedders=3", {"text", "embeddings", "store"}),
        ("corpus.embed_batch_tokens=64", {"text", "embeddings", "store"}),
        ("meta.steps=7", {"text", "embeddings", "store"}),
        ("clusters.num_clusters=9", {"text", "embeddings"}),
        ("clusters.sample_size=777", {"text", "embeddings"}),
        ("tasks.num_support=5", {"text", "embeddings"}),
        ("corpus.validation_fraction=0.3", {"text", "embeddings"}),
        ("backbone.weights=random", {"text"}),
        ("clusters.embedding_model=some/model", {"text"}),
        ("corpus.min_unit_tokens=4", set()),
        ("corpus.seed=1", set()),
    ],
)
def test_a_setting_changes_what_it_affects_only(tiny_files: Path, setting: str, same: set[str]) -> None:
    one, other = places(tiny_files), places(tiny_files, setting)
    equal = {name for name in ("text", "store") if getattr(one, name) == getattr(other, name)}
    if one.embeddings.split("/")[-1] == other.embeddings.split("/")[-1]:
        equal.add("embeddings")
    assert equal == same


def test_the_sample_is_embedded_once_for_all_numbers_of_clusters(tiny_files: Path) -> None:
    assert places(tiny_files).sample is None
    model = "clusters.embedding_model=some/model"
    one = places(tiny_files, model)
    assert one.sample == places(tiny_files, model, "clusters.num_clusters=9", "tasks.num_support=5").sample
    assert len({one.sample, one.embeddings, places(tiny_files, model, "clusters.sample_size=777").sample}) == 3
