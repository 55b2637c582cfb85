"""From text to embedded units, as Ray computations over parts of the corpus.

What a stage makes of a part is a file of the workspace; only names, counts and a tokenizer pass through Ray, so memory does
not grow with the corpus, and the outcome does not depend on which process made what. torch is imported where units are
embedded only: for a small corpus its import takes longer than the work of a process.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, Dataset

from supmer.config import Config
from supmer.corpus.contamination import ExcludedText, read_excluded
from supmer.corpus.cutting import cut_documents, link_units
from supmer.corpus.duplicates import REPEATED_SCHEMA, Repeated, find_repeated, hash_part, key_ranges
from supmer.corpus.reading import quieten_ray_data, read_parts
from supmer.corpus.workspace import Part, Workspace
from supmer.placement import max_cpus, max_gpus, role_resources

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from supmer.corpus.embedding import Encoder, SentenceEncoder

PIECES = "pieces"
"""Count of a part's units as they are cut, kept with the part and told no further."""


def cut_parts(tokenizer: PreTrainedTokenizerBase, config: Config, store_uri: str) -> list[Part]:
    """Read the whole corpus and cut it into units, unless an earlier attempt did; return its parts in order."""
    workspace = Workspace(store_uri)
    finished = workspace.finished_parts()
    if finished is not None:
        return finished
    if not workspace.has_excluded():
        workspace.write_excluded(read_excluded(config.corpus).to_table())
    cut = read_parts(config).map(
        CutPart(ray.put(tokenizer), config, store_uri), num_cpus=1, resources=role_resources("data")
    )
    parts = _sorted_parts(cut)
    workspace.write_parts(parts)
    return parts


def find_duplicates(parts: Sequence[Part], config: Config, store_uri: str) -> int:
    """Name the documents and units that occurred before, a range of hashes a task; return the number of ranges."""
    if config.corpus.deduplicate == "none":
        return 0
    ranges = key_ranges(sum(part.num_units for part in parts))
    names = ray.put([part.name for part in parts])
    find = on_data_nodes(_find_repeated)
    ray.get([find.remote(store_uri, names, number, low, high) for number, (low, high) in enumerate(ranges)])
    return len(ranges)


def embed_parts(parts: Sequence[Part], num_ranges: int, config: Config, store_uri: str) -> list[Part]:
    """Drop what `find_duplicates` named, link the other units to their neighbours and embed them."""
    quieten_ray_data()
    num_actors, resources = embedder_resources(config.corpus.embedders, len(parts))
    rows = [{"part": part.name, "number": number} for number, part in enumerate(parts)]
    embedded = (
        ray.data.from_items(rows, override_num_blocks=len(rows))
        .map(LinkPart(config, store_uri, num_ranges), num_cpus=1, resources=role_resources("data"))
        .map(
            EmbedPart,
            fn_constructor_args=(config, store_uri, embedder_threads(num_actors)),
            compute=embedder_pool(num_actors),
            **resources,
        )
    )
    return [_joined(*both) for both in zip(parts, _sorted_parts(embedded), strict=True)]


class CutPart:
    """Cut the documents of a part into units and write them, unless an earlier attempt did."""

    def __init__(self, tokenizer: ray.ObjectRef[PreTrainedTokenizerBase], config: Config, store_uri: str) -> None:
        self.tokenizer = tokenizer
        self.corpus = config.corpus
        self.store_uri = store_uri

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        start = time.perf_counter()
        workspace, corpus = Workspace(self.store_uri), self.corpus
        counts = workspace.finished_pieces(row["part"])
        if counts is None:
            documents = list(zip(row["documents"], row["texts"], strict=True))
            pieces, counts = cut_documents(documents, corpus, _tokenizer(self.tokenizer), _excluded_text(self.store_uri))
            counts.update(json.loads(row["skipped"]))
            counts[PIECES] = len(pieces)
            workspace.write_pieces(row["part"], pieces, hash_part(pieces, corpus.deduplicate), counts)
        return _part_row(row["part"], counts.pop(PIECES), counts, read=row["seconds"], cut=time.perf_counter() - start)


