"""Checks across the sections of a configuration: each raises UserError with the setting, its value and what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

from supmer.config import Config, PerfectConfig
from supmer.errors import setting_error


def check_length_budget(config: Config) -> None:
    """Each row needs room for the prompt and for the shortest row of every format."""
    most = config.tasks.max_length - config.tasks.min_input_tokens
    if config.prompt.length > most:
        limit = f"tasks.max_length - {config.tasks.min_input_tokens} = {most}"
        raise setting_error(
            "prompt.length", config.prompt.length, f"must be at most {limit}, so that rows keep room for text"
        )
    if config.train.max_tokens_per_microbatch < config.tasks.max_length:
        allowed = f"must be at least tasks.max_length={config.tasks.max_length}, so that one row fits"
        raise setting_error("train.max_tokens_per_microbatch", config.train.max_tokens_per_microbatch, allowed)


def check_sharding(config: Config) -> None:
    """Workers form equal groups, each of which holds one copy of the weights."""
    train = config.train
    if train.sharding != "none" and train.min_workers < 2:
        raise setting_error("train.sharding", train.sharding, "must be none unless train.workers is at least 2")
    if train.sharding == "hybrid" and train.is_elastic:
        raise setting_error("train.sharding", train.sharding, "must be none or full where train.workers is [min, max]")
    if train.sharding == "hybrid" and (train.shard_size < 2 or train.max_workers % train.shard_size):
        allowed = f"must be at least 2 and divide train.workers={train.workers}"
        raise setting_error("train.shard_size", train.shard_size, allowed)


def check_compile(config: Config) -> None:
    """Sharding's hooks would cut the graphs of compiled blocks to pieces."""
    if config.backbone.compile and config.train.sharding != "none":
        raise setting_error("backbone.compile", "true", f"must be false with train.sharding={config.train.sharding}")


def check_clusters_for_scc(config: Config) -> None:
    """The classes of an `scc` episode and those of its augmentation are different clusters."""
    needed = 2 * config.tasks.num_options
    if "scc" in config.tasks.kinds and config.clusters.num_clusters < needed:
        allowed = f"must be at least 2 * tasks.num_options = {needed}, or leave scc out of tasks.kinds"
        raise setting_error("clusters.num_clusters", config.clusters.num_clusters, allowed)


def check_cluster_sample(config: Config) -> None:
    """K-means needs at least K units."""
    sample, clusters = config.clusters.sample_size, config.clusters.num_clusters
    if sample < clusters:
        raise setting_error("clusters.sample_size", sample, f"must be at least clusters.num_clusters={clusters}")


def check_replicas(config: Config) -> None:
    """Replicas grow from the fewest to the most."""
    if config.serve.min_replicas > config.serve.max_replicas:
        allowed = f"must be at most serve.max_replicas={config.serve.max_replicas}"
        raise setting_error("serve.min_replicas", config.serve.min_replicas, allowed)


def check_warmup(config: Config) -> None:
    """Rates that grow until the last step, or beyond, are never those that were asked for."""
    for section, settings in (("meta", config.meta), ("fewshot", config.fewshot)):
        if settings.warmup_steps >= settings.steps:
            allowed = f"must be below {section}.steps={settings.steps}"
            raise setting_error(f"{section}.warmup_steps", settings.warmup_steps, allowed)


def check_local_places(config: Config) -> None:
    """Event files are appended to, which cannot be done in an object store."""
    if "tensorboard" in config.log.trackers and "://" in config.run.dir:
        allowed = "must be without tensorboard unless run.dir is a local folder"
        raise setting_error("log.trackers", config.log.trackers, allowed)


CHECKS: tuple[Callable[[Config], None], ...] = (
    check_length_budget,
    check_sharding,
    check_compile,
    check_clusters_for_scc,
    check_cluster_sample,
    check_replicas,
    check_warmup,
    check_local_places,
)


NEEDS: dict[str, tuple[str, tuple[object, ...]]] = {
    "corpus.paths": ("corpus.format", ("auto", "text", "jsonl", "csv", "parquet", "arrow", "hub")),
    "corpus.packages": ("corpus.format", ("package_docs",)),
    "corpus.hub_subset": ("corpus.format", ("hub",)),
    "corpus.hub_split": ("corpus.format", ("hub",)),
    "corpus.hub_revision": ("corpus.format", ("hub",)),
    "corpus.text_document": ("corpus.format", ("auto", "text")),
    "corpus.text_column": ("corpus.format", ("auto", "jsonl", "csv", "parquet", "arrow", "hub")),
    "corpus.id_column": ("corpus.format", ("auto", "jsonl", "csv", "parquet", "arrow", "hub")),
    "corpus.encoding": ("corpus.format", ("auto", "text", "jsonl", "csv", "parquet", "arrow")),
    "corpus.delimiter": ("corpus.format", ("auto", "csv")),
    "corpus.quoting": ("corpus.format", ("auto", "csv")),
    "corpus.language": ("corpus.unit", ("sentence",)),
    "tasks.num_options_nss": ("tasks.kinds", ("nss",)),
    "tasks.num_topics": ("tasks.kinds", ("ctw",)),
    "prompt.init_std": ("prompt.init", ("normal",)),
    "regularizer.gate_hidden": ("regularizer.gate", (True,)),
    "curriculum.alpha": ("curriculum.mode", ("curriculum", "mixup")),
    "curriculum.m": ("curriculum.mode", ("curriculum",)),
    "train.shard_size": ("train.sharding", ("hybrid",)),
    "fewshot.init": ("fewshot.methods", ("prompt_tuning",)),
    "fewshot.init_text": ("fewshot.init", ("text",)),
    "fewshot.lora_rank": ("fewshot.methods", ("lora",)),
    "fewshot.prefix_length": ("fewshot.methods", ("prefix_tuning",)),
    "fewshot.ppt_run": ("fewshot.methods", ("ppt",)),
    "fewshot.unified_ppt_run": ("fewshot.methods", ("unified_ppt",)),
    **{f"fewshot.perfect.{name}": ("fewshot.methods", ("perfect",)) for name in PerfectConfig.model_fields},
    "fewshot.fine_tuning_rate": ("fewshot.methods", ("fine_tuning",)),
    "tune.reduction_factor": ("tune.scheduler", ("asha",)),
    "tune.grace_steps": ("tune.scheduler", ("asha", "median")),
}
"""A setting has an effect only where another one has (or a list holds) one of these values."""

NEEDS_ANY = {
    "corpus.exclude_words": "corpus.exclude_tasks",
    "backbone.tokenizer_revision": "backbone.tokenizer",
    "clusters.embedding_revision": "clusters.embedding_model",
}
"""A setting has an effect only where another one is given."""


def why_without_effect(config: Config, name: str) -> str | None:
    """Return why a setting, given by its dotted name, has no effect in this configuration; None if it has one.

    >>> from supmer.config import Config
    >>> why_without_effect(Config(), "train.shard_size")
    'has no effect with train.sharding=none; needs train.sharding=hybrid'
    """
    if other := NEEDS_ANY.get(name):
        return None if _value(config, other) else f"has no effect without {other}"
    other, allowed = NEEDS.get(name, ("", ()))
    if not other:
        return None
    value = _value(config, other)
    held = value if isinstance(value, list) else [value]
    if set(held) & set(allowed):
        return None
    return f"has no effect with {other}={value}; needs {other}={' or '.join(map(str, allowed))}"


def _value(config: Config, name: str) -> object:
    return reduce(getattr, name.split("."), config)
