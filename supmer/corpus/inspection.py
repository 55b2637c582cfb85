"""What a store holds, as text for the reader of a terminal."""

from __future__ import annotations

import json
import logging
from statistics import median

from supmer.corpus.checks import unknown_by_source
from supmer.corpus.cutting import TOKENS_READ, TOKENS_UNKNOWN
from supmer.corpus.manifest import SPLITS, Manifest
from supmer.readers.skipped import SKIP_REASONS, Skipped

logger = logging.getLogger(__name__)

SHOWN_CHARACTERS = 100

LEFT_OUT = SKIP_REASONS | {
    "documents_too_short": "documents of fewer sentences than corpus.min_document_units allows",
    "units_of_short_documents": "sentences of such documents",
    "units_too_short": "sentences of fewer tokens than corpus.min_unit_tokens allows",
    "units_overlong": "pieces of more than 20,000 characters, which are no sentences",
    "units_with_special_tokens": "sentences that spell a special token of the tokenizer",
    "units_of_excluded_tasks": "sentences that share words with corpus.exclude_tasks",
    "duplicate_documents": "documents that occurred before",
    "duplicate_units": "sentences that occurred before",
}
"""What the counts of a text mean, in words."""


def summary(manifest: Manifest) -> str:
    """Return schema, origin, counts and clusters of a store, one thing a line; nothing but the manifest is read."""
    apart = "none" if manifest.silhouette is None else f"{manifest.silhouette:.3f}"
    lines = [
        f"schema version {manifest.schema_version}, fingerprint {manifest.fingerprint}",
        f"{manifest.num_clusters} clusters of width {manifest.d_model}, inertia {manifest.inertia:.6g}, "
        f"silhouette {apart}, hosts of episodes have at least {manifest.min_cluster_size} units",
        *(f"{name}: {json.dumps(value, sort_keys=True)}" for name, value in sorted(manifest.inputs.items())),
        *(
            f"{name}: {count}" + (f" ({', '.join(manifest.places[name])})" if name in manifest.places else "")
            for name, count in sorted(manifest.counts.items())
            if not name.startswith((TOKENS_READ, TOKENS_UNKNOWN))
        ),
        *manifest.skipped.describe_files(),
        *(
            f"{source}: {unknown / max(read, 1):.2%} of {read:,} tokens are unknown to the tokenizer"
            + (f" ({', '.join(places)})" if (places := manifest.places.get(TOKENS_UNKNOWN + source)) else "")
            for source, (unknown, read) in unknown_by_source(manifest.skipped).items()
        ),
    ]
    return "\n".join([*lines, *_cluster_lines(manifest)])


def log_clusters(manifest: Manifest) -> None:
    """Log what each cluster is about, and how large the clusters are."""
    for line in _cluster_lines(manifest):
        logger.info("%s", line)
    for split in SPLITS:
        sizes = [manifest.size(split, cluster) for cluster in range(manifest.num_clusters)]
        bounds = min(sizes), int(median(sizes)), max(sizes)
        logger.info("%s: %d units; clusters hold min %d, median %d, max %d", split, sum(sizes), *bounds)


def log_counts(counts: Skipped) -> None:
    """Log how much text was kept, and what was left out for which reason, with the first files and lines."""
    logger.info(
        "kept %s sentences of %s documents (read: %s documents); %s sentences were shortened to corpus.max_unit_tokens",
        *(f"{counts[name]:,}" for name in ("units", "documents", "documents_read", "units_shortened")),
    )
    for line in counts.describe_files():
        logger.info("%s", line)
    for reason, meaning in LEFT_OUT.items():
        if counts[reason]:
            # What could not be read may be a mistake; the other reasons are as the settings ask for.
            level = logging.WARNING if reason in SKIP_REASONS else logging.INFO
            where = f" ({', '.join(counts.places[reason])})" if reason in counts.places else ""
            logger.log(level, "left out: %s %s%s", f"{counts[reason]:,}", meaning, where)
    if counts["replaced_letters"]:
        logger.warning("%s rows hold half a letter (of an emoji), which was replaced", f"{counts['replaced_letters']:,}")


def _cluster_lines(manifest: Manifest) -> list[str]:
    """Return a line for each cluster: its size, the words typical of it, and the units nearest to its centroid."""
    lines = []
    for cluster, texts in enumerate(manifest.nearest):
        sizes = " + ".join(f"{manifest.size(split, cluster)} {split}" for split in SPLITS)
        merged = len(manifest.merged_from[cluster])
        origin = f", merged from {merged}" if merged > 1 else ""
        words = ", ".join(manifest.typical_words[cluster])
        shown = " | ".join(text[:SHOWN_CHARACTERS] for text in texts)
        lines.append(f"cluster {cluster} ({sizes}{origin}): [{words}] {shown}")
    return lines
