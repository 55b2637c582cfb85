"""Settings of unlabeled text, and of its clusters (section 1)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from supmer.config.section import Section

MIN_EXCLUDE_WORDS = 8
"""Fewer words in a row are common phrases; shorter texts of tasks are not looked for."""


class CorpusConfig(Section):
    """Unlabeled text and how it is cut into units (section 1)."""

    paths: list[str] = Field(default_factory=list, description="files, folders or globs; names for format=hub")
    format: Literal["auto", "text", "jsonl", "csv", "parquet", "arrow", "hub", "package_docs"] = Field(
        "auto",
        description="`auto`: by file name; `hub`: data sets by name; `package_docs`: docstrings of installed packages",
    )
    hub_subset: str | None = Field(None, description="subset (configuration) of the data sets of format=hub")
    hub_split: str = Field("train", description="split of the data sets of format=hub")
    hub_revision: str | None = Field(None, description="commit, tag or branch of the data sets of format=hub")
    packages: list[str] = Field(default_factory=list, description="packages read by format=package_docs")
    text_document: Literal["file", "line"] = Field("file", description="what one document is in plain text files")
    text_column: str = Field("text", description="column that holds the text")
    id_column: str | None = Field(None, description="column that identifies a document; default: file and row number")
    shares: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        default_factory=list, description="share of the documents of each path that is kept, drawn by seed; default: all"
    )
    max_documents: int | None = Field(None, ge=1, description="read at most so many documents")
    unit: Literal["sentence", "paragraph", "line"] = Field(
        "sentence", description="what a document is cut into; paragraphs end at blank lines"
    )
    language: str = Field("en", description="language code for sentence splitting")
    min_unit_tokens: int = Field(5, ge=1, description="shorter units are left out")
    max_unit_tokens: int = Field(256, ge=8, description="longer units are cut to so many tokens")
    min_document_units: int = Field(5, ge=1, description="documents of fewer units are left out")
    deduplicate: Literal["units", "documents", "none"] = Field(
        "units", description="what is kept only where it occurs first in the whole corpus; `units`: documents too"
    )
    exclude_tasks: list[str] = Field(
        default_factory=list, description="JSONL files (or folders of them) of labelled tasks, kept out of the text"
    )
    exclude_words: int = Field(13, ge=MIN_EXCLUDE_WORDS, description="a unit that shares so many words in a row is left out")
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="share of documents kept for meta-validation")
    seed: int = Field(0, ge=0, description="seed of the validation split, the order of units and k-means")
    store_dir: str = Field("stores", description="folder of task stores, one folder per fingerprint")
    embedders: int | None = Field(None, ge=1, description="actors that embed units; default: one per GPU, else per CPU")
    embed_batch_tokens: int = Field(16_384, ge=64, description="padded tokens per embedding batch")


class ClustersConfig(Section):
    """K-means over unit embeddings (section 1)."""

    num_clusters: int = Field(250, ge=2, description="K")
    sample_size: int = Field(200_000, ge=10, description="units that k-means is fitted on")
    restarts: int = Field(3, ge=1, description="k-means restarts, best inertia kept")
    embedding_model: str | None = Field(
        None, description="mean-pooled sentence encoder (folder or hub name) to cluster by; default: the backbone's encoder"
    )
    embedding_revision: str | None = Field(None, description="revision of embedding_model on the hub")
