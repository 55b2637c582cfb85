"""What a store is made from: two preparations with equal fingerprints give equal stores."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from types import MappingProxyType
from typing import Any

from supmer.backbone.load import backbone_identity, folder_digest
from supmer.config import Config
from supmer.corpus.clustering import min_cluster_size, min_num_clusters
from supmer.corpus.contamination import task_files
from supmer.corpus.files import CorpusFile
from supmer.corpus.hub import describe_hub
from supmer.corpus.manifest import SCHEMA_VERSION
from supmer.corpus.reading import corpus_files

WITHOUT_EFFECT = {"store_dir", "embedders", "paths", "exclude_tasks"}
"""Settings of the corpus section that do not change the store (of paths, the files they lead to count)."""


def describe_inputs(config: Config) -> dict[str, Any]:
    """Return everything that decides the content of a store, as JSON values.

    Files are known by path, size and time of modification, documented packages by their versions.

    Raises:
        UserError: there are no files, or a Parquet file has no text column.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "sources": describe_sources(config),
        "excluded_tasks": _digest_files(task_files(config.corpus)),
        "corpus": config.corpus.model_dump(mode="json", exclude=WITHOUT_EFFECT),
        "clusters": config.clusters.model_dump(mode="json"),
        "min_cluster_size": min_cluster_size(config.tasks),
        "min_num_clusters": min_num_clusters(config.tasks),
        "backbone": backbone_identity(config.backbone) | {"dtype": config.backbone.dtype},
        "embedding_model": folder_digest(config.clusters.embedding_model) if config.clusters.embedding_model else None,
        "sentencex": metadata.version("sentencex"),
    }


def describe_sources(config: Config) -> dict[str, Any]:
    """Return which text is read: versions of packages, commits of data sets, or paths, sizes and times of files."""
    if config.corpus.format == "package_docs":
        return _describe_packages(config)
    return describe_hub(config.corpus) if config.corpus.format == "hub" else _describe_files(config)


def fingerprint(inputs: dict[str, Any]) -> str:
    """Return the SHA-256 of the description, in hexadecimal."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _describe_files(config: Config) -> dict[str, Any]:
    found = corpus_files(config.corpus)
    shares = dict(zip(config.corpus.paths, config.corpus.shares, strict=bool(config.corpus.shares)))
    return {
        "num_files": len(found.files),
        "num_ignored_files": found.num_ignored,
        "bytes": sum(file.size for file in found.files),
        "digest": _digest_files(found.files, shares),
    }


def _digest_files(files: Sequence[CorpusFile], shares: Mapping[str, float] = MappingProxyType({})) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(json.dumps([file.path, file.size, file.mtime_ns, file.format, shares.get(file.source, 1)]).encode())
    return digest.hexdigest()


def _describe_packages(config: Config) -> dict[str, Any]:
    distributions = metadata.packages_distributions()
    versions = {}
    for package in config.corpus.packages:
        names = distributions.get(package, [package])
        versions[package] = [metadata.version(name) for name in names if _installed(name)]
    return versions


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
