"""Choosing the number of clusters: K-means for several K on the same sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from supmer.config import Config
from supmer.config.load import with_settings
from supmer.corpus.clustering import silhouette
from supmer.corpus.embed import sample_of
from supmer.corpus.grouping import fit_clusters, read_sample
from supmer.corpus.prepare import embed_corpus
from supmer.errors import UserError


@dataclass(frozen=True)
class Point:
    """One K: inertia of the sample, and its silhouette."""

    num_clusters: int
    inertia: float
    silhouette: float | None


def elbow(config: Config, numbers: Sequence[int]) -> list[Point]:
    """Fit K-means for each of the numbers of clusters, ascending.

    The text is cut and embedded once, and kept: preparing a store, with any number of clusters, goes on from there.

    Raises:
        UserError: a number is below 2 or beyond the sample, or the corpus cannot be used.
    """
    text, places, here = embed_corpus(config)
    sample = read_sample(places.embeddings, sample_of(text, config), here)
    points = []
    for number in sorted(set(numbers)):
        if not 2 <= number <= len(sample):
            raise UserError(f"--elbow {number}: must be at least 2 and at most the units of the sample, {len(sample)}")
        fit = fit_clusters(sample, with_settings(config.clusters, {"num_clusters": number}), config.corpus.seed, here)
        points.append(Point(number, fit.inertia, silhouette(sample, fit, config.corpus.seed)))
    return points


def knee(points: Sequence[Point]) -> int:
    """Return the K at which inertia falls furthest below the straight line from the first K to the last.

    Both axes are scaled to [0, 1], K by its logarithm (Satopaa et al. 2011, "Finding a kneedle in a haystack").
    """
    number = np.log([point.num_clusters for point in points])
    inertia = np.array([point.inertia for point in points])
    if len(points) < 3 or inertia[0] <= inertia[-1]:
        return points[0].num_clusters
    below = 1 - (number - number[0]) / (number[-1] - number[0]) - (inertia - inertia[-1]) / (inertia[0] - inertia[-1])
    return points[int(np.argmax(below))].num_clusters


def table(points: Sequence[Point]) -> str:
    """Return the points as lines, and the knee."""
    lines = [f"{'clusters':>8} {'inertia':>12} {'silhouette':>10}"]
    for point in points:
        apart = "-" if point.silhouette is None else f"{point.silhouette:.3f}"
        lines.append(f"{point.num_clusters:8} {point.inertia:12.5g} {apart:>10}")
    return "\n".join([*lines, f"knee of the inertia: clusters.num_clusters={knee(points)}"])
