"""Preparation, in one process and on a real Ray cluster, against the same steps done one by one."""

from __future__ import annotations

import gzip
import json
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

from supmer import storage
from supmer.backbone.load import load_model_config, load_tokenizer
from supmer.config import Config, CorpusConfig
from supmer.corpus import prepare as prepare_module
from supmer.corpus import reading
from supmer.corpus.clustering import assign, fit_kmeans
from supmer.corpus.contamination import ExcludedText
from supmer.corpus.cutting import cut_documents, link_units, split_text
from supmer.corpus.duplicates import REPEATED_SCHEMA, key_ranges
from supmer.corpus.embedding import Encoder
from supmer.corpus.manifest import read_manifest
from supmer.corpus.prepare import prepare
from supmer.corpus.reading import read_shards
from supmer.corpus.store import TaskStore
from supmer.errors import UserError
from supmer.readers.files import FoundFiles
from supmer.tasks.sampler import EpisodeSampler
from supmer.tasks.vocabulary import TaskVocabulary

MakeConfig = Callable[..., Config]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="module")
def store(make_config: MakeConfig, stores: Path) -> TaskStore:
    return TaskStore.open(prepare(make_config(stores)))


def stored_rows(uri: str) -> dict[str, list[dict]]:
    """Return the rows of every file of a store, by the file's path."""
    root = Path(uri)
    return {
        str(path.relative_to(root)): pq.read_table(path).to_pylist() for path in sorted(root.rglob("split=*/**/*.parquet"))
    }


def written_in(stores: Path) -> dict[Path, int]:
    """Return when each file was written, but for the marks of its last use."""
    return {path: path.stat().st_mtime_ns for path in stores.rglob("*") if path.is_file() and path.name != "last_used"}


@pytest.mark.cluster
@pytest.mark.usefixtures("cluster")
def test_documents_are_read_with_stable_ids(make_config: MakeConfig, tmp_path: Path, documents: list[str]) -> None:
    def documents_of(config: Config) -> dict[str, str]:
        shards = read_shards(config.corpus)[0].iter_rows()
        return {name: text for shard in shards for name, text in zip(shard["documents"], shard["texts"], strict=True)}

    rows = documents_of(make_config(tmp_path))
    assert rows == {f"a.jsonl#{i}" if i < 25 else f"b.jsonl#{i - 25}": text for i, text in enumerate(documents)}
    assert sorted(documents_of(make_config(tmp_path, "corpus.max_documents=27"))) == sorted([*rows][:27])


def test_store_holds_what_one_process_computes(store: TaskStore, make_config: MakeConfig, documents: list[str]) -> None:
    config = make_config(Path("unused"))
    named = [(f"a.jsonl#{i}" if i < 25 else f"b.jsonl#{i - 25}", text) for i, text in enumerate(documents)]
    pieces, _ = cut_documents(named, config.corpus, load_tokenizer(config.backbone), ExcludedText({}))
    units, _ = link_units(pieces, REPEATED_SCHEMA.empty_table(), config.corpus)
    embeddings = Encoder.of_backbone(config.backbone, 4096).embed(
        [np.array(ids, np.int32) for ids in units["tokens"].to_pylist()]
    )
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
    before = written_in(stores)
    caplog.set_level(logging.INFO)
    speed = ("corpus.embedders=1", "corpus.embed_batch_tokens=64")
    assert prepare(make_config(stores, "run.seed=5", "meta.steps=7", *speed)) == store.uri
    assert f"store {store.uri} re-used" in caplog.text
    assert written_in(stores) == before


@pytest.mark.parametrize(
    "setting",
    ["clusters.num_clusters=5", "tasks.num_support=3", "tasks.kinds=[nsp,scss]", "corpus.validation_fraction=0.4"],
)
def test_other_clusters_and_episodes_embed_nothing_again(
    store: TaskStore, make_config: MakeConfig, stores: Path, tmp_path: Path, setting: str
) -> None:
    """The store is the one that is prepared from nothing but for `tasks.kinds`, which few stores differ by."""
    before = written_in(stores)
    uri = prepare(make_config(stores, setting))
    assert uri != store.uri
    after = written_in(stores)
    assert before.items() <= after.items()
    assert {path.relative_to(stores).parts[0] for path in after.keys() - before.keys()} == {Path(uri).name}
    assert read_manifest(uri).embeddings == store.manifest.embeddings
    if setting == "clusters.num_clusters=5":
        assert stored_rows(uri) == stored_rows(prepare(make_config(tmp_path, setting)))


@pytest.mark.cluster
@pytest.mark.usefixtures("cluster")
def test_a_cluster_prepares_what_one_process_prepares(store: TaskStore, make_config: MakeConfig, tmp_path: Path) -> None:
    """Ray Data and one actor that embeds, against threads that share an encoder."""
    other = prepare(make_config(tmp_path, "corpus.embedders=1"))
    assert stored_rows(other) == stored_rows(store.uri)
    assert Path(other, "manifest.json").read_text() == Path(store.uri, "manifest.json").read_text()


