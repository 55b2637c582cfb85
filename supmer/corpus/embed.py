"""Second step of a preparation: embed all units, or a sample of them, shard by shard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from supmer import storage
from supmer.config import Config
from supmer.corpus.clustering import sample_counts
from supmer.corpus.levels import CutText, embeddings_path, units_path, write_embeddings
from supmer.corpus.steps import num_cores
from supmer.corpus.tables import read_table, write_array
from supmer.corpus.unit import Embeddings
from supmer.progress import Progress

if TYPE_CHECKING:  # takes seconds to import, and the processes of other steps do without
    from supmer.corpus.embedding import Encoder, SentenceEncoder

UNITS_AT_ONCE = 256
"""Units that are embedded between two reports of progress, and by one thread after the other."""


class SampledShard(NamedTuple):
    """How many units of a shard belong to the sample that k-means sees, and the seed that draws them; None: all units."""

    name: str
    size: int
    seed: list[int] | None

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


def embed(config: Config, text: CutText, uri: str, here: bool, sample: Sequence[SampledShard] | None = None) -> None:
    """Write the embeddings of all units below `uri`, or the backbone's of a sample; finished shards are kept."""
    shards = [SampledShard(shard.name, shard.num_units, None) for shard in text.shards] if sample is None else sample
    of_backbone = sample is not None or config.clusters.embedding_model is None
    with Progress("embedding", sum(shard.size for shard in shards), "sentences") as progress:
        if here:
            encoder, threads = load_encoder(config, of_backbone, num_cores())
            with threads:
                for shard in shards:
                    for num_units in embed_shard(encoder, threads, text.uri, uri, shard):
                        progress.add(num_units)
        else:
            for num_units in _embed_on_ray(config, text.uri, uri, shards, of_backbone):
                progress.add(num_units)
    name = config.backbone.name if of_backbone else config.clusters.embedding_model
    write_embeddings(uri, progress.done, str(name))


def load_encoder(
    config: Config, of_backbone: bool, num_threads: int
) -> tuple[Encoder | SentenceEncoder, ThreadPoolExecutor]:
    """Load the encoder of the backbone, or that of `clusters.embedding_model`; return it with the threads it is used in."""
    import torch

    from supmer.corpus.embedding import Encoder, SentenceEncoder

    # One thread a matrix product, so that no digit depends on the number of cores. Another model's tokenizer and a GPU serve
    # one thread at a time.
    side_by_side = num_threads if of_backbone and not torch.cuda.is_available() else 1
    threads = ThreadPoolExecutor(side_by_side, initializer=torch.set_num_threads, initargs=(num_threads // side_by_side,))
    batch_tokens = config.corpus.embed_batch_tokens
    if of_backbone:
        return threads.submit(Encoder.of_backbone, config.backbone, batch_tokens).result(), threads
    return threads.submit(SentenceEncoder, config.clusters, batch_tokens).result(), threads


def embed_shard(
    encoder: Encoder | SentenceEncoder, threads: ThreadPoolExecutor, text_uri: str, uri: str, shard: SampledShard
) -> Iterator[int]:
    """Embed the units of a shard and write the embeddings, unless an earlier attempt did.

    Yields how many units are done, some at a time: with a large model a shard takes minutes. Units of similar length go
    together. In random order, the rate so far says how long the rest takes.
    """
    file = embeddings_path(uri, shard.name)
    if storage.exists(file):
        yield shard.size
        return
    units = read_table(units_path(text_uri, shard.name), columns=["text", "tokens"])
    if shard.seed is not None:
        units = units.take(shard.rows(len(units)))
    by_length = np.argsort(pc.list_value_length(units["tokens"]).to_numpy(), kind="stable")
    batches = np.split(by_length, range(UNITS_AT_ONCE, len(units), UNITS_AT_ONCE))
    batches = [batches[number] for number in np.random.default_rng(0).permutation(len(batches))]
    embeddings: Embeddings | None = None
    for rows, found in zip(batches, threads.map(encoder.embed_units, map(units.take, batches)), strict=True):
        if embeddings is None:
            embeddings = np.empty((shard.size, found.shape[1]), np.float32)
        embeddings[rows] = found
        yield len(rows)
    assert embeddings is not None
    write_array(file, embeddings)


def _embed_on_ray(
    config: Config, text_uri: str, uri: str, shards: Sequence[SampledShard], of_backbone: bool
) -> Iterator[int]:
    """Embed by an actor for each GPU, or for each CPU; yield how many units are done."""
    import ray.data

    from supmer.corpus.reading import quieten_ray_data
    from supmer.placement import max_cpus, max_gpus, role_resources

    quieten_ray_data()
    num_gpus, num_cpus = int(max_gpus()), max(1, int(max_cpus()))
    num_actors = min(config.corpus.embedders or num_gpus or num_cpus, len(shards))
    # Half a CPU, so that other tasks are never shut out.
    resources: dict[str, Any] = {"num_cpus": 0.5, "resources": role_resources("trainer" if num_gpus else "data")}
    if num_gpus:
        resources["num_gpus"] = 1
    embedded = ray.data.from_items([shard._asdict() for shard in shards], override_num_blocks=len(shards)).flat_map(
        EmbedShard,
        fn_constructor_args=(config, text_uri, uri, of_backbone, max(1, num_cpus // num_actors)),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=num_actors, initial_size=num_actors),
        **resources,
    )
    # Each report is a block of its own, else they would all come with the last.
    embedded.context.target_max_block_size = 1
    for row in embedded.iter_rows():
        yield row["num_units"]


class EmbedShard:
    """The actor: `embed_shard` by an encoder that is loaded once."""

    def __init__(self, config: Config, text_uri: str, uri: str, of_backbone: bool, num_threads: int) -> None:
        self.text_uri, self.uri = text_uri, uri
        self.encoder, self.threads = load_encoder(config, of_backbone, num_threads)

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, int]]:
        shard = SampledShard(row["name"], row["size"], None if row["seed"] is None else list(row["seed"]))
        for num_units in embed_shard(self.encoder, self.threads, self.text_uri, self.uri, shard):
            yield {"num_units": num_units}
