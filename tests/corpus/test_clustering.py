"""K-means, assignment, and the merging of small clusters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supmer.config import ClustersConfig, TasksConfig
from supmer.corpus.clustering import assign, fit_kmeans, merge_small, min_cluster_size, min_num_clusters, sample_counts


def blobs(per_blob: int = 50) -> np.ndarray:
    rng = np.random.default_rng(0)
    centers = np.array([[0, 0], [10, 0], [0, 10], [10, 10]])
    return (centers[:, None] + rng.normal(size=(4, per_blob, 2))).reshape(-1, 2).astype(np.float32)


def test_kmeans_finds_blobs_and_depends_on_the_seed_only() -> None:
    config = ClustersConfig(num_clusters=4)
    fits = [fit_kmeans(blobs(), config, seed=3, restart=restart) for restart in (0, 1, 2)]
    best = min(fits, key=lambda fit: fit.inertia)
    labels = assign(blobs(), best.centroids).reshape(4, 50)
    assert (labels == labels[:, :1]).all() and len(set(labels[:, 0])) == 4
    np.testing.assert_array_equal(fit_kmeans(blobs(), config, 3, 0).centroids, fits[0].centroids)


def test_fewer_distinct_points_than_clusters_is_no_warning() -> None:
    fit = fit_kmeans(np.ones((20, 3), np.float32), ClustersConfig(num_clusters=4), 0, 0)
    assert fit.inertia == pytest.approx(0)


def test_assignment_is_to_the_nearest_centroid() -> None:
    rng = np.random.default_rng(1)
    rows, centroids = rng.normal(size=(9000, 5)).astype(np.float32), rng.normal(size=(7, 5)).astype(np.float32)
    distances = np.square(rows[:, None].astype(np.float64) - centroids[None]).sum(axis=2)
    chosen = np.take_along_axis(distances, assign(rows, centroids)[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(chosen, distances.min(axis=1), atol=1e-5)


def test_small_clusters_join_their_nearest_neighbour() -> None:
    centroids = np.array([[0.0], [1.0], [5.0], [6.0], [20.0]], np.float32)
    merged = merge_small(centroids, np.array([3, 9, 10, 0, 4]), smallest=5)
    assert merged.members == [[0, 1], [2, 3, 4]]
    np.testing.assert_allclose(merged.centroids[:, 0], [9 / 12, (5 * 10 + 20 * 4) / 14], rtol=1e-6)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.integers(1, 30))
def test_merging_keeps_every_cluster_and_leaves_none_too_small(sizes: list[int], smallest: int) -> None:
    centroids = np.random.default_rng(len(sizes)).normal(size=(len(sizes), 3)).astype(np.float32)
    merged = merge_small(centroids, np.array(sizes), smallest)
    assert sorted(member for members in merged.members for member in members) == list(range(len(sizes)))
    totals = [sum(sizes[member] for member in members) for members in merged.members]
    assert len(totals) == 1 or min(totals) >= smallest
    assert len(merged.centroids) == len(totals)


@given(st.lists(st.integers(0, 500), min_size=1, max_size=20), st.integers(1, 300))
def test_sample_is_shared_out_within_the_parts(num_units: list[int], size: int) -> None:
    shares = sample_counts(num_units, size, seed=0)
    assert sum(shares) == min(size, sum(num_units))
    assert all(0 <= share <= available for share, available in zip(shares, num_units, strict=True))


def test_cluster_size_of_the_published_episodes() -> None:
    assert min_cluster_size(TasksConfig()) == 64


@pytest.mark.parametrize(
    ("kinds", "needed"), [(["nsp"], 2), (["nsp", "scss"], 4), (["scc"], 8), (["nsp", "nss", "scsp", "scss", "scc"], 8)]
)
def test_an_scc_episode_and_its_augmentation_need_different_clusters(kinds: list[str], needed: int) -> None:
    assert min_num_clusters(TasksConfig.model_validate({"kinds": kinds, "num_options": 4})) == needed
