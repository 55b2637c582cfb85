"""From embedded parts to clusters, as Ray computations: a sample, K-means, assignment, centroids in the backbone's width."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from supmer.config import ClustersConfig, Config
from supmer.corpus.clustering import Fit, Merged, assign, distances, fit_kmeans, sample_counts
from supmer.corpus.stages import embedder_pool, embedder_resources, embedder_threads, on_data_nodes
from supmer.corpus.unit import Embeddings
from supmer.corpus.workspace import Part, Workspace, write_table

PARTS_PER_RUN = 8
"""Parts that are sorted together: fewer and larger runs to gather a cluster from, against memory per task."""

RUN_ROW_GROUP = 1024


def draw_sample(parts: Sequence[Part], config: ClustersConfig, seed: int, store_uri: str) -> Embeddings:
    """Return the embeddings [n, e] of a uniform sample of at most `clusters.sample_size` units."""
    sample_part = on_data_nodes(_sample_part)
    pending = [sample_part.remote(store_uri, *share) for share in _shares(parts, config, seed)]
    return np.concatenate(ray.get(pending))


def fit_clusters(sample: Embeddings, config: ClustersConfig, seed: int) -> Fit:
    """Fit K-means, restarts side by side; return the best."""
    shared = ray.put(sample)
    fit = on_data_nodes(fit_kmeans)
    fits: list[Fit] = ray.get([fit.remote(shared, config, seed, restart) for restart in range(config.restarts)])
    return min(fits, key=lambda fit: fit.inertia)


def sort_runs(parts: Sequence[Part], fit: Fit, store_uri: str, first_train_key: int) -> list[Counter[tuple[int, int]]]:
    """Assign all units to clusters and write them as sorted runs; return the units per (split, cluster) of each run.

    Documents whose key is below `first_train_key` are validation (split 1), the others are train (split 0).
    """
    groups = [[part.name for part in parts[i : i + PARTS_PER_RUN]] for i in range(0, len(parts), PARTS_PER_RUN)]
    centroids = ray.put(fit.centroids)
    sort_run = on_data_nodes(_sort_run)
    pending = [sort_run.remote(store_uri, number, group, centroids, first_train_key) for number, group in enumerate(groups)]
    return list(ray.get(pending))


def backbone_centroids(parts: Sequence[Part], fit: Fit, merged: Merged, config: Config, store_uri: str) -> Embeddings:
    """Return the clusters' means [K', d] in the backbone's embedding space, over the units of the sample.

    What K-means saw were embeddings of another model; `scc` needs centroids that are embeddings of the backbone. A cluster
    that the sample missed gets the mean of the whole sample.
    """
    shares = _shares(parts, config.clusters, config.corpus.seed)
    num_actors, resources = embedder_resources(config.corpus.embedders, len(shares))
    rows = [{"part": part, "size": size, "seed": seed} for part, size, seed in shares]
    pieces = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        SumPart,
        fn_constructor_args=(config, store_uri, fit.centroids, embedder_threads(num_actors)),
        compute=embedder_pool(num_actors),
        **resources,
    )
    sums: Any = 0.0
    sizes: Any = 0
    for row in pieces.iter_rows():
        sums, sizes = sums + row["sums"], sizes + row["sizes"]
    total = sums.sum(axis=0) / sizes.sum()
    means = [
        sums[members].sum(axis=0) / sizes[members].sum() if sizes[members].sum() else total for members in merged.members
    ]
    return np.stack(means).astype(np.float32)


class SumPart:
    """Embed the sampled units of a part with the backbone; sum the embeddings by cluster, and count."""

    def __init__(self, config: Config, store_uri: str, centroids: Embeddings, num_threads: int) -> None:
        import torch

        from supmer.corpus.embedding import Encoder

        torch.set_num_threads(num_threads)
        self.workspace = Workspace(store_uri)
        self.centroids = centroids
        self.encoder = Encoder.of_backbone(config.backbone, config.corpus.embed_batch_tokens)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        embeddings = self.workspace.read_embeddings(row["part"])
        rows = _sample_rows(len(embeddings), row["size"], row["seed"])
        clusters = assign(embeddings[rows], self.centroids)
        found = self.encoder.embed_units(self.workspace.read_units(row["part"], ["tokens"]).take(rows))
        sums = np.zeros((len(self.centroids), found.shape[1]))
        np.add.at(sums, clusters, found)
        return {"sums": sums, "sizes": np.bincount(clusters, minlength=len(self.centroids))}


def _shares(parts: Sequence[Part], config: ClustersConfig, seed: int) -> list[tuple[str, int, list[int]]]:
    """Return the parts that belong to the sample, each with the number of its units and the seed that draws them."""
    sizes = sample_counts([part.num_units for part in parts], config.sample_size, seed)
    numbered = enumerate(zip(parts, sizes, strict=True))
    return [(part.name, size, [seed, 1, number]) for number, (part, size) in numbered if size]


def _sample_part(store_uri: str, part: str, size: int, seed: list[int]) -> Embeddings:
    embeddings = Workspace(store_uri).read_embeddings(part)
    sampled: Embeddings = embeddings[_sample_rows(len(embeddings), size, seed)]
    return sampled


def _sample_rows(num_rows: int, size: int, seed: list[int]) -> Any:
    return np.sort(np.random.default_rng(seed).choice(num_rows, size, replace=False, shuffle=False))


def _sort_run(
    store_uri: str, number: int, parts: list[str], centroids: Embeddings, first_train_key: int
) -> Counter[tuple[int, int]]:
    workspace = Workspace(store_uri)
    tables = []
    for part in parts:
        units, embeddings = workspace.read_units(part), workspace.read_embeddings(part)
        clusters = assign(embeddings, centroids)
        columns = {
            "split": pa.array(units["document_key"].to_numpy() < first_train_key, pa.int8()),
            "cluster": pa.array(clusters),
            "distance": pa.array(distances(embeddings, centroids, clusters)),
        }
        for name, values in columns.items():
            units = units.append_column(name, values)
        tables.append(units)
    table = pa.concat_tables(tables).sort_by([(key, "ascending") for key in ("split", "cluster", "unit_key")])
    num_rows = table.num_rows
    groups = [min(RUN_ROW_GROUP, num_rows - start) for start in range(0, num_rows, RUN_ROW_GROUP)]
    write_table(workspace.run(number), table.replace_schema_metadata(None), groups)
    return Counter(zip(table["split"].to_pylist(), table["cluster"].to_pylist(), strict=True))
