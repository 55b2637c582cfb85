"""The files of the store: the units of a cluster gathered from the runs, in random order, in small row groups."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pds
import ray
from safetensors.numpy import save as save_safetensors

from supmer import storage
from supmer.corpus.clustering import Merged
from supmer.corpus.cutting import KEY_RANGE
from supmer.corpus.manifest import CENTROIDS, SPLITS, Split, StoredFile
from supmer.corpus.portraits import NEAREST_PER_CLUSTER, Portrait, count_words
from supmer.corpus.store import UNIT_SCHEMA
from supmer.corpus.workspace import Workspace, write_table
from supmer.placement import role_resources

ROWS_PER_ROW_GROUP = 256
"""An episode takes tens of units of a cluster: a row group holds several times as many, and little that is not needed."""

ROWS_PER_FILE = 65_536
"""About as many; also what one task holds in memory."""

ROWS_FOR_WORDS = 2000
"""Random units of a file from which the cluster's typical words are found."""


@dataclass(frozen=True)
class Bucket:
    """One file to write: the units of some K-means clusters in a split whose keys lie in [low, high)."""

    split: Split
    cluster: int
    members: list[int]
    number: int
    low: int
    high: int


def plan_buckets(sizes: Counter[tuple[int, int]], merged: Merged) -> list[Bucket]:
    """List the files of all clusters in both splits; `sizes` counts units by (split, K-means cluster)."""
    buckets = []
    for split_index, split in enumerate(SPLITS):
        for cluster, members in enumerate(merged.members):
            size = sum(sizes[split_index, member] for member in members)
            num_files = -(-size // ROWS_PER_FILE)
            bounds = [KEY_RANGE // max(num_files, 1) * number for number in range(num_files)] + [KEY_RANGE]
            buckets += [
                Bucket(split, cluster, members, number, bounds[number], bounds[number + 1]) for number in range(num_files)
            ]
    return buckets


def write_buckets(buckets: Sequence[Bucket], num_runs: int, store_uri: str) -> tuple[list[StoredFile], list[Portrait]]:
    """Write all files; return them in order, and what each is about."""
    rows = [{"index": index, **asdict(bucket)} for index, bucket in enumerate(buckets)]
    dataset = ray.data.from_items(rows).map(WriteBucket(store_uri, num_runs), num_cpus=1, resources=role_resources("data"))
    written = sorted(dataset.iter_rows(), key=lambda row: row["index"])
    files = [
        StoredFile(split=row["split"], cluster=row["cluster"], path=row["path"], row_groups=list(row["row_groups"]))
        for row in written
    ]
    return files, [_portrait(row) for row in written]


def write_centroids(store_uri: str, merged: Merged) -> None:
    """Write the centroids [K, d] as the tensor `centroids`."""
    storage.write_bytes(storage.join(store_uri, CENTROIDS), save_safetensors({"centroids": merged.centroids}))


def _portrait(row: dict[str, Any]) -> Portrait:
    nearest = [(distance, text) for distance, text in json.loads(row["nearest"])]
    return Portrait(row["cluster"], nearest, Counter(json.loads(row["words"])), row["counted"])


def even_row_groups(num_rows: int, most: int = ROWS_PER_ROW_GROUP) -> list[int]:
    """Cut rows into the fewest groups of at most `most`, equal to within one: a random group is then a fair sample."""
    num_groups = -(-num_rows // most)
    return [num_rows * (i + 1) // num_groups - num_rows * i // num_groups for i in range(num_groups)]


class WriteBucket:
    """Gather one file's units from all runs and write it."""

    def __init__(self, store_uri: str, num_runs: int) -> None:
        self.store_uri = store_uri
        self.num_runs = num_runs

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        gathered = self._gather(row)
        nearest = gathered.select(["distance", "text"]).sort_by("distance").slice(0, NEAREST_PER_CLUSTER)
        table = gathered.select(UNIT_SCHEMA.names).cast(UNIT_SCHEMA)
        counted = table["text"].slice(0, ROWS_FOR_WORDS).to_pylist()
        path = f"split={row['split']}/cluster={row['cluster']:05d}/part-{row['number']:05d}.parquet"
        groups = even_row_groups(table.num_rows)
        write_table(storage.join(self.store_uri, path), table, groups)
        return {
            "index": row["index"],
            "split": row["split"],
            "cluster": row["cluster"],
            "path": path,
            "row_groups": groups,
            "nearest": json.dumps(list(zip(*nearest.to_pydict().values(), strict=True))),
            "words": json.dumps(count_words(counted)),
            "counted": len(counted),
        }

    def _gather(self, row: dict[str, Any]) -> pa.Table:
        workspace = Workspace(self.store_uri)
        filesystem, _ = storage.resolve(self.store_uri)
        paths = [storage.resolve(workspace.run(number))[1] for number in range(self.num_runs)]
        wanted = (
            (pc.field("split") == pa.scalar(SPLITS.index(row["split"]), pa.int8()))
            & pc.field("cluster").isin(pa.array(row["members"], pa.int32()))
            & (pc.field("unit_key") >= row["low"])
            & (pc.field("unit_key") < row["high"])
        )
        runs = pds.dataset(paths, filesystem=filesystem, format="parquet")
        table = runs.to_table(columns=[*UNIT_SCHEMA.names, "unit_key", "distance"], filter=wanted)
        return table.sort_by([(key, "ascending") for key in ("unit_key", "document", "position")])
