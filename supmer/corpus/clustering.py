"""K-means over embeddings, and the merging of clusters that are too small for an episode (section 1)."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from supmer.config import ClustersConfig, TasksConfig
from supmer.corpus.unit import Embeddings

MAX_ITERATIONS = 100
"""Of one k-means fit."""

ASSIGNMENT_ROWS = 4096
"""Rows whose distances to all centroids are held at once."""

SILHOUETTE_ROWS = 4096
"""Its cost grows with the square of the rows."""


@dataclass(frozen=True, eq=False)
class Fit:
    """Centroids [K, d] and the sum of squared distances of the sample to them."""

    centroids: Embeddings
    inertia: float


@dataclass(frozen=True, eq=False)
class Merged:
    """Clusters after merging: centroids [K', d], and for each of them the K-means clusters it consists of."""

    centroids: Embeddings
    members: list[list[int]]


def min_cluster_size(tasks: TasksConfig) -> int:
    """Return the number of units a cluster needs in a split to host an episode there.

    A row shows at most two units of the episode's own cluster (`scsp`, `scss`: the anchor and its partner; the next-sentence
    kinds: the anchor, with one spare in case its neighbours collide with another row's), and support and query share none.
    """
    return 2 * (tasks.num_support + tasks.num_query)


def min_num_clusters(tasks: TasksConfig) -> int:
    """Return how many clusters must host episodes.

    The augmentation comes from another cluster than the episode; `scss` takes an option each from others; an `scc` episode
    has one cluster per class, and its augmentation as many others; so has a `ctw` episode per topic.
    """
    topics = 2 * tasks.num_topics if "ctw" in tasks.kinds else 2
    options = 2 * tasks.num_options if "scc" in tasks.kinds else tasks.num_options if "scss" in tasks.kinds else 2
    return max(topics, options)


def sample_counts(num_units: list[int], sample_size: int, seed: int) -> list[int]:
    """Share a uniform sample without replacement out among parts: how many units of each part belong to it."""
    total = sum(num_units)
    if total <= sample_size:
        return num_units
    shares = np.random.default_rng([seed, 0]).multivariate_hypergeometric(num_units, sample_size, method="marginals")
    return [int(share) for share in shares]


def fit_kmeans(sample: Embeddings, config: ClustersConfig, seed: int, restart: int) -> Fit:
    """Fit K-means once.

    One thread: the summation order, and with it the result, must not depend on the machine; restarts run side by side.
    """
    from sklearn.cluster import KMeans  # here: takes a second to import, and every job imports this module
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings(), threadpool_limits(1):
        # Fewer distinct points than clusters leave some clusters empty; these are merged away and counted.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(
            config.num_clusters,
            init="k-means++",
            n_init=1,
            max_iter=MAX_ITERATIONS,
            random_state=np.random.RandomState([seed, restart]),
        ).fit(sample)
    return Fit(model.cluster_centers_.astype(np.float32), float(model.inertia_))


def assign(embeddings: Embeddings, centroids: Embeddings) -> npt.NDArray[np.int32]:
    """Return the nearest centroid (Euclidean) of each row."""
    offsets = 0.5 * np.square(centroids, dtype=np.float64).sum(axis=1).astype(np.float32)
    labels = np.empty(len(embeddings), dtype=np.int32)
    for start in range(0, len(embeddings), ASSIGNMENT_ROWS):
        rows = slice(start, start + ASSIGNMENT_ROWS)
        labels[rows] = np.argmax(embeddings[rows] @ centroids.T - offsets, axis=1)
    return labels


def distances(embeddings: Embeddings, centroids: Embeddings, labels: npt.NDArray[np.int32]) -> Embeddings:
    """Return the Euclidean distance of each row to its centroid."""
    found = np.empty(len(embeddings), dtype=np.float32)
    for start in range(0, len(embeddings), ASSIGNMENT_ROWS):
        rows = slice(start, start + ASSIGNMENT_ROWS)
        found[rows] = np.linalg.norm(embeddings[rows] - centroids[labels[rows]], axis=1)
    return found


def silhouette(sample: Embeddings, fit: Fit, seed: int) -> float | None:
    """Return the mean silhouette of at most SILHOUETTE_ROWS rows of the sample; None where it has no meaning.

    It compares a unit's distance to the others of its cluster with that to the nearest other cluster: 1 is well apart, 0
    is no boundary, below 0 is nearer to another.
    """
    rows = np.random.default_rng([seed, 2]).permutation(len(sample))[:SILHOUETTE_ROWS]
    labels = assign(sample[rows], fit.centroids)
    if not 2 <= len(np.unique(labels)) < len(rows):
        return None
    from sklearn.metrics import silhouette_score

    with threadpool_limits(1):
        return float(silhouette_score(sample[rows], labels))


def merge_small(centroids: Embeddings, sizes: npt.NDArray[np.int64], smallest: int) -> Merged:
    """Merge clusters of fewer than `smallest` units into their nearest neighbour, the smallest first.

    `sizes` [K] counts units. The centroid of a merged cluster is the mean of its parts', weighted by their sizes.
    """
    members = [[cluster] for cluster in range(len(sizes))]
    centers = [row.astype(np.float64) for row in centroids]
    weights = [int(size) for size in sizes]
    while len(weights) > 1 and min(weights) < smallest:
        lost = weights.index(min(weights))
        distances = [math.inf if i == lost else float(np.square(c - centers[lost]).sum()) for i, c in enumerate(centers)]
        kept = distances.index(min(distances))
        total = weights[lost] + weights[kept]
        if total:
            centers[kept] = (weights[lost] * centers[lost] + weights[kept] * centers[kept]) / total
        weights[kept] = total
        members[kept] = sorted(members[kept] + members[lost])
        del centers[lost], weights[lost], members[lost]
    return Merged(np.stack(centers).astype(np.float32), members)
