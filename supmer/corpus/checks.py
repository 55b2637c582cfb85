"""Whether a corpus suffices for the settings, told in the settings' own words."""

from __future__ import annotations

from collections import Counter

from supmer.config import Config
from supmer.corpus.clustering import min_num_clusters
from supmer.corpus.manifest import SPLITS, Manifest
from supmer.corpus.records import SKIP_REASONS
from supmer.errors import UserError


def check_size(config: Config, counts: Counter[str]) -> None:
    """Raise UserError if there are too few documents or units; `counts` are those of the whole corpus."""
    corpus, num_clusters = config.corpus, config.clusters.num_clusters
    source = ", ".join(corpus.paths or corpus.packages)
    skipped = ", ".join(f"{counts[reason]} {meaning}" for reason, meaning in SKIP_REASONS.items() if counts[reason])
    if not counts["documents_read"]:
        raise UserError(f"corpus.paths={source}: has no usable document" + (f" (skipped {skipped})" if skipped else ""))
    if not counts["documents"]:
        raise UserError(
            f"corpus.min_document_units={corpus.min_document_units}: none of the {counts['documents_read']} documents has "
            f"so many units of at least corpus.min_unit_tokens={corpus.min_unit_tokens} tokens"
        )
    if counts["units"] < num_clusters:
        raise UserError(
            f"clusters.num_clusters={num_clusters}: must be at most the number of units in the corpus, {counts['units']}"
        )
    if counts["documents"] < len(SPLITS):
        raise UserError(f"corpus.paths={source}: needs at least 2 documents, one for training and one for validation, has 1")


def check_hosts(config: Config, manifest: Manifest) -> None:
    """Raise UserError if one of the splits cannot supply an episode and its augmentation."""
    needed, smallest = min_num_clusters(config.tasks), manifest.min_cluster_size
    for split in SPLITS:
        hosts = sum(manifest.size(split, cluster) >= smallest for cluster in range(manifest.num_clusters))
        if hosts < needed:
            raise UserError(
                f"clusters.num_clusters={config.clusters.num_clusters}: leaves {hosts} clusters with at least {smallest} "
                f"units in the {split} split, needs {needed}; take fewer clusters, more text, smaller tasks.num_support and "
                f"tasks.num_query, or another corpus.validation_fraction"
            )
