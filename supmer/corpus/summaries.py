"""What clusters are about: the units nearest to their centroids, and the words that set them apart; as text and picture."""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from supmer.corpus.manifest import SPLITS, Manifest

WORD = re.compile(r"[^\W\d_]{3,}")
WORDS_PER_CLUSTER, NEAREST_PER_CLUSTER = 8, 3
COUNTED_WORDS = 300
"""The most frequent words of a file of the store that are kept."""

LABELLED_CLUSTERS = 40
SVG_SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "supmer"}


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


def typical_words(summaries: Sequence[ClusterSummary], num_clusters: int) -> list[list[str]]:
    """Return each cluster's words that are frequent in it and rare elsewhere, the most telling first.

    The score is the share of the cluster's units with the word, times the logarithm of how much that exceeds the share in
    an average cluster: words that are frequent everywhere get 0.
    """
    shares = [_shares([one for one in summaries if one.cluster == cluster]) for cluster in range(num_clusters)]
    everywhere: Counter[str] = Counter()
    for share in shares:
        everywhere.update(share)
    chosen = []
    for share in shares:
        scores = {word: part * math.log(part * num_clusters / everywhere[word]) for word, part in share.items()}
        ranked = sorted(scores, key=lambda word: (-scores[word], word))
        chosen.append([word for word in ranked[:WORDS_PER_CLUSTER] if scores[word] > 0])
    return chosen


def draw_clusters(manifest: Manifest, centroids: npt.NDArray[np.float32]) -> bytes:
    """Draw the sizes, and the clusters in the plane of the centroids' two principal components, as SVG.

    `centroids` is [K, d]. The largest clusters are named by their most typical words.
    """
    from matplotlib import rc_context  # here: the processes that write a store need the rest of this module only
    from matplotlib.figure import Figure

    sizes = np.array([[manifest.size(split, cluster) for split in SPLITS] for cluster in range(manifest.num_clusters)])
    figure = Figure(figsize=(14, 6), layout="constrained")
    bars, plane = figure.subplots(1, 2, width_ratios=(2, 3))
    order = np.argsort(-sizes.sum(axis=1), kind="stable")
    bottom = np.zeros(len(order))
    for column, split in enumerate(SPLITS):
        bars.bar(range(len(order)), sizes[order, column], bottom=bottom, width=1.0, label=split)
        bottom += sizes[order, column]
    bars.set(xlabel="clusters, by size", ylabel="units", yscale="log", title=_headline(manifest))
    bars.legend()
    points = principal_plane(centroids)
    plane.scatter(*points.T, s=600 * sizes.sum(axis=1) / sizes.sum(axis=1).max(), alpha=0.4)
    for cluster in order[:LABELLED_CLUSTERS]:
        words = " ".join(manifest.typical_words[cluster][:2])
        plane.annotate(f"{cluster} {words}".strip(), points[cluster], fontsize=7, ha="center", va="center")
    plane.set(title="centroids in the plane of their principal components", xticks=[], yticks=[])
    buffer = io.BytesIO()
    with rc_context(SVG_SETTINGS):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def principal_plane(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the coordinates [n, 2] of points [n, d] along the two directions in which they vary most."""
    centered = points.astype(np.float64) - points.mean(axis=0)
    left, values, _ = np.linalg.svd(centered, full_matrices=False)
    plane = np.zeros((len(points), 2))
    plane[:, : min(2, len(values))] = (left * values)[:, :2]
    return plane


def _shares(summaries: Sequence[ClusterSummary]) -> dict[str, float]:
    counts: Counter[str] = Counter()
    for summary in summaries:
        counts.update(summary.words)
    num_units = max(1, sum(summary.num_units for summary in summaries))
    return {word: count / num_units for word, count in counts.items()}


def _headline(manifest: Manifest) -> str:
    apart = "" if manifest.silhouette is None else f", silhouette {manifest.silhouette:.3f}"
    return f"{manifest.num_clusters} clusters, inertia {manifest.inertia:.4g}{apart}"
