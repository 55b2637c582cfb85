"""Second step of a preparation, as a Ray computation over shards: embed all units, or a sample of them.

torch is imported where units are embedded only: for a small corpus its import takes longer than the work of a process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import ray.data
from ray.data import ActorPoolStrategy

from supmer import storage
from supmer.config import Config
from supmer.corpus.clustering import sample_counts
from supmer.corpus.levels import CutText, embeddings_path, units_path, write_embeddings
from supmer.corpus.progress import Progress
from supmer.corpus.reading import quieten_ray_data
from supmer.corpus.tables import read_table, write_array
from supmer.corpus.unit import Embeddings
from supmer.placement import max_cpus, max_gpus, role_resources

if TYPE_CHECKING:
    from supmer.corpus.embedding import Encoder, SentenceEncoder


REPORTED_UNITS = 1024
"""Units that are embedded between two reports of progress."""


class SampledShard(NamedTuple):
    """How many units of a shard belong to the sample that k-means sees, and the seed that draws them."""

    name: str
    size: int
    seed: list[int]

    def rows(self, num_rows: int) -> npt.NDArray[np.int64]:
        """Return the sampled rows of the shard, ascending."""
        drawn = np.random.default_rng(self.seed).choice(num_rows, self.size, replace=False, shuffle=False)
        return np.sort(drawn)


def sample_of(text: CutText, config: Config) -> list[SampledShard]:
    """Share a uniform sample of at most `clusters.sample_size` units out among the shards that have some of it."""
    seed = config.corpus.seed
    sizes = sample_counts([shard.num_units for shard in text.shards], config.clusters.sample_size, seed)
    numbered = enumerate(zip(text.shards, sizes, strict=True))
    return [SampledShard(shard.name, size, [seed, 1, number]) for number, (shard, size) in numbered if size]


def embed(config: Config, text: CutText, uri: str, sample: Sequence[SampledShard] | None = None) -> None:
    """Write the embeddings of all units below `uri`, or the backbone's of a sample; finished shards are kept."""
    quieten_ray_data()
    if sample is None:
        rows: list[dict[str, Any]] = [{"shard": shard.name, "num_units": shard.num_units} for shard in text.shards]
    else:
        rows = [{"shard": one.name, "num_units": one.size, "seed": one.seed} for one in sample]
    num_gpus, num_cpus = int(max_gpus()), max(1, int(max_cpus()))
    num_actors = min(config.corpus.embedders or num_gpus or num_cpus, len(rows))
    # Half a CPU, so that other tasks are never shut out.
    resources: dict[str, Any] = {"num_cpus": 0.5, "resources": role_resources("trainer" if num_gpus else "data")}
    if num_gpus:
        resources["num_gpus"] = 1
    with Progress("embedding", sum(row["num_units"] for row in rows), "sentences") as progress:
        embedded = ray.data.from_items(rows, override_num_blocks=len(rows)).flat_map(
            EmbedShard,
            fn_constructor_args=(config, text.uri, uri, sample is not None, max(1, num_cpus // num_actors)),
            compute=ActorPoolStrategy(min_size=1, max_size=num_actors, initial_size=num_actors),
            **resources,
        )
        # Each report is a block of its own, else they would all come with the last.
        embedded.context.target_max_block_size = 1
        for row in embedded.iter_rows():
            progress.add(row["num_units"])
    write_embeddings(uri, progress.done, (sample is None and config.clusters.embedding_model) or config.backbone.name)


class EmbedShard:
    """Embed the units of a shard and write the embeddings, unless an earlier attempt did; one encoder per actor."""

    def __init__(self, config: Config, text_uri: str, uri: str, of_backbone: bool, num_threads: int) -> None:
        import torch

        from supmer.corpus.embedding import Encoder, SentenceEncoder

        torch.set_num_threads(num_threads)
        self.text_uri, self.uri = text_uri, uri
        max_tokens = config.corpus.embed_batch_tokens
        self.encoder: Encoder | SentenceEncoder = (
            Encoder.of_backbone(config.backbone, max_tokens)
            if of_backbone or config.clusters.embedding_model is None
            else SentenceEncoder(config.clusters, max_tokens)
        )

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield what is done, some units at a time: with a large model a shard takes minutes."""
        file = embeddings_path(self.uri, row["shard"])
        if storage.exists(file):
            yield {"num_units": row["num_units"]}
            return
        units = read_table(units_path(self.text_uri, row["shard"]), columns=["text", "tokens"])
        if "seed" in row:
            units = units.take(SampledShard(row["shard"], row["num_units"], list(row["seed"])).rows(len(units)))
        # Units of similar length go together. In random order, the rate so far says how long the rest takes.
        by_length = np.argsort(pc.list_value_length(units["tokens"]).to_numpy(), kind="stable")
        slices = np.split(by_length, range(REPORTED_UNITS, len(units), REPORTED_UNITS))
        embeddings: Embeddings | None = None
        for number in np.random.default_rng(0).permutation(len(slices)):
            rows = slices[number]
            found = self.encoder.embed_units(units.take(rows))
            if embeddings is None:
                embeddings = np.empty((len(units), found.shape[1]), np.float32)
            embeddings[rows] = found
            yield {"num_units": len(rows)}
        assert embeddings is not None
        write_array(file, embeddings)
