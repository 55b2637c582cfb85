"""A corpus that is too small for the settings is refused in one line."""

from __future__ import annotations

import pytest

from supmer.config.load import load_config
from supmer.corpus.checks import check_hosts, check_size
from supmer.corpus.manifest import SCHEMA_VERSION, Manifest, StoredFile
from supmer.errors import UserError
from supmer.readers.skipped import Skipped

CONFIG = load_config(None, ["corpus.paths=[texts]", "clusters.num_clusters=50", "tasks.num_support=8", "tasks.num_query=8"])


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "corpus.paths=texts: has no usable document"),
        ({"missing_text": 7}, r"has no usable document \(skipped 7 rows without a string in the text column\)"),
        ({"documents_read": 4}, "corpus.min_document_units=5: none of the 4 documents"),
        ({"documents_read": 4, "documents": 3, "units": 49}, "clusters.num_clusters=50: must be at most .* units .*, 49"),
        ({"documents_read": 4, "documents": 1, "units": 90}, "needs at least 2 documents"),
    ],
)
def test_too_little_text_is_refused(counts: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_size(CONFIG, Skipped(counts))


def test_enough_text_is_accepted() -> None:
    check_size(CONFIG, Skipped({"documents_read": 4, "documents": 2, "units": 50}))


@pytest.mark.parametrize("validation_rows", [31, 32])
def test_each_split_needs_clusters_that_host_episodes(validation_rows: int) -> None:
    files = [
        StoredFile(split=split, cluster=cluster, path="", row_groups=[rows])
        for split, rows in (("train", 300), ("validation", validation_rows))
        for cluster in range(8)
    ]
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        fingerprint="",
        inputs={},
        embeddings="",
        counts={},
        d_model=4,
        min_cluster_size=32,
        inertia=0.0,
        silhouette=None,
        merged_from=[[i] for i in range(8)],
        nearest=[[]] * 8,
        typical_words=[[]] * 8,
        files=files,
    )
    if validation_rows == 32:
        check_hosts(CONFIG, manifest)
        return
    with pytest.raises(UserError, match="leaves 0 clusters with at least 32 units in the validation split, needs 8"):
        check_hosts(CONFIG, manifest)
