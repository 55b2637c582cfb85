"""What holds across the sections of a configuration: settings that must go together, and those without an effect."""

from __future__ import annotations

from functools import reduce
from typing import Any

from supmer.config import Config, PerfectConfig
from supmer.errors import setting_error


def check_together(config: Config) -> None:
    """Raise UserError for the first setting that does not go with the others."""
    tasks, train, meta, log = config.tasks, config.train, config.meta, config.log
    most = tasks.max_length - tasks.min_input_tokens
    if config.prompt.length > most:
        limit = f"tasks.max_length - {tasks.min_input_tokens} = {most}"
        raise setting_error(
            "prompt.length", config.prompt.length, f"must be at most {limit}, so that rows keep room for text"
        )
    if train.max_tokens_per_microbatch < tasks.max_length:
        allowed = f"must be at least tasks.max_length={tasks.max_length}, so that one row fits"
        raise setting_error("train.max_tokens_per_microbatch", train.max_tokens_per_microbatch, allowed)

    # Workers form equal groups, each of which holds one copy of the weights.
    if train.sharding != "none" and train.min_workers < 2:
        raise setting_error("train.sharding", train.sharding, "must be none unless train.workers is at least 2")
    if train.sharding == "hybrid" and train.is_elastic:
        raise setting_error("train.sharding", train.sharding, "must be none or full where train.workers is [min, max]")
    if train.sharding == "hybrid" and (train.shard_size < 2 or train.max_workers % train.shard_size):
        allowed = f"must be at least 2 and divide train.workers={train.workers}"
        raise setting_error("train.shard_size", train.shard_size, allowed)
    if config.backbone.compile and train.sharding != "none":  # its hooks would cut the graphs of the blocks to pieces
        raise setting_error("backbone.compile", "true", f"must be false with train.sharding={train.sharding}")

    # The classes of an `scc` episode and those of its augmentation are different clusters.
    num_clusters, needed = config.clusters.num_clusters, 2 * tasks.num_options
    if "scc" in tasks.kinds and num_clusters < needed:
        allowed = f"must be at least 2 * tasks.num_options = {needed}, or leave scc out of tasks.kinds"
        raise setting_error("clusters.num_clusters", num_clusters, allowed)
    if config.clusters.sample_size < num_clusters:
        allowed = f"must be at least clusters.num_clusters={num_clusters}"
        raise setting_error("clusters.sample_size", config.clusters.sample_size, allowed)

    if config.serve.min_replicas > config.serve.max_replicas:
        allowed = f"must be at most serve.max_replicas={config.serve.max_replicas}"
        raise setting_error("serve.min_replicas", config.serve.min_replicas, allowed)
    # Rates that grow until the last step, or beyond, are never those that were asked for.
    for section, settings in (("meta", meta), ("fewshot", config.fewshot)):
        if settings.warmup_steps >= settings.steps:
            allowed = f"must be below {section}.steps={settings.steps}"
            raise setting_error(f"{section}.warmup_steps", settings.warmup_steps, allowed)
    if "tensorboard" in log.trackers and "://" in config.run.dir:  # event files are appended to
        raise setting_error("log.trackers", log.trackers, "must be without tensorboard unless run.dir is a local folder")


ROWS = ("auto", "jsonl", "csv", "parquet", "arrow", "hub")
"""Formats of a corpus with columns."""

NEEDS: dict[str, tuple[str, tuple[object, ...]]] = {
    "corpus.paths": ("corpus.format", ("auto", "text", "jsonl", "csv", "parquet", "arrow", "hub")),
    "corpus.packages": ("corpus.format", ("package_docs",)),
    "corpus.hub_subset": ("corpus.format", ("hub",)),
    "corpus.hub_split": ("corpus.format", ("hub",)),
    "corpus.hub_revision": ("corpus.format", ("hub",)),
    "corpus.text_document": ("corpus.format", ("auto", "text")),
    "corpus.text_column": ("corpus.format", ROWS),
    "corpus.id_column": ("corpus.format", ROWS),
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
    other, allowed = NEEDS.get(name, (NEEDS_ANY.get(name), ()))
    if other is None:
        return None
    value: Any = reduce(getattr, other.split("."), config)
    if not allowed:
        return None if value else f"has no effect without {other}"
    if set(value if isinstance(value, list) else [value]) & set(allowed):
        return None
    return f"has no effect with {other}={value}; needs {other}={' or '.join(map(str, allowed))}"
