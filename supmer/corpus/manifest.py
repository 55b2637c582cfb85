"""What a task store says about itself, and what makes a store complete: its manifest is written last."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from typing_extensions import Self

from supmer import storage
from supmer.corpus.topics import TopicWord
from supmer.errors import UserError
from supmer.readers.skipped import ReadAs, Skipped

SCHEMA_VERSION = 3
"""Raised whenever stores of the earlier layout cannot be read any more."""

MANIFEST, CENTROIDS, PICTURE = "manifest.json", "centroids.safetensors", "clusters.svg"

MAX_ROWS_PER_ROW_GROUP = 2**16
"""Far more than are written: a number that a damaged manifest makes up must not decide how much memory an episode takes."""

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")


class StoredFile(BaseModel):
    """One Parquet file: its path in the store and the rows of each of its row groups."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: Split
    cluster: int = Field(ge=0)
    path: str
    row_groups: list[Annotated[int, Field(ge=0, le=MAX_ROWS_PER_ROW_GROUP)]]

    @field_validator("path")
    @classmethod
    def stay_in_the_store(cls, path: str) -> str:
        if path.startswith("/") or ".." in path.split("/") or ":" in path:
            raise ValueError("must be a path below the store")
        return path

    @property
    def num_rows(self) -> int:
        return sum(self.row_groups)


class Manifest(BaseModel):
    """Content of `manifest.json`.

    `embeddings` names the folder, in `corpus.store_dir`, of the embeddings that were clustered. `counts` holds the number of
    documents and units kept and of everything left out, by reason, `places` the first files and lines of each reason, and
    `read_as` how many files are written how; `skipped` has all three.
    `merged_from[c]` lists the k-means clusters that became cluster c: more than one where some were too small for an
    episode (`min_cluster_size` units). `silhouette` is that of the k-means clusters on a part of the sample. For people to
    look at, `nearest[c]` holds the units nearest to the centroid of cluster c, and `typical_words[c]` the words that set it
    apart. `topic_words[c]` are those that label cluster c in `ctw`; stores from before that kind have none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int
    fingerprint: str
    inputs: dict[str, Any]
    embeddings: str
    counts: dict[str, int]
    places: dict[str, list[str]] = {}
    read_as: dict[str, ReadAs] = {}
    d_model: int
    min_cluster_size: int
    inertia: float
    silhouette: float | None
    merged_from: list[list[int]]
    nearest: list[list[str]]
    typical_words: list[list[str]]
    topic_words: list[list[TopicWord]] = []
    files: list[StoredFile]

    @model_validator(mode="after")
    def check_clusters(self) -> Self:
        described = {len(self.nearest), len(self.typical_words)}
        if described != {self.num_clusters} or any(file.cluster >= self.num_clusters for file in self.files):
            raise ValueError("words, units and files must be of the clusters that there are")
        return self

    @property
    def num_clusters(self) -> int:
        return len(self.merged_from)

    @property
    def skipped(self) -> Skipped:
        """Return counts, places and how files are written in one."""
        return Skipped(self.counts, self.places, self.read_as)

    def size(self, split: Split, cluster: int) -> int:
        """Return the number of units of a cluster in a split."""
        return sum(file.num_rows for file in self.files if file.split == split and file.cluster == cluster)


def write_manifest(uri: str, manifest: Manifest) -> None:
    """Write the manifest: from now on the store counts as complete."""
    storage.write_bytes(storage.join(uri, MANIFEST), (manifest.model_dump_json(indent=1) + "\n").encode())


def read_manifest(uri: str) -> Manifest:
    """Read a store's manifest.

    Raises:
        UserError: there is none (no store, or one that is not complete), or it is of another schema version.
    """
    try:
        content = storage.read_bytes(storage.join(uri, MANIFEST))
    except FileNotFoundError as error:
        raise UserError(f"store {uri}: has no {MANIFEST}, so it is no store or not a complete one") from error
    try:
        values = json.loads(content)
        version = values.get("schema_version")
        if version != SCHEMA_VERSION:
            raise UserError(
                f"store {uri}: has schema version {version}, this program reads {SCHEMA_VERSION}; prepare it again"
            )
        return Manifest.model_validate(values)
    except UserError:
        raise
    except (ValueError, AttributeError, RecursionError) as error:  # pydantic's, json's and UTF-8's are ValueErrors
        raise UserError(f"store {uri}: {MANIFEST} is damaged") from error
