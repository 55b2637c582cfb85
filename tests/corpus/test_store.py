"""The reader of task stores on a store written by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import save_file

from supmer.corpus.manifest import CENTROIDS, MANIFEST, SCHEMA_VERSION, Manifest, StoredFile, write_manifest
from supmer.corpus.store import UNIT_SCHEMA, TaskStore
from supmer.corpus.tables import even_row_groups, write_table
from supmer.errors import UserError

SIZES = {("train", 0): [150, 150, 150, 80], ("train", 1): [30], ("validation", 0): [20]}


@pytest.fixture
def uri(tmp_path: Path) -> str:
    files = []
    for (split, cluster), groups in SIZES.items():
        rows = [
            {
                "document": f"{split}-{cluster}",
                "position": position,
                "text": f"unit {position}",
                "tokens": [cluster, position],
                "before": [position - 1] if position else None,
                "after": [position + 1, 7, 8],
                "elsewhere": [],
                "elsewhere_position": position + 5,
            }
            for position in range(sum(groups))
        ]
        path = f"split={split}/cluster={cluster:05d}/part-00000.parquet"
        write_table(str(tmp_path / path), pa.Table.from_pylist(rows, UNIT_SCHEMA), groups)
        files.append(StoredFile(split=split, cluster=cluster, path=path, row_groups=groups))
    save_file({"centroids": np.eye(2, 3, dtype=np.float32)}, str(tmp_path / CENTROIDS))
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        fingerprint="f",
        inputs={},
        embeddings="",
        counts={},
        d_model=3,
        min_cluster_size=25,
        inertia=0,
        merged_from=[[0], [1, 2]],
        nearest=[[], []],
        typical_words=[[], []],
        silhouette=None,
        files=files,
    )
    write_manifest(str(tmp_path), manifest)
    return str(tmp_path)


def test_clusters_that_can_host_an_episode(uri: str) -> None:
    store = TaskStore.open(uri)
    assert store.clusters("train") == [0, 1]
    assert store.clusters("validation") == []
    assert (store.size("train", 0), store.size("validation", 0), store.size("validation", 1)) == (530, 20, 0)
    np.testing.assert_array_equal(store.centroids, np.eye(2, 3, dtype=np.float32))


def test_units_come_back_as_they_were_written(uri: str) -> None:
    units = TaskStore.open(uri).sample_units("train", 0, np.random.default_rng(0), 1000)
    assert sorted(unit.position for unit in units) == list(range(530))
    for unit in units:
        assert (unit.document, unit.cluster, unit.elsewhere_position) == ("train-0", 0, unit.position + 5)
        assert unit.tokens.tolist() == [0, unit.position] and unit.tokens.dtype == np.int32
        assert unit.before is None if unit.position == 0 else unit.before.tolist() == [unit.position - 1]
        assert unit.after.tolist() == [unit.position + 1, 7, 8]
        assert unit.elsewhere.tolist() == []


def test_samples_are_distinct_seeded_and_read_one_row_group(uri: str) -> None:
    store, other = TaskStore.open(uri), TaskStore.open(uri, cached_row_groups=1)
    seen: set[int] = set()
    for seed in range(40):
        units = store.sample_units("train", 0, np.random.default_rng(seed), 60)
        positions = [unit.position for unit in units]
        assert len(set(positions)) == 60
        assert len({min(position // 150, 3) for position in positions}) == 1
        again = other.sample_units("train", 0, np.random.default_rng(seed), 60)
        assert [unit.position for unit in again] == positions
        seen.update(positions)
    assert len(seen) > 500


def test_a_large_sample_reads_no_more_row_groups_than_needed(uri: str) -> None:
    units = TaskStore.open(uri).sample_units("train", 0, np.random.default_rng(0), 300)
    assert len({unit.position for unit in units}) == 300
    assert len({min(unit.position // 150, 3) for unit in units}) in (2, 3)


def test_fewer_units_than_asked_for(uri: str) -> None:
    store = TaskStore.open(uri)
    assert len(store.sample_units("validation", 0, np.random.default_rng(0), 50)) == 20
    assert store.sample_units("validation", 1, np.random.default_rng(0), 50) == []


def test_incomplete_damaged_and_foreign_stores_are_refused(uri: str, tmp_path: Path) -> None:
    path = tmp_path / MANIFEST
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"schema_version": 0}))
    with pytest.raises(UserError, match="has schema version 0, this program reads 3"):
        TaskStore.open(uri)
    path.write_text(path.read_text()[:100])
    with pytest.raises(UserError, match=r"manifest.json is damaged"):
        TaskStore.open(uri)
    path.unlink()
    with pytest.raises(UserError, match="no store or not a complete one"):
        TaskStore.open(uri)


@pytest.mark.parametrize("rows", [0, 1, 255, 256, 257, 1000, 5121])
def test_row_groups_are_even(rows: int) -> None:
    groups = even_row_groups(rows, 256)
    assert sum(groups) == rows
    assert len(groups) == -(-rows // 256)
    assert not groups or max(groups) - min(groups) <= 1
