"""Third step of a preparation: a sample, k-means, and all units sorted by cluster into files.

Sorting is external: a few shards at a time are sorted and written, then each file of the store is gathered from those.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds

from supmer import storage
from supmer.config import ClustersConfig
from supmer.corpus.clustering import Fit, Merged, assign, distances, fit_kmeans
from supmer.corpus.cutting import KEY_RANGE
from supmer.corpus.embed import SampledShard
from supmer.corpus.levels import WORK, CutText, embeddings_path, units_path
from supmer.corpus.manifest import SPLITS, Split, StoredFile
from supmer.corpus.steps import run_step
from supmer.corpus.store import UNIT_SCHEMA
from supmer.corpus.summaries import NEAREST_PER_CLUSTER, ClusterSummary, count_words
from supmer.corpus.tables import even_row_groups, read_array, read_table, write_table
from supmer.corpus.unit import Embeddings
from supmer.progress import Progress

SHARDS_SORTED_TOGETHER = 8
"""Fewer and larger sorted files to gather a cluster from, against memory per task."""

SORTED_ROW_GROUP = 1024

ROWS_PER_ROW_GROUP = 256
"""An episode takes tens of units of a cluster: a row group holds several times as many, and little that is not needed."""

ROWS_PER_FILE = 65_536
"""About as many; also what one task holds in memory."""

ROWS_FOR_WORDS = 2000
"""Random units of a file from which the cluster's typical words are found."""


def read_sample(embeddings: str, sample: Sequence[SampledShard], here: bool) -> Embeddings:
    """Return the embeddings [n, e] of the sampled units."""
    progress = Progress("reading the sample for k-means", len(sample), "shards")
    return np.concatenate(run_step(progress, _read_sampled, [embeddings], [(shard,) for shard in sample], here))


def fit_clusters(sample: Embeddings, config: ClustersConfig, seed: int, here: bool) -> Fit:
    """Fit k-means, restarts side by side; return the best."""
    progress = Progress(f"fitting {config.num_clusters} clusters by k-means", config.restarts, "restarts")
    restarts = [(restart,) for restart in range(config.restarts)]
    fits: list[Fit] = run_step(progress, fit_kmeans, [sample, config, seed], restarts, here)
    return min(fits, key=lambda fit: fit.inertia)


def backbone_centroids(
    sample: Embeddings, fit: Fit, merged: Merged, shards: Sequence[SampledShard], folder: str
) -> Embeddings:
    """Return the clusters' means [K', d] in the backbone's embedding space, over the units of the sample.

    What k-means saw were embeddings of another model; `scc` needs centroids that are embeddings of the backbone, whose
    embeddings of the sample lie in `folder`. A cluster that the sample missed gets the mean of the whole sample.
    """
    labels = assign(sample, fit.centroids)
    sizes = np.bincount(labels, minlength=len(fit.centroids))
    bounds = np.cumsum([0, *(shard.size for shard in shards)])
    sums: Any = None
    for shard, start in zip(shards, bounds, strict=False):
        found = read_array(embeddings_path(folder, shard.name))
        if sums is None:
            sums = np.zeros((len(sizes), found.shape[1]))
        np.add.at(sums, labels[start : start + shard.size], found)
    total = sums.sum(axis=0) / sizes.sum()
    means = [
        sums[members].sum(axis=0) / sizes[members].sum() if sizes[members].sum() else total for members in merged.members
    ]
    return np.stack(means).astype(np.float32)


def sort_by_cluster(
    text: CutText, embeddings: str, fit: Fit, store_uri: str, first_train_key: int, here: bool
) -> list[Counter[tuple[int, int]]]:
    """Assign all units to clusters and write them sorted; return the units per (split, cluster) of each sorted file.

    Documents whose key is below `first_train_key` are validation (split 1), the others are train (split 0).
    """
    names = [shard.name for shard in text.shards]
    groups = [names[i : i + SHARDS_SORTED_TOGETHER] for i in range(0, len(names), SHARDS_SORTED_TOGETHER)]
    parts = [(group, _sorted(store_uri, number)) for number, group in enumerate(groups)]
    progress = Progress("assigning sentences to clusters", len(groups), "groups of shards")
    return run_step(progress, _sort_shards, [text.uri, embeddings, fit.centroids, first_train_key], parts, here)


