"""Checks across the sections of a configuration: each raises ValueError with the setting, its value and what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from supmer.config import Config


def check_length_budget(config: Config) -> None:
    """Each row needs room for the prompt and for the shortest row of every format."""
    most = config.tasks.max_length - config.tasks.min_input_tokens
    if config.prompt.length > most:
        raise ValueError(
            f"prompt.length={config.prompt.length}: must be at most tasks.max_length - {config.tasks.min_input_tokens} = "
            f"{most}, so that rows keep room for text"
        )
    if config.train.max_tokens_per_microbatch < config.tasks.max_length:
        raise ValueError(
            f"train.max_tokens_per_microbatch={config.train.max_tokens_per_microbatch}: must be at least "
            f"tasks.max_length={config.tasks.max_length}, so that one row fits"
        )


def check_sharding(config: Config) -> None:
    """Workers form equal groups, each of which holds one copy of the weights."""
    train = config.train
    if train.sharding != "none" and train.min_workers < 2:
        raise ValueError(f"train.sharding={train.sharding}: must be none unless train.workers is at least 2")
    if train.sharding == "hybrid" and train.is_elastic:
        raise ValueError("train.sharding=hybrid: must be none or full where train.workers is [min, max]")
    if train.sharding == "hybrid" and (train.shard_size < 2 or train.max_workers % train.shard_size):
        raise ValueError(f"train.shard_size={train.shard_size}: must be at least 2 and divide train.workers={train.workers}")


def check_compile(config: Config) -> None:
    """Sharding's hooks would cut the graphs of compiled blocks to pieces."""
    if config.backbone.compile and config.train.sharding != "none":
        raise ValueError(f"backbone.compile=true: must be false with train.sharding={config.train.sharding}")


def check_workers_have_episodes(config: Config) -> None:
    """A worker without an episode would only wait for the others."""
    if config.train.max_workers > config.meta.tasks_per_step:
        raise ValueError(
            f"train.workers={config.train.max_workers}: must be at most meta.tasks_per_step={config.meta.tasks_per_step}, "
            "so that each worker has an episode"
        )


def check_clusters_for_scc(config: Config) -> None:
    """The classes of an `scc` episode and those of its augmentation are different clusters."""
    needed = 2 * config.tasks.num_options
    if "scc" in config.tasks.kinds and config.clusters.num_clusters < needed:
        raise ValueError(
            f"clusters.num_clusters={config.clusters.num_clusters}: must be at least 2 * tasks.num_options = {needed}, "
            "or leave scc out of tasks.kinds"
        )


def check_cluster_sample(config: Config) -> None:
    """K-means needs at least K units."""
    sample, clusters = config.clusters.sample_size, config.clusters.num_clusters
    if sample < clusters:
        raise ValueError(f"clusters.sample_size={sample}: must be at least clusters.num_clusters={clusters}")


def check_local_places(config: Config) -> None:
    """Event files are appended to and weights are mapped into memory: neither can be done in an object store."""
    if "tensorboard" in config.log.trackers and "://" in config.run.dir:
        raise ValueError(f"log.trackers={config.log.trackers}: must be without tensorboard unless run.dir is a local folder")
    if "://" in config.backbone.cache_dir:
        raise ValueError(f"backbone.cache_dir={config.backbone.cache_dir}: must be a local folder")


CHECKS: tuple[Callable[[Config], None], ...] = (
    check_length_budget,
    check_sharding,
    check_compile,
    check_workers_have_episodes,
    check_clusters_for_scc,
    check_cluster_sample,
    check_local_places,
)
