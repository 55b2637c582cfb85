"""What texts, embeddings and stores are made from: two preparations with equal fingerprints give equal results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from types import MappingProxyType
from typing import Any

from supmer import storage
from supmer.backbone.identity import backbone_identity, folder_digest
from supmer.config import Config, CorpusConfig
from supmer.config.effects import settings_that_affect
from supmer.corpus.clustering import min_cluster_size, min_num_clusters
from supmer.corpus.contamination import task_files
from supmer.corpus.hub import describe_hub
from supmer.corpus.levels import EMBEDDINGS_PREFIX, NAME_LETTERS, TEXT_PREFIX, store_path
from supmer.corpus.manifest import SCHEMA_VERSION
from supmer.corpus.reading import corpus_files
from supmer.readers.files import InputFile

TEXT_INPUTS = ("schema_version", "sources", "excluded_tasks", "text", "tokenizer", "sentencex")
"""Of `describe_inputs`: what decides the cut text."""


def describe_inputs(config: Config) -> dict[str, Any]:
    """Return everything that decides the content of a store, as JSON values.

    Files are known by path, size and time of modification, documented packages by their versions. Episodes that need
    clusters of the same size and number share a store, so these two stand here for the settings of `tasks`.

    Raises:
        UserError: there are no files, or a Parquet file has no text column.
    """
    backbone: dict[str, Any] = backbone_identity(config.backbone)
    own = ("name", "revision", "content") if config.backbone.tokenizer is None else ("tokenizer", "tokenizer_revision")
    embedding = settings_that_affect(config, "embeddings", sources=False)
    clusters = settings_that_affect(config, "clusters")
    model = config.clusters.embedding_model
    return {
        "schema_version": SCHEMA_VERSION,
        "sources": describe_sources(config),
        "excluded_tasks": _digest_files(task_files(config.corpus)),
        "text": settings_that_affect(config, "units", sources=False),
        "tokenizer": {"setting": config.backbone.tokenizer} | {name: backbone.get(name) for name in own},
        "sentencex": metadata.version("sentencex"),
        "encoder": embedding | ({"content": folder_digest(model)} if model else backbone),
        "backbone": embedding | backbone,
        "clusters": {name: value for name, value in clusters.items() if not name.startswith("tasks.")},
        "min_cluster_size": min_cluster_size(config.tasks),
        "min_num_clusters": min_num_clusters(config.tasks),
    } | ({"topic_words": True} if "ctw" in config.tasks.kinds else {})  # stores from before that kind have none


def text_inputs(inputs: dict[str, Any]) -> dict[str, Any]:
    """Return what decides the cut text, of what `describe_inputs` returns."""
    return {name: inputs[name] for name in TEXT_INPUTS}


@dataclass(frozen=True)
class Places:
    """Folders of the results for one configuration.

    `sample` is None unless `clusters.embedding_model` is set: then it holds the backbone's embeddings of the sample.
    """

    text: str
    embeddings: str
    sample: str | None
    store: str

    @classmethod
    def of(cls, corpus: CorpusConfig, inputs: dict[str, Any]) -> Places:
        """Return the folders for what `describe_inputs` returns."""
        about_text = text_inputs(inputs)
        text = storage.join(storage.absolute(corpus.store_dir), TEXT_PREFIX + fingerprint(about_text)[:NAME_LETTERS])

        def embeddings(*names: str, **others: Any) -> str:
            made_from = about_text | {name: inputs[name] for name in names} | others
            return storage.join(text, EMBEDDINGS_PREFIX + fingerprint(made_from)[:NAME_LETTERS])

        sample = None
        if inputs["encoder"] != inputs["backbone"]:
            sample = embeddings("backbone", sample_size=inputs["clusters"]["clusters.sample_size"])
        return cls(text, embeddings("encoder"), sample, store_path(corpus, fingerprint(inputs)))


def describe_sources(config: Config) -> dict[str, Any]:
    """Return which text is read: versions of packages, commits of data sets, or paths, sizes and times of files."""
    if config.corpus.format == "package_docs":
        distributions = metadata.packages_distributions()
        versions: dict[str, list[str]] = {}
        for package in config.corpus.packages:
            versions[package] = []
            for name in distributions.get(package, [package]):
                with suppress(metadata.PackageNotFoundError):
                    versions[package].append(metadata.version(name))
        return versions
    if config.corpus.format == "hub":
        return describe_hub(config.corpus)
    found = corpus_files(config.corpus)
    shares = dict(zip(config.corpus.paths, config.corpus.shares, strict=bool(config.corpus.shares)))
    return {
        "num_files": len(found.files),
        "num_ignored_files": found.num_ignored,
        "bytes": sum(file.size for file in found.files),
        "digest": _digest_files(found.files, shares),
    }


def fingerprint(inputs: dict[str, Any]) -> str:
    """Return the SHA-256 of the description, in hexadecimal."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _digest_files(files: Sequence[InputFile], shares: Mapping[str, float] = MappingProxyType({})) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(json.dumps([file.path, file.size, file.mtime_ns, file.format, shares.get(file.source, 1)]).encode())
    return digest.hexdigest()