@dataclass(frozen=True)
class PlannedFile:
    """One file to write: the units of some k-means clusters in a split whose keys lie in [low, high)."""

    split: Split
    cluster: int
    members: list[int]
    number: int
    low: int
    high: int

    @property
    def path(self) -> str:
        return f"split={self.split}/cluster={self.cluster:05d}/part-{self.number:05d}.parquet"


def plan_files(sizes: Counter[tuple[int, int]], merged: Merged) -> list[PlannedFile]:
    """List the files of all clusters in both splits; `sizes` counts units by (split, k-means cluster)."""
    files = []
    for split_index, split in enumerate(SPLITS):
        for cluster, members in enumerate(merged.members):
            size = sum(sizes[split_index, member] for member in members)
            num_files = -(-size // ROWS_PER_FILE)
            bounds = [KEY_RANGE // max(num_files, 1) * number for number in range(num_files)] + [KEY_RANGE]
            files += [
                PlannedFile(split, cluster, members, number, bounds[number], bounds[number + 1])
                for number in range(num_files)
            ]
    return files


def write_files(
    planned: Sequence[PlannedFile], num_sorted: int, store_uri: str, here: bool
) -> tuple[list[StoredFile], list[ClusterSummary]]:
    """Write all files; return them in order, and what each is about."""
    progress = Progress("writing the store", len(planned), "files")
    written = run_step(progress, _write_file, [num_sorted, store_uri], [(file,) for file in planned], here)
    return [file for file, _ in written], [summary for _, summary in written]


def _read_sampled(embeddings: str, shard: SampledShard) -> Embeddings:
    array = read_array(embeddings_path(embeddings, shard.name))
    sampled: Embeddings = array[shard.rows(len(array))]
    return sampled


def _sort_shards(
    text_uri: str, embeddings: str, centroids: Embeddings, first_train_key: int, shards: list[str], file: str
) -> Counter[tuple[int, int]]:
    tables = []
    for shard in shards:
        units, array = read_table(units_path(text_uri, shard)), read_array(embeddings_path(embeddings, shard))
        clusters = assign(array, centroids)
        columns = {
            "split": pa.array(units["document_key"].to_numpy() < first_train_key, pa.int8()),
            "cluster": pa.array(clusters),
            "distance": pa.array(distances(array, centroids, clusters)),
        }
        for name, values in columns.items():
            units = units.append_column(name, values)
        tables.append(units.replace_schema_metadata(None))
    table = pa.concat_tables(tables).sort_by([(key, "ascending") for key in ("split", "cluster", "unit_key")])
    write_table(file, table, SORTED_ROW_GROUP)
    return Counter(zip(table["split"].to_pylist(), table["cluster"].to_pylist(), strict=True))


def _write_file(num_sorted: int, store_uri: str, file: PlannedFile) -> tuple[StoredFile, ClusterSummary]:
    """Gather one file's units from everything that is sorted, and write it."""
    filesystem, _ = storage.resolve(store_uri)
    paths = [storage.resolve(_sorted(store_uri, number))[1] for number in range(num_sorted)]
    wanted = (
        (pc.field("split") == pa.scalar(SPLITS.index(file.split), pa.int8()))
        & pc.field("cluster").isin(pa.array(file.members, pa.int32()))
        & (pc.field("unit_key") >= file.low)
        & (pc.field("unit_key") < file.high)
    )
    units = pds.dataset(paths, filesystem=filesystem, format="parquet")
    gathered = units.to_table(columns=[*UNIT_SCHEMA.names, "unit_key", "distance"], filter=wanted)
    gathered = gathered.sort_by([(key, "ascending") for key in ("unit_key", "document", "position")])
    nearest = gathered.select(["distance", "text"]).sort_by("distance").slice(0, NEAREST_PER_CLUSTER)
    table = gathered.select(UNIT_SCHEMA.names).cast(UNIT_SCHEMA)
    groups = even_row_groups(table.num_rows, ROWS_PER_ROW_GROUP)
    write_table(storage.join(store_uri, file.path), table, groups)
    counted = table["text"].slice(0, ROWS_FOR_WORDS).to_pylist()
    nearest_units = list(zip(*nearest.to_pydict().values(), strict=True))
    stored = StoredFile(split=file.split, cluster=file.cluster, path=file.path, row_groups=groups)
    return stored, ClusterSummary(file.cluster, nearest_units, count_words(counted), len(counted))


def _sorted(store_uri: str, number: int) -> str:
    return storage.join(store_uri, WORK, "sorted", f"{number:06d}.parquet")
