"""What clusters are about, on texts whose topics are known."""

from __future__ import annotations

from collections import Counter

import numpy as np

from supmer.corpus.manifest import SCHEMA_VERSION, Manifest, StoredFile
from supmer.corpus.summaries import (
    ClusterSummary,
    count_words,
    draw_clusters,
    nearest_units,
    principal_plane,
    typical_words,
    word_scores,
)


def test_words_are_counted_once_a_text() -> None:
    assert count_words(["Rivers, rivers and an 8-oar", "The river and rivers_"]) == {"and": 2, "rivers": 2} | dict.fromkeys(
        ("oar", "the", "river"), 1
    )


def test_typical_words_are_frequent_here_and_rare_elsewhere() -> None:
    summaries = [
        ClusterSummary(0, [], Counter(river=6, the=9), 10),
        ClusterSummary(1, [], Counter(stone=60, the=90, river=10), 100),
        ClusterSummary(0, [], Counter(river=1, boat=4, the=9), 10),
    ]
    assert typical_words(word_scores(summaries, 2)) == [["river", "boat"], ["stone"]]
    assert typical_words(word_scores(summaries, 3))[2] == []
    level = [ClusterSummary(cluster, [], Counter(the=5), 10) for cluster in range(2)]
    assert typical_words(word_scores(level, 2)) == [[], []]


def test_the_nearest_units_of_all_files_of_a_cluster() -> None:
    summaries = [
        ClusterSummary(1, [(0.3, "c"), (0.9, "e")], Counter(), 2),
        ClusterSummary(1, [(0.1, "a"), (0.2, "b"), (0.4, "d")], Counter(), 3),
    ]
    assert nearest_units(summaries, 2) == [[], ["a", "b", "c"]]


def test_the_plane_keeps_distances_of_flat_points() -> None:
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(9, 2)) @ rng.normal(size=(2, 5)) + 3
    plane = principal_plane(flat.astype(np.float32))
    for points in (flat, plane):
        points -= points[:1].copy()
    np.testing.assert_allclose(np.linalg.norm(plane, axis=1), np.linalg.norm(flat, axis=1), rtol=1e-4, atol=1e-5)
    assert principal_plane(np.ones((1, 3), np.float32)).shape == (1, 2)


def test_the_picture_names_clusters_by_their_words() -> None:
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        fingerprint="",
        inputs={},
        embeddings="text-a/embeddings-b",
        counts={},
        d_model=3,
        min_cluster_size=1,
        inertia=1.0,
        silhouette=0.125,
        merged_from=[[0], [1]],
        nearest=[[], []],
        typical_words=[["river", "boat", "water"], []],
        files=[StoredFile(split="train", cluster=0, path="", row_groups=[9])],
    )
    picture = draw_clusters(manifest, np.eye(2, 3, dtype=np.float32))
    assert picture == draw_clusters(manifest, np.eye(2, 3, dtype=np.float32))
    assert b"0 river boat" in picture and b"silhouette 0.125" in picture
