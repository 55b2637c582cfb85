"""Whether a corpus suffices for the settings, and how much of the corpus could not be used."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from supmer.backbone.unknown import FEW_UNKNOWN, check_unknown
from supmer.config import Config
from supmer.corpus.clustering import min_num_clusters
from supmer.corpus.cutting import TOKENS_READ, TOKENS_UNKNOWN
from supmer.corpus.manifest import SPLITS, Manifest
from supmer.errors import UserError
from supmer.readers.skipped import AS_ASKED, OF_FILES, SKIP_REASONS, Skipped

logger = logging.getLogger(__name__)

MAX_SKIPPED = 0.01
"""Share of the rows (of plain text: lines) or of the files that may be skipped without a warning."""

SHOWN_SOURCES = 20
"""Sources whose share of unknown tokens is logged, those with the most."""


def check_size(config: Config, counts: Skipped) -> None:
    """Raise UserError if there are too few documents or units; `counts` are those of the whole corpus."""
    corpus, num_clusters = config.corpus, config.clusters.num_clusters
    source = ", ".join(corpus.paths or corpus.packages)
    empty = f"{counts['empty_text']} {SKIP_REASONS['empty_text']}" if counts["empty_text"] else ""
    skipped = ", ".join(part for part in (describe_skipped(counts), empty) if part)
    skipped = f" (skipped {skipped})" if skipped else ""
    if not counts["documents_read"]:
        raise UserError(f"corpus.paths={source}: has no usable document{skipped}")
    if not counts["documents"]:
        raise UserError(
            f"corpus.min_document_units={corpus.min_document_units}: none of the {counts['documents_read']} documents has "
            f"so many units of at least corpus.min_unit_tokens={corpus.min_unit_tokens} tokens{skipped}"
        )
    if counts["units"] < num_clusters:
        raise UserError(
            f"clusters.num_clusters={num_clusters}: must be at most the number of units in the corpus, {counts['units']}"
        )
    if counts["documents"] < len(SPLITS):
        raise UserError(f"corpus.paths={source}: needs at least 2 documents, one for training and one for validation, has 1")


def unknown_by_source(counts: Skipped) -> dict[str, tuple[int, int]]:
    """Return the unknown tokens and all tokens of each source (path, data set, package), the largest share first."""
    sources = [name.removeprefix(TOKENS_READ) for name in counts if name.startswith(TOKENS_READ)]
    found = {source: (counts[TOKENS_UNKNOWN + source], counts[TOKENS_READ + source]) for source in sources}
    return dict(sorted(found.items(), key=lambda item: -item[1][0] / max(item[1][1], 1)))


def check_known(config: Config, counts: Skipped) -> None:
    """Log the share of each source's tokens that the tokenizer does not know; UserError above `corpus.max_unknown`."""
    found = list(unknown_by_source(counts).items())
    for source, (unknown, read) in found[:SHOWN_SOURCES]:
        check_unknown(source, unknown, read, config.corpus.max_unknown, counts.places.get(TOKENS_UNKNOWN + source, ()))
    for _, (unknown, read) in found[SHOWN_SOURCES : SHOWN_SOURCES + 1]:
        level, share = logging.WARNING if unknown > FEW_UNKNOWN * read else logging.INFO, unknown / max(read, 1)
        logger.log(level, "%d other sources: at most %.1f%% are unknown", len(found) - SHOWN_SOURCES, 100 * share)


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


def skipped_share(counts: Mapping[str, int]) -> float:
    """Return the share of the input that could not be used: of its rows and lines, or of its files, whichever is larger."""
    broken = sum(counts.get(reason, 0) for reason in SKIP_REASONS if reason not in (*OF_FILES, *AS_ASKED))
    read = sum(counts.get(name, 0) for name in ("documents_read", "text_lines", *AS_ASKED))
    files = sum(counts.get(reason, 0) for reason in OF_FILES)
    return max(broken / max(broken + read, 1), files / max(counts.get("files_read", 0), files, 1))


def describe_skipped(counts: Skipped) -> str:
    """Return what was skipped for which reason, each with its first places; empty if nothing was."""
    return "; ".join(
        f"{counts[reason]:,} {meaning}" + (f" ({', '.join(counts.places[reason])})" if reason in counts.places else "")
        for reason, meaning in SKIP_REASONS.items()
        if counts[reason] and reason not in AS_ASKED
    )


def report_damage(counts: Skipped, strict: bool) -> None:
    """Log a warning if more than MAX_SKIPPED of the input could not be used.

    Raises:
        UserError: so, and `strict` is set.
    """
    share = skipped_share(counts)
    if share <= MAX_SKIPPED:
        return
    hint = "; corpus.encoding= names another encoding" if counts["invalid_utf8"] else ""
    message = f"{share:.1%} of the input was skipped: {describe_skipped(counts)}{hint}"
    if strict:
        raise UserError(f"--strict: {message}")
    logger.warning("%s", message)