def test_an_interrupted_preparation_goes_on(
    store: TaskStore, make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is finished is not written again, also with another size of batches."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("supmer.corpus.embed.write_embeddings", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare(make_config(tmp_path, "corpus.embed_batch_tokens=1000"))
    finished = written_in(tmp_path)
    assert {path.suffix for path in finished} == {".json", ".parquet", ".npy"}
    with monkeypatch.context() as patch:
        patch.setattr(prepare_module, "write_manifest", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare(make_config(tmp_path))
    (uri,) = (str(path) for path in tmp_path.iterdir() if not path.name.startswith("text-"))
    with pytest.raises(UserError, match="not a complete one"):
        TaskStore.open(uri)
    assert prepare(make_config(tmp_path)) == uri
    assert finished.items() <= written_in(tmp_path).items()
    assert not Path(uri, "work").exists()
    assert stored_rows(uri) == stored_rows(store.uri)


def test_an_interrupted_cut_goes_on(make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("supmer.corpus.text.write_text", interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare(make_config(tmp_path))
    finished = written_in(tmp_path)
    assert {path.parent.name for path in finished} >= {"cut", "hashes", "repeated", "units"}
    with monkeypatch.context() as patch:
        patch.setattr(storage, "delete_folder", lambda _: None)
        prepare(make_config(tmp_path))
    assert finished.items() <= written_in(tmp_path).items()


@pytest.mark.slow
def test_of_two_jobs_the_first_to_end_completes_the_store_for_both(
    store: TaskStore,
    make_config: MakeConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The other job ends while this one is about to link its text; then again while this one sorts by cluster."""
    caplog.set_level(logging.INFO)
    config = make_config(tmp_path)

    def end_first(module: str, function: str) -> None:
        original = getattr(sys.modules[module], function)

        def let_the_other_end_first(*arguments: Any) -> Any:
            monkeypatch.setattr(f"{module}.{function}", original)
            prepare(config)
            return original(*arguments)

        monkeypatch.setattr(f"{module}.{function}", let_the_other_end_first)

    end_first("supmer.corpus.text", "key_ranges")
    uri = prepare(config)
    (text,) = tmp_path.glob("text-*")
    assert f"text {text} was completed by another job meanwhile" in caplog.text
    Path(uri, "manifest.json").unlink()
    end_first("supmer.corpus.prepare", "write_files")
    assert prepare(config) == uri
    assert f"store {uri} was completed by another job meanwhile" in caplog.text
    assert not Path(uri, "work").exists() and not Path(text, "work").exists()
    assert stored_rows(uri) == stored_rows(store.uri)


@pytest.mark.cluster
@pytest.mark.usefixtures("cluster")
def test_broken_inputs_are_counted_and_the_store_is_valid(
    make_config: MakeConfig,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "corpus"
    shutil.copytree(corpus, folder)
    whole = gzip.compress("\n".join(json.dumps({"text": f"{i} " * 50}) for i in range(50)).encode())
    (folder / "c.jsonl.gz").write_bytes(whole[:-20])
    (folder / "d.jsonl").write_bytes(
        b'\xff\n{broken\n{"text": "one too short"}\n{"text": " "}\n{"text": "NUL\\u0000 only"}\n'
    )
    (folder / "e.parquet").write_bytes(b"PAR1 this is none")
    (folder / "f.docx").write_bytes(b"")
    (folder / "g.txt").write_bytes("größe".encode("latin-1") + b"\n" + "größe".encode() + b"\n" + b"words " * (10 << 18))
    pq.write_table(pa.table({"text": ["a"] * 5000}), folder / "h.parquet")
    cut_in_half = (folder / "h.parquet").read_bytes()
    (folder / "h.parquet").write_bytes(cut_in_half[: len(cut_in_half) // 2])
    (folder / "i.csv").write_text("body\nno such column\n")
    vanishing = folder / "j.jsonl"
    vanishing.write_text('{"text": "soon gone"}')
    listed = reading.corpus_files

    def list_then_lose(corpus_config: CorpusConfig) -> FoundFiles:
        found = listed(corpus_config)
        vanishing.unlink()
        return found

    monkeypatch.setattr(reading, "corpus_files", list_then_lose)
    store = TaskStore.open(prepare(make_config(tmp_path / "stores", f"corpus.paths=[{folder}]")))
    counts = store.manifest.counts
    assert counts["broken_files"] == 4
    assert (counts["invalid_utf8"], counts["invalid_json"], counts["empty_text"]) == (2, 1, 1)
    assert (counts["missing_columns"], counts["units_overlong"]) == (1, 1)
    assert counts["documents_read"] == counts["documents"] + counts["documents_too_short"]
    assert store.manifest.inputs["sources"]["num_ignored_files"] == 1
    assert store.manifest.places["invalid_utf8"] == ["d.jsonl:1", "g.txt:1"] and counts["files_read"] == 9
    assert "% of the input was skipped: 4 files that could not be read to their end (c.jsonl.gz, " in caplog.text
    assert counts["units"] == 800 == sum(file.num_rows for file in store.manifest.files)


def test_nothing_usable_is_one_error_and_no_store(make_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": ""}\n{"body": "x"}\n')
    config = make_config(tmp_path / "stores", f"corpus.paths=[{tmp_path}/a.jsonl]")
    with pytest.raises(UserError, match=r"no usable document \(skipped 1 rows without .*, 1 rows with nothing but white"):
        prepare(config)
    assert not list(tmp_path.rglob("manifest.json"))


def test_repeated_text_and_text_of_tasks_are_left_out(
    make_config: MakeConfig, documents: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three documents more: copies of two, and one of 3 known sentences, 9 new ones and one that a task quotes."""
    sentences = [split_text(text, "sentence", "en") for text in documents]
    new = [sentence.replace(" ", " un", 1) for sentence in sentences[1][:9]]
    quoted = "Sentence " + " ".join(sentences[5][4].lower().split() + sentences[6][4].lower().split())
    texts = [*documents, documents[3], documents[7], " ".join([*sentences[0][:3], *new, quoted.replace(".", "") + "."])]
    for number, part in enumerate((texts[:20], texts[20:])):
        (tmp_path / f"{number}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in part))
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "test.jsonl").write_text(json.dumps({"label": 0, "sentence": f'He said: "{quoted}"'}))
    monkeypatch.setattr(key_ranges, "__defaults__", (300,))
    settings = [f"corpus.paths=[{tmp_path}/*.jsonl]", f"corpus.exclude_tasks=[{tmp_path}/task]"]
    uri = prepare(make_config(tmp_path / "stores", *settings))
    counts = read_manifest(uri).counts
    assert (counts["duplicate_documents"], counts["duplicate_units"], counts["units_of_excluded_tasks"]) == (2, 3, 1)
    assert (counts["documents"], counts["units"]) == (41, 809)
    kept = [row["text"] for rows in stored_rows(uri).values() for row in rows]
    assert len(kept) == len(set(kept)) == 809


def test_training_episodes_show_nothing_of_the_validation_split(store: TaskStore, make_config: MakeConfig) -> None:
    rows = {"train": [], "validation": []}
    for path, found in stored_rows(store.uri).items():
        rows[path.split("/")[0].removeprefix("split=")] += found
    texts, held_out = ({tuple(row["tokens"]) for row in rows[split]} for split in ("train", "validation"))
    assert not texts & held_out
    config = make_config(Path("unused"), "tasks.num_options_nss=3")
    sampler = EpisodeSampler(store, TaskVocabulary.of_backbone(config.backbone), config)
    places = {(row["document"], row["position"]) for row in rows["train"]}
    for step in range(40):
        episode = sampler.episode(step, 0)
        assert {key for row in (*episode.support, *episode.query, *episode.augmentation) for key in row.sources} <= places


@pytest.mark.slow
def test_another_model_clusters_and_centroids_are_the_backbones(
    make_config: MakeConfig, tmp_path: Path, backbone: Path, documents: list[str]
) -> None:
    """The embedding model is the backbone of half the width: other clusters, centroids of the backbone's width."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        shape = T5Config.from_pretrained(backbone, d_model=8)
        T5ForConditionalGeneration(shape).save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(backbone).save_pretrained(tmp_path / "model")
    config = make_config(tmp_path / "stores", f"clusters.embedding_model={tmp_path}/model")
    store = TaskStore.open(prepare(config))
    assert store.centroids.shape == (store.manifest.num_clusters, load_model_config(config.backbone).d_model)
    encoder = Encoder.of_backbone(config.backbone, 4096)
    tables = [pq.read_table(f"{store.uri}/{file.path}", partitioning=None) for file in store.manifest.files]
    for cluster, centroid in enumerate(store.centroids):
        own = [table for file, table in zip(store.manifest.files, tables, strict=True) if file.cluster == cluster]
        mean = encoder.embed_units(pa.concat_tables(own)).mean(axis=0)
        np.testing.assert_allclose(centroid, mean, rtol=1e-4, atol=1e-5)


def test_strict_refuses_a_damaged_corpus_before_anything_is_embedded(
    make_config: MakeConfig, corpus: Path, tmp_path: Path
) -> None:
    shutil.copytree(corpus, tmp_path / "corpus")
    (tmp_path / "corpus" / "c.jsonl").write_bytes(b'{"text": "caf\xe9"}\n')
    config = make_config(tmp_path / "stores", f"corpus.paths=[{tmp_path / 'corpus'}]")
    message = r"^--strict: 2.4% of the input was skipped: 1 lines .* \(c.jsonl:1\); corpus.encoding= names another encoding$"
    with pytest.raises(UserError, match=message):
        prepare(config, strict=True)
    assert not list(tmp_path.rglob("embeddings-*"))
