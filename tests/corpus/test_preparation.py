"""Preparation on a real Ray cluster, against the same steps done in one process."""

from __future__ import annotations

import gzip
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from supmer.backbone.load import load_tokenizer
from supmer.config import Config
from supmer.corpus import prepare as prepare_module
from supmer.corpus.clustering import assign, fit_kmeans
from supmer.corpus.cutting import cut_documents
from supmer.corpus.embedding import Encoder
from supmer.corpus.prepare import prepare
from supmer.corpus.reading import read_documents
from supmer.corpus.store import TaskStore
from supmer.corpus.workspace import Workspace
from supmer.errors import UserError

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("cluster")]

MakeConfig = Callable[..., Config]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="module")
def store(make_config: MakeConfig, stores: Path, cluster: None) -> TaskStore:
    return TaskStore.open(prepare(make_config(stores)))


def stored_rows(uri: str) -> dict[str, list[dict]]:
    """Return the rows of every file of a store, by the file's path."""
    root = Path(uri)
    return {
        str(path.relative_to(root)): pq.read_table(path).to_pylist() for path in sorted(root.rglob("split=*/**/*.parquet"))
    }


def test_documents_are_read_with_stable_ids(make_config: MakeConfig, tmp_path: Path, documents: list[str]) -> None:
    rows = {row["document"]: row["text"] for row in read_documents(make_config(tmp_path)).iter_rows()}
    assert rows == {f"a.jsonl#{i}" if i < 25 else f"b.jsonl#{i - 25}": text for i, text in enumerate(documents)}
    limited = [row["document"] for row in read_documents(make_config(tmp_path, "corpus.max_documents=27")).iter_rows()]
    assert sorted(limited) == sorted([*rows][:27])


def test_store_holds_what_one_process_computes(store: TaskStore, make_config: MakeConfig, documents: list[str]) -> None:
    config = make_config(Path("unused"))
    named = [(f"a.jsonl#{i}" if i < 25 else f"b.jsonl#{i - 25}", text) for i, text in enumerate(documents)]
    units, _ = cut_documents(named, config.corpus, load_tokenizer(config.backbone))
    embeddings = Encoder(config.backbone, 4096).embed([np.array(ids, np.int32) for ids in units["tokens"].to_pylist()])
    fits = [fit_kmeans(embeddings, config.clusters, 0, restart) for restart in range(config.clusters.restarts)]
    best = min(fits, key=lambda fit: fit.inertia)
    assert store.manifest.inertia == pytest.approx(best.inertia, rel=1e-5)
    clusters = assign(embeddings, best.centroids)
    expected = {
        (row["document"], row["position"]): (row, members)
        for row, cluster in zip(units.to_pylist(), clusters, strict=True)
        for members in store.manifest.merged_from
        if cluster in members
    }
    found = 0
    for path, rows in stored_rows(store.uri).items():
        cluster = int(path.split("cluster=")[1].split("/")[0])
        for row in rows:
            original, members = expected[row["document"], row["position"]]
            assert members == store.manifest.merged_from[cluster]
            assert row == {name: original[name] for name in row}
            found += 1
    assert found == len(units) == store.manifest.counts["units"] == 800


def test_no_document_is_in_both_splits(store: TaskStore) -> None:
    documents: dict[str, set[str]] = {"train": set(), "validation": set()}
    for path, rows in stored_rows(store.uri).items():
        documents[path.split("/")[0].removeprefix("split=")].update(row["document"] for row in rows)
    assert not documents["train"] & documents["validation"]
    assert (len(documents["train"]), len(documents["validation"])) == (28, 12)


def test_manifest_tells_every_row_group(store: TaskStore) -> None:
    manifest = store.manifest
    for file in manifest.files:
        metadata = pq.read_metadata(f"{store.uri}/{file.path}")
        assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == file.row_groups
    assert sum(file.num_rows for file in manifest.files) == 800
    assert set(stored_rows(store.uri)) == {file.path for file in manifest.files}
    assert not Path(store.uri, "work").exists()
    assert all(manifest.size("train", cluster) >= manifest.min_cluster_size for cluster in range(manifest.num_clusters))
    assert manifest.counts["clusters_merged_away"] == 6 - manifest.num_clusters


def test_equal_inputs_are_not_prepared_twice(
    store: TaskStore, make_config: MakeConfig, stores: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = {path: path.stat().st_mtime_ns for path in stores.rglob("*")}
    caplog.set_level(logging.INFO)
    assert prepare(make_config(stores, "run.seed=5", "corpus.embedders=1", "meta.steps=7")) == store.uri
    assert f"store {store.uri} re-used" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in stores.rglob("*")} == before


def test_parallelism_does_not_change_the_store(store: TaskStore, make_config: MakeConfig, tmp_path: Path) -> None:
    other = prepare(make_config(tmp_path, "corpus.embedders=1"))
    assert stored_rows(other) == stored_rows(store.uri)
    assert Path(other, "manifest.json").read_text() == Path(store.uri, "manifest.json").read_text()


def test_an_interrupted_preparation_goes_on(
    store: TaskStore, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "write_centroids", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare(make_config(tmp_path))
    (uri,) = (str(path) for path in tmp_path.iterdir())
    with pytest.raises(UserError, match="not a complete one"):
        TaskStore.open(uri)
    finished = {
        path: path.stat().st_mtime_ns for kind in ("units", "embeddings") for path in Path(uri, "work", kind).iterdir()
    }
    assert finished
    with monkeypatch.context() as patch:
        patch.setattr(Workspace, "delete", lambda _: None)
        assert prepare(make_config(tmp_path)) == uri
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert stored_rows(uri) == stored_rows(store.uri)


def test_broken_inputs_are_counted_and_the_store_is_valid(make_config: MakeConfig, corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    shutil.copytree(corpus, folder)
    whole = gzip.compress("\n".join(json.dumps({"text": f"{i} " * 50}) for i in range(50)).encode())
    (folder / "c.jsonl.gz").write_bytes(whole[:-20])
    (folder / "d.jsonl").write_bytes(b'\xff\n{broken\n{"text": "one too short"}\n')
    (folder / "e.parquet").write_bytes(b"PAR1 this is none")
    (folder / "f.docx").write_bytes(b"")
    store = TaskStore.open(prepare(make_config(tmp_path / "stores", f"corpus.paths=[{folder}]")))
    counts = store.manifest.counts
    assert counts["broken_files"] == 2
    assert (counts["invalid_utf8"], counts["invalid_json"]) == (1, 1)
    assert counts["documents_read"] == 41 + counts["documents_too_short"] - 1
    assert store.manifest.inputs["sources"]["num_ignored_files"] == 1
    assert counts["units"] == 800 == sum(file.num_rows for file in store.manifest.files)
