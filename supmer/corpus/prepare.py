"""From raw text to a task store (section 1): text, embeddings, clusters; `supmer.corpus.levels` says where each is kept."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import numpy as np
from safetensors.numpy import save as save_safetensors

from supmer import storage
from supmer.backbone.load import check_backbone, load_tokenizer
from supmer.config import Config
from supmer.corpus.checks import check_hosts, check_known, check_size, report_damage
from supmer.corpus.clustering import Merged, merge_small, min_cluster_size, silhouette
from supmer.corpus.cutting import KEY_RANGE
from supmer.corpus.embed import embed, sample_of
from supmer.corpus.embedding import check_embedding_model
from supmer.corpus.fingerprint import Places, describe_inputs, fingerprint, text_inputs
from supmer.corpus.grouping import (
    backbone_centroids,
    fit_clusters,
    plan_files,
    read_sample,
    sort_by_cluster,
    write_files,
)
from supmer.corpus.inspection import log_counts
from supmer.corpus.levels import EMBEDDINGS, TEXT, CutText, complete, mark_used, read_text, units_path
from supmer.corpus.manifest import (
    CENTROIDS,
    MANIFEST,
    PICTURE,
    SCHEMA_VERSION,
    SPLITS,
    Manifest,
    read_manifest,
    write_manifest,
)
from supmer.corpus.steps import is_small
from supmer.corpus.summaries import draw_clusters, nearest_units, typical_words, word_scores
from supmer.corpus.tables import read_table
from supmer.corpus.text import make_text
from supmer.corpus.topics import choose_topic_words
from supmer.errors import UserError
from supmer.runtime import connect_ray

logger = logging.getLogger(__name__)

FEW_DOCUMENTS = 50
"""Below this expected number of documents in a split, the split is drawn exactly instead of document by document."""


def prepare(config: Config, strict: bool = False) -> str:
    """Return the path of the task store for this configuration, preparing it if there is no complete one.

    A small corpus is prepared in this process; for any other, joins or starts Ray. Text and embeddings that another store
    was made from are used again. An interrupted preparation goes on where it stopped. A corpus that is damaged in more
    than MAX_SKIPPED of its rows gives a warning at the end.

    Raises:
        UserError: the corpus or the backbone cannot be used, the corpus is too small, or damaged and `strict`.
    """
    inputs = describe_inputs(config)
    store = Places.of(config.corpus, inputs).store
    if storage.exists(storage.join(store, MANIFEST)):
        logger.info("store %s re-used", store)
        mark_used(store)
        check_known(config, read_manifest(store).skipped)
    else:
        text, places, here = embed_corpus(config, inputs, strict)
        complete(store, MANIFEST, "store", lambda: _write_store(config, inputs, text, places, here))
    report_damage(read_manifest(store).skipped, strict)
    return store


def embed_corpus(config: Config, inputs: dict[str, Any] | None = None, strict: bool = False) -> tuple[CutText, Places, bool]:
    """Cut and embed the whole corpus, as far as that is not done yet.

    Returns the text, where everything lies, and whether the corpus is small: what comes next is then done here, too. For
    any other, joins or starts Ray. `inputs` are those of `describe_inputs`, looked up if they are not given.

    Raises:
        UserError: the corpus or the backbone cannot be used, or the corpus is too small for the settings.
    """
    inputs = inputs or describe_inputs(config)
    places = Places.of(config.corpus, inputs)
    # A mistake in the settings must not first show up in a worker.
    tokenizer = check_backbone(config.backbone)
    check_embedding_model(config.clusters)
    storage.check_writable("corpus.store_dir", config.corpus.store_dir)
    here = is_small(config.corpus, inputs["sources"])
    if not here:
        connect_ray()
    complete(places.text, TEXT, "text", lambda: make_text(config, text_inputs(inputs), tokenizer, places.text, here))
    text = read_text(places.text)
    log_counts(text.counts)
    if strict:
        report_damage(text.counts, strict)
    check_known(config, text.counts)
    check_size(config, text.counts)
    complete(places.embeddings, EMBEDDINGS, "embeddings", lambda: embed(config, text, places.embeddings, here))
    return text, places, here


def _write_store(config: Config, inputs: dict[str, Any], text: CutText, places: Places, here: bool) -> None:
    """Cluster the units and write the store, its manifest last."""
    shards = sample_of(text, config)
    sample = read_sample(places.embeddings, shards, here)
    fit = fit_clusters(sample, config.clusters, config.corpus.seed, here)
    units_by_file = sort_by_cluster(text, places.embeddings, fit, places.store, _split_key(config, text), here)
    sizes = sum(units_by_file, Counter[tuple[int, int]]())
    in_train = np.array([sizes[SPLITS.index("train"), cluster] for cluster in range(len(fit.centroids))])
    merged = merge_small(fit.centroids, in_train, min_cluster_size(config.tasks))
    num_merged = len(fit.centroids) - len(merged.members)
    if num_merged:
        logger.info("%d of %d clusters were too small, and were merged with others", num_merged, len(fit.centroids))
    if places.sample is not None:
        folder = places.sample
        what = "the backbone's embeddings of the sample"
        complete(folder, EMBEDDINGS, what, lambda: embed(config, text, folder, here, shards))
        merged = Merged(backbone_centroids(sample, fit, merged, shards, folder), merged.members)
    files, summaries = write_files(plan_files(sizes, merged), len(units_by_file), places.store, here)
    centroids = save_safetensors({"centroids": merged.centroids})
    storage.write_bytes(storage.join(places.store, CENTROIDS), centroids)
    scores = word_scores(summaries, len(merged.members))
    topics = choose_topic_words(scores, load_tokenizer(config.backbone)) if "ctw" in config.tasks.kinds else []
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        fingerprint=fingerprint(inputs),
        inputs=inputs,
        embeddings="/".join(places.embeddings.partition("?")[0].split("/")[-2:]),
        counts=dict(sorted(text.counts.items()))
        | {
            "clusters_merged_away": num_merged,
            "clusters_without_topic_words": sum(not words for words in topics),
        },
        places=text.counts.places,
        read_as=text.counts.read_as,
        d_model=merged.centroids.shape[1],
        min_cluster_size=min_cluster_size(config.tasks),
        inertia=fit.inertia,
        merged_from=merged.members,
        silhouette=silhouette(sample, fit, config.corpus.seed),
        nearest=nearest_units(summaries, len(merged.members)),
        typical_words=typical_words(scores),
        topic_words=topics,
        files=files,
    )
    check_hosts(config, manifest)
    storage.write_bytes(storage.join(places.store, PICTURE), draw_clusters(manifest, merged.centroids))
    write_manifest(places.store, manifest)


def _split_key(config: Config, text: CutText) -> int:
    """Return the document key below which documents belong to validation; each split gets at least one document."""
    fraction = config.corpus.validation_fraction
    if text.counts["documents"] * min(fraction, 1 - fraction) >= FEW_DOCUMENTS:
        return int(fraction * KEY_RANGE)
    found = [read_table(units_path(text.uri, shard.name), columns=["document_key"]) for shard in text.shards]
    keys = np.unique(np.concatenate([table["document_key"].to_numpy() for table in found]))
    if len(keys) < len(SPLITS):
        raise UserError(f"corpus.id_column={config.corpus.id_column}: must identify at least 2 documents, all have the same")
    return int(keys[min(max(round(len(keys) * fraction), 1), len(keys) - 1)])
