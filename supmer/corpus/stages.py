"""The stages of a preparation as Ray computations over parts of the corpus.

What a stage makes of a part is a file of the workspace; only names and counts pass through Ray, so memory does not grow
with the corpus, and the outcome does not depend on which process made what.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch
from ray.data import ActorPoolStrategy
from transformers import PreTrainedTokenizerBase

from supmer.backbone.load import load_tokenizer
from supmer.config import BackboneConfig, ClustersConfig, Config
from supmer.corpus.clustering import Fit, assign, fit_kmeans, sample_counts
from supmer.corpus.cutting import cut_documents
from supmer.corpus.embedding import Embeddings, Encoder
from supmer.corpus.reading import read_parts
from supmer.corpus.workspace import Workspace, write_table
from supmer.placement import max_cpus, max_gpus, role_resources

PARTS_PER_RUN = 8
"""Parts that are sorted together: fewer and larger runs to gather a cluster from, against memory per task."""

RUN_ROW_GROUP = 1024


@dataclass(frozen=True)
class Part:
    """A part that is cut and embedded: its id and its counts (of units, of what was left out, and seconds by stage)."""

    name: str
    num_units: int
    counts: Counter[str]
    seconds: dict[str, float]


def embed_parts(config: Config, store_uri: str) -> list[Part]:
    """Read, cut and embed the whole corpus; return its parts in order."""
    num_actors, resources = _embedder_resources(config.corpus.embedders)
    dataset = (
        read_parts(config)
        .map(CutPart(config, store_uri), num_cpus=1, resources=role_resources("data"))
        .map(
            EmbedPart,
            fn_constructor_args=(config, store_uri, max(1, _num_cpus() // num_actors)),
            compute=ActorPoolStrategy(min_size=1, max_size=num_actors, initial_size=num_actors),
            **resources,
        )
    )
    parts = [
        Part(row["part"], row["num_units"], Counter(json.loads(row["counts"])), json.loads(row["seconds"]))
        for row in dataset.iter_rows()
    ]
    return sorted(parts, key=lambda part: part.name)


class CutPart:
    """Cut the documents of a part into units and write them, unless an earlier attempt did."""

    def __init__(self, config: Config, store_uri: str) -> None:
        self.config = config
        self.store_uri = store_uri

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        start = time.perf_counter()
        workspace = Workspace(self.store_uri)
        counts = workspace.finished_units(row["part"])
        if counts is None:
            documents = list(zip(row["documents"], row["texts"], strict=True))
            units, counts = cut_documents(documents, self.config.corpus, _tokenizer(self.config.backbone))
            counts.update(json.loads(row["skipped"]))
            workspace.write_units(row["part"], units, counts)
        return {
            "part": row["part"],
            "num_units": counts["units"],
            "counts": json.dumps(counts),
            "seconds": json.dumps({"read": row["seconds"], "cut": time.perf_counter() - start}),
        }


class EmbedPart:
    """Embed the units of a part and write the embeddings, unless an earlier attempt did; one encoder per actor."""

    def __init__(self, config: Config, store_uri: str, num_threads: int) -> None:
        torch.set_num_threads(num_threads)
        self.workspace = Workspace(store_uri)
        self.encoder = Encoder(config.backbone, config.corpus.embed_batch_tokens)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        start = time.perf_counter()
        if not self.workspace.has_embeddings(row["part"]):
            column = self.workspace.read_units(row["part"], ["tokens"])["tokens"].combine_chunks()
            units = np.split(column.values.to_numpy(), column.offsets.to_numpy()[1:-1]) if len(column) else []
            self.workspace.write_embeddings(row["part"], self.encoder.embed(units))
        seconds = json.loads(row["seconds"]) | {"embed": time.perf_counter() - start}
        return row | {"seconds": json.dumps(seconds)}


def fit_clusters(parts: Sequence[Part], config: ClustersConfig, seed: int, store_uri: str) -> Fit:
    """Fit K-means on a sample of at most `clusters.sample_size` units, restarts side by side; return the best."""
    shares = sample_counts([part.num_units for part in parts], config.sample_size, seed)
    sample_part, fit = _on_data_nodes(_sample_part), _on_data_nodes(fit_kmeans)
    pieces = [
        sample_part.remote(store_uri, part.name, share, [seed, 1, number])
        for number, (part, share) in enumerate(zip(parts, shares, strict=True))
        if share
    ]
    sample = ray.put(np.concatenate(ray.get(pieces)))
    fits: list[Fit] = ray.get([fit.remote(sample, config, seed, restart) for restart in range(config.restarts)])
    return min(fits, key=lambda fit: fit.inertia)


def sort_runs(parts: Sequence[Part], fit: Fit, store_uri: str, first_train_key: int) -> list[Counter[tuple[int, int]]]:
    """Assign all units to clusters and write them as sorted runs; return the units per (split, cluster) of each run.

    Documents whose key is below `first_train_key` are validation (split 1), the others are train (split 0).
    """
    groups = [[part.name for part in parts[i : i + PARTS_PER_RUN]] for i in range(0, len(parts), PARTS_PER_RUN)]
    centroids = ray.put(fit.centroids)
    sort_run = _on_data_nodes(_sort_run)
    pending = [sort_run.remote(store_uri, number, group, centroids, first_train_key) for number, group in enumerate(groups)]
    return list(ray.get(pending))


def _sample_part(store_uri: str, part: str, size: int, seed: list[int]) -> Embeddings:
    embeddings = Workspace(store_uri).read_embeddings(part)
    rows = np.random.default_rng(seed).choice(len(embeddings), size, replace=False, shuffle=False)
    return embeddings[np.sort(rows)]


def _sort_run(
    store_uri: str, number: int, parts: list[str], centroids: Embeddings, first_train_key: int
) -> Counter[tuple[int, int]]:
    workspace = Workspace(store_uri)
    tables = []
    for part in parts:
        units = workspace.read_units(part)
        clusters = assign(workspace.read_embeddings(part), centroids)
        is_validation = units["document_key"].to_numpy() < first_train_key
        tables.append(
            units.append_column("split", pa.array(is_validation, pa.int8())).append_column("cluster", pa.array(clusters))
        )
    table = pa.concat_tables(tables).sort_by([(key, "ascending") for key in ("split", "cluster", "unit_key")])
    num_rows = table.num_rows
    groups = [min(RUN_ROW_GROUP, num_rows - start) for start in range(0, num_rows, RUN_ROW_GROUP)]
    write_table(workspace.run(number), table.replace_schema_metadata(None), groups)
    return Counter(zip(table["split"].to_pylist(), table["cluster"].to_pylist(), strict=True))


@lru_cache(maxsize=1)
def _tokenizer(config: BackboneConfig) -> PreTrainedTokenizerBase:
    return load_tokenizer(config)


def _num_cpus() -> int:
    return max(1, int(max_cpus()))


def _on_data_nodes(function: Callable[..., Any]) -> Any:
    return ray.remote(function).options(resources=role_resources("data"))


def _embedder_resources(num_embedders: int | None) -> tuple[int, dict[str, Any]]:
    """Return the number of actors and what each reserves: half a CPU, so that reading and cutting are never shut out."""
    num_gpus = int(max_gpus())
    if num_gpus:
        return num_embedders or num_gpus, {"num_cpus": 0.5, "num_gpus": 1, "resources": role_resources("trainer")}
    return num_embedders or _num_cpus(), {"num_cpus": 0.5, "resources": role_resources("data")}