class LinkPart:
    """Drop repeated documents and units of a part, and give the others their neighbours."""

    def __init__(self, config: Config, store_uri: str, num_ranges: int) -> None:
        self.config = config
        self.store_uri = store_uri
        self.num_ranges = num_ranges

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        start = time.perf_counter()
        workspace = Workspace(self.store_uri)
        counts = workspace.finished_units(row["part"])
        if counts is None:
            repeated = [workspace.read_repeated(number, row["number"]) for number in range(self.num_ranges)]
            pieces = workspace.read_pieces(row["part"])
            all_repeated = Repeated.of(pa.concat_tables([REPEATED_SCHEMA.empty_table(), *repeated]))
            units, counts = link_units(pieces, all_repeated, self.config.corpus)
            workspace.write_units(row["part"], units, counts)
        return _part_row(row["part"], counts["units"], counts, link=time.perf_counter() - start)


class EmbedPart:
    """Embed the units of a part and write the embeddings, unless an earlier attempt did; one encoder per actor."""

    def __init__(self, config: Config, store_uri: str, num_threads: int) -> None:
        import torch

        from supmer.corpus.embedding import Encoder, SentenceEncoder

        torch.set_num_threads(num_threads)
        self.workspace = Workspace(store_uri)
        max_tokens = config.corpus.embed_batch_tokens
        self.encoder: Encoder | SentenceEncoder = (
            SentenceEncoder(config.clusters, max_tokens)
            if config.clusters.embedding_model
            else Encoder.of_backbone(config.backbone, max_tokens)
        )

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        start = time.perf_counter()
        if not self.workspace.has_embeddings(row["part"]):
            units = self.workspace.read_units(row["part"], ["text", "tokens"])
            self.workspace.write_embeddings(row["part"], self.encoder.embed_units(units))
        seconds = json.loads(row["seconds"]) | {"embed": time.perf_counter() - start}
        return row | {"seconds": json.dumps(seconds)}


def _find_repeated(store_uri: str, parts: list[str], number: int, low: int, high: int) -> None:
    workspace = Workspace(store_uri)
    if not workspace.has_repeated(number):
        workspace.write_repeated(number, find_repeated([workspace.read_hashes(part, low, high) for part in parts]))


def _part_row(part: str, num_units: int, counts: Counter[str], **seconds: float) -> dict[str, Any]:
    """Return a part as a row of a Ray dataset, whose columns must be of one type throughout."""
    return {"part": part, "num_units": num_units, "counts": json.dumps(counts), "seconds": json.dumps(seconds)}


def _joined(cut: Part, embedded: Part) -> Part:
    counts = Counter(cut.counts) + Counter(embedded.counts)
    return Part(cut.name, embedded.num_units, counts, cut.seconds | embedded.seconds)


def _sorted_parts(rows: Dataset) -> list[Part]:
    parts = [
        Part(row["part"], row["num_units"], json.loads(row["counts"]), json.loads(row["seconds"]))
        for row in rows.iter_rows()
    ]
    return sorted(parts, key=lambda part: part.name)


@lru_cache(maxsize=1)
def _excluded_text(store_uri: str) -> ExcludedText:
    return ExcludedText.from_table(Workspace(store_uri).read_excluded())


@lru_cache(maxsize=1)
def _tokenizer(reference: ray.ObjectRef[PreTrainedTokenizerBase]) -> PreTrainedTokenizerBase:
    """Fetch the tokenizer that the driver has loaded, which takes less than to find and load it as one of any model."""
    return ray.get(reference)


def on_data_nodes(function: Callable[..., Any]) -> Any:
    """Return the function as a Ray task that runs where data is prepared."""
    return ray.remote(function).options(resources=role_resources("data"))


def embedder_pool(num_actors: int) -> ActorPoolStrategy:
    """Return a pool that starts with all its actors, and may have fewer where there is little to do."""
    return ActorPoolStrategy(min_size=1, max_size=num_actors, initial_size=num_actors)


def embedder_threads(num_actors: int) -> int:
    """Return the threads of each of so many actors that share the CPUs."""
    return max(1, _num_cpus() // num_actors)


def embedder_resources(num_embedders: int | None, num_parts: int) -> tuple[int, dict[str, Any]]:
    """Return the number of actors, at most one a part, and what each reserves.

    Half a CPU, so that reading and cutting are never shut out.
    """
    num_gpus = int(max_gpus())
    num_actors = min(num_embedders or num_gpus or _num_cpus(), num_parts)
    if num_gpus:
        return num_actors, {"num_cpus": 0.5, "num_gpus": 1, "resources": role_resources("trainer")}
    return num_actors, {"num_cpus": 0.5, "resources": role_resources("data")}


def _num_cpus() -> int:
    return max(1, int(max_cpus()))
