"""From raw text to a task store (section 1): read, cut, embed, cluster, write."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import ray

from supmer import storage
from supmer.backbone.load import load_model_config, load_tokenizer
from supmer.config import Config, CorpusConfig
from supmer.corpus.checks import check_hosts, check_size
from supmer.corpus.clustering import Fit, Merged, merge_small, min_cluster_size, silhouette
from supmer.corpus.cutting import KEY_RANGE
from supmer.corpus.fingerprint import describe_inputs, fingerprint
from supmer.corpus.grouping import backbone_centroids, draw_sample, fit_clusters, sort_runs
from supmer.corpus.manifest import MANIFEST, PICTURE, SCHEMA_VERSION, SPLITS, Manifest, write_manifest
from supmer.corpus.portraits import draw_clusters, nearest_units, typical_words
from supmer.corpus.records import SKIP_REASONS
from supmer.corpus.stages import cut_parts, embed_parts, find_duplicates
from supmer.corpus.workspace import Part, Workspace
from supmer.corpus.writing import plan_buckets, write_buckets, write_centroids
from supmer.errors import UserError
from supmer.runtime import connect_ray

logger = logging.getLogger(__name__)

FEW_DOCUMENTS = 50
"""Below this expected number of documents in a split, the split is drawn exactly instead of document by document."""


def store_path(corpus: CorpusConfig, identity: str) -> str:
    """Return where the store of a fingerprint lies, or would."""
    return storage.join(storage.absolute(corpus.store_dir), identity[:16])


def prepare(config: Config) -> str:
    """Return the path of the task store for this configuration, preparing it if there is no complete one.

    Joins or starts Ray if there is something to do. An interrupted preparation goes on where it stopped; a store counts as
    complete when its manifest is there. Of two jobs that prepare the same store, the first to end completes it for both.

    Raises:
        UserError: the corpus or the backbone cannot be used, or the corpus is too small for the settings.
    """
    inputs = describe_inputs(config)
    store_uri = store_path(config.corpus, fingerprint(inputs))
    if storage.exists(storage.join(store_uri, MANIFEST)):
        logger.info("store %s re-used", store_uri)
        return store_uri
    try:
        _make(config, inputs, store_uri)
    except (OSError, ray.exceptions.RayError):
        # The first to end deletes the intermediate files, under the hands of the other.
        if not storage.exists(storage.join(store_uri, MANIFEST)):
            raise
        Workspace(store_uri).delete()
        logger.info("store %s was completed by another job meanwhile", store_uri)
    return store_uri


def _make(config: Config, inputs: dict[str, Any], store_uri: str) -> None:
    """Write the store of these inputs, its manifest last."""
    parts = embed_corpus(config, store_uri)
    counts = sum((Counter(part.counts) for part in parts), Counter[str]())
    with _timed("clustered a sample"):
        sample = draw_sample(parts, config.clusters, config.corpus.seed, store_uri)
        fit = fit_clusters(sample, config.clusters, config.corpus.seed)
    with _timed("assigned all units"):
        first_train_key = _split_key(config, parts, counts["documents"], store_uri)
        runs = sort_runs(parts, fit, store_uri, first_train_key)
    sizes = sum(runs, Counter[tuple[int, int]]())
    merged = _merge(config, fit, sizes)
    if config.clusters.embedding_model:
        with _timed("embedded the sample with the backbone"):
            merged = replace(merged, centroids=backbone_centroids(parts, fit, merged, config, store_uri))
    with _timed("wrote the store"):
        files, portraits = write_buckets(plan_buckets(sizes, merged), len(runs), store_uri)
        write_centroids(store_uri, merged)
    counts["clusters_merged_away"] = config.clusters.num_clusters - len(merged.members)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        fingerprint=fingerprint(inputs),
        inputs=inputs,
        counts=dict(sorted(counts.items())),
        d_model=merged.centroids.shape[1],
        min_cluster_size=min_cluster_size(config.tasks),
        inertia=fit.inertia,
        merged_from=merged.members,
        silhouette=silhouette(sample, fit, config.corpus.seed),
        nearest=nearest_units(portraits, len(merged.members)),
        typical_words=typical_words(portraits, len(merged.members)),
        files=files,
    )
    check_hosts(config, manifest)
    storage.write_bytes(storage.join(store_uri, PICTURE), draw_clusters(manifest, merged.centroids))
    write_manifest(store_uri, manifest)
    Workspace(store_uri).delete()


def embed_corpus(config: Config, store_uri: str) -> list[Part]:
    """Cut and embed the whole corpus for a store, unless an earlier attempt did; return its parts.

    Joins or starts Ray. Counts of the parts are those of all stages.

    Raises:
        UserError: the corpus or the backbone cannot be used, or the corpus is too small for the settings.
    """
    tokenizer = load_tokenizer(config.backbone)
    load_model_config(config.backbone)  # a mistake in the settings must not first show up in a worker
    storage.check_writable("corpus.store_dir", config.corpus.store_dir)
    connect_ray()
    logger.info("preparing store %s", store_uri)
    with _timed("read and cut"):
        cut = cut_parts(tokenizer, config, store_uri)
    with _timed("found duplicates"):
        num_ranges = find_duplicates(cut, config, store_uri)
    with _timed("linked and embedded"):
        parts = embed_parts(cut, num_ranges, config, store_uri)
    counts = sum((Counter(part.counts) for part in parts), Counter[str]())
    _report(parts, counts)
    check_size(config, counts)
    return parts


@contextmanager
def _timed(what: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    logger.info("%s in %.1f s", what, time.perf_counter() - start)


def _report(parts: Sequence[Part], counts: Counter[str]) -> None:
    seconds = sum((Counter(part.seconds) for part in parts), Counter[str]())
    logger.info(
        "%d documents, %d units (process seconds: %s)",
        counts["documents"],
        counts["units"],
        ", ".join(f"{stage} {spent:.1f}" for stage, spent in seconds.items()),
    )
    for reason, meaning in SKIP_REASONS.items():
        if counts[reason]:
            logger.warning("skipped %d %s (%s)", counts[reason], meaning, reason)
    left_out = ", ".join(f"{counts[name]} {name}" for name in sorted(counts) if name not in SKIP_REASONS)
    logger.info("counts: %s", left_out)


def _split_key(config: Config, parts: Sequence[Part], num_documents: int, store_uri: str) -> int:
    """Return the document key below which documents belong to validation; each split gets at least one document."""
    fraction = config.corpus.validation_fraction
    if num_documents * min(fraction, 1 - fraction) >= FEW_DOCUMENTS:
        return int(fraction * KEY_RANGE)
    workspace = Workspace(store_uri)
    keys = np.unique(np.concatenate([workspace.read_units(part.name, ["document_key"])["document_key"] for part in parts]))
    if len(keys) < len(SPLITS):
        raise UserError(f"corpus.id_column={config.corpus.id_column}: must identify at least 2 documents, all have the same")
    return int(keys[min(max(round(len(keys) * fraction), 1), len(keys) - 1)])


def _merge(config: Config, fit: Fit, sizes: Counter[tuple[int, int]]) -> Merged:
    """Merge clusters that cannot host an episode in the train split."""
    train = np.array([sizes[SPLITS.index("train"), cluster] for cluster in range(len(fit.centroids))])
    merged = merge_small(fit.centroids, train, min_cluster_size(config.tasks))
    lost = len(fit.centroids) - len(merged.members)
    if lost:
        logger.info("%d of %d clusters were too small and are merged into their neighbours", lost, len(fit.centroids))
    return merged
