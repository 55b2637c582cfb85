"""What clusters are about: the units nearest to their centroids, and the words that set them apart; as text and picture."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from supmer.corpus.manifest import SPLITS, Manifest

WORD = re.compile(r"[^\W\d_]{3,}")
WORDS_PER_CLUSTER, NEAREST_PER_CLUSTER = 8, 3
COUNTED_WORDS = 300
"""The most frequent words of a file of the store that are kept."""

LABELLED_CLUSTERS = 40


@dataclass(frozen=True)
class ClusterSummary:
    """Of a file of the store: units by distance to the centroid, and in how many of some random units a word occurs."""

    cluster: int
    nearest: list[tuple[float, str]]
    words: Counter[str]
    num_units: int


def count_words(texts: Sequence[str]) -> Counter[str]:
    """Return in how many of the texts the most frequent words (of three letters and more) occur."""
    counts = Counter(word for text in texts for word in set(WORD.findall(text.lower())))
    return Counter(dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:COUNTED_WORDS]))


def nearest_units(summaries: Sequence[ClusterSummary], num_clusters: int) -> list[list[str]]:
    """Return the texts of each cluster that are nearest to its centroid, the nearest first."""
    found: list[list[tuple[float, str]]] = [[] for _ in range(num_clusters)]
    for summary in summaries:
        found[summary.cluster] += summary.nearest
    return [[text for _, text in sorted(units)[:NEAREST_PER_CLUSTER]] for units in found]


def typical_words(scores: Sequence[Mapping[str, float]]) -> list[list[str]]:
    """Return each cluster's words that are frequent in it and rare elsewhere, the most telling first."""
    ranked = [sorted(score, key=lambda word: (-score[word], word))[:WORDS_PER_CLUSTER] for score in scores]
    return [[word for word in words if score[word] > 0] for words, score in zip(ranked, scores, strict=True)]


def word_scores(summaries: Sequence[ClusterSummary], num_clusters: int) -> list[dict[str, float]]:
    """Return how well each word sets each cluster apart.

    The score is the share of the cluster's units with the word, times the logarithm of how much that exceeds the share in
    an average cluster: words that are frequent everywhere get 0.
    """
    shares, everywhere = [], Counter[str]()
    for cluster in range(num_clusters):
        own = [summary for summary in summaries if summary.cluster == cluster]
        num_units = max(1, sum(summary.num_units for summary in own))
        shares.append({word: n / num_units for word, n in sum((one.words for one in own), Counter[str]()).items()})
        everywhere.update(shares[-1])
    return [
        {word: part * math.log(part * num_clusters / everywhere[word]) for word, part in share.items()} for share in shares
    ]


def draw_clusters(manifest: Manifest, centroids: npt.NDArray[np.float32]) -> bytes:
    """Draw the sizes, and the clusters in the plane of the centroids' two principal components, as SVG.

    `centroids` is [K, d]. The largest clusters are named by their most typical words.
    """
    from supmer.reports import drawing  # here: the processes that write a store need the rest of this module only

    sizes = np.array([[manifest.size(split, cluster) for split in SPLITS] for cluster in range(manifest.num_clusters)])
    order = np.argsort(-sizes.sum(axis=1), kind="stable")
    points = principal_plane(centroids)
    names = [f"{cluster} {' '.join(manifest.typical_words[cluster][:2])}".strip() for cluster in order[:LABELLED_CLUSTERS]]
    names += [""] * (len(order) - len(names))
    places = [(x, y, name) for (x, y), name in zip(points[order].tolist(), names, strict=True)]
    by_split = {str(split): sizes[order, column].tolist() for column, split in enumerate(SPLITS)}
    apart = "" if manifest.silhouette is None else f", silhouette {manifest.silhouette:.3f}"
    head = f"{manifest.num_clusters} clusters, inertia {manifest.inertia:.4g}{apart}"
    titles = (head, "centroids in the plane of their principal components")
    return drawing.svg(drawing.sizes_and_places(by_split, places, titles))


def principal_plane(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the coordinates [n, 2] of points [n, d] along the two directions in which they vary most."""
    centered = points.astype(np.float64) - points.mean(axis=0)
    left, values, _ = np.linalg.svd(centered, full_matrices=False)
    plane = np.zeros((len(points), 2))
    plane[:, : min(2, len(values))] = (left * values)[:, :2]
    return plane
