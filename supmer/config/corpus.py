"""Settings of unlabeled text, and of its clusters (section 1)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from supmer.config.languages import LanguageCode
from supmer.config.reading import Delimiter, Encoding, Quoting
from supmer.config.section import Section, setting

MIN_EXCLUDE_WORDS = 8
"""Fewer words in a row are common phrases; shorter texts of tasks are not looked for."""


class CorpusConfig(Section):
    """Unlabeled text and how it is cut into units (section 1)."""

    paths: list[str] = setting([], "units", source=True, description="files, folders or globs; names for format=hub")
    format: Literal["auto", "text", "jsonl", "csv", "parquet", "arrow", "hub", "package_docs"] = setting(
        "auto",
        "units",
        description="`auto`: by file name; `hub`: data sets by name; `package_docs`: docstrings of installed packages",
    )
    hub_subset: str | None = setting(None, "units", description="subset (configuration) of the data sets of format=hub")
    hub_split: str = setting("train", "units", description="split of the data sets of format=hub")
    hub_revision: str | None = setting(None, "units", description="commit, tag or branch of the data sets of format=hub")
    packages: list[str] = setting([], "units", source=True, description="packages read by format=package_docs")
    text_document: Literal["file", "line"] = setting("file", "units", description="what one document is in plain text files")
    text_column: str = setting("text", "units", description="column that holds the text")
    id_column: str | None = setting(
        None, "units", description="column that identifies a document; default: file and row number"
    )
    encoding: Encoding | None = setting(
        None, "units", description="encoding of text, JSON and CSV files without a byte-order mark; default: UTF-8"
    )
    delimiter: Delimiter | None = setting(
        None, "units", description="delimiter of CSV files (a letter, or tab); default: found from the header"
    )
    quoting: Quoting | None = setting(
        None,
        "units",
        description="quotation marks in quoted fields of CSV files: doubled, after a backslash, or `none` (no field is "
        "quoted); default: found from the file",
    )
    shares: list[Annotated[float, Field(gt=0, le=1)]] = setting(
        [], "units", description="share of the documents of each path that is kept, drawn by seed; default: all"
    )
    max_documents: int | None = setting(None, "units", ge=1, description="read at most so many documents")
    unit: Literal["sentence", "paragraph", "line"] = setting(
        "sentence", "units", description="what a document is cut into; paragraphs end at blank lines"
    )
    language: LanguageCode = setting("en", "units", description="language code for sentence splitting: en, pt-BR")
    min_unit_tokens: int = setting(5, "units", ge=1, description="shorter units are left out")
    max_unit_tokens: int = setting(256, "units", ge=8, description="longer units are cut to so many tokens")
    min_document_units: int = setting(5, "units", ge=1, description="documents of fewer units are left out")
    deduplicate: Literal["units", "documents", "none"] = setting(
        "units", "units", description="what is kept only where it occurs first in the whole corpus; `units`: documents too"
    )
    exclude_tasks: list[str] = setting(
        [], "units", source=True, description="JSONL files (or folders of them) of labelled tasks, kept out of the text"
    )
    exclude_words: int = setting(
        13, "units", ge=MIN_EXCLUDE_WORDS, description="a unit that shares so many words in a row is left out"
    )
    max_unknown: float = setting(
        0.2,
        "speed",
        ge=0,
        le=1,
        description="share of unknown tokens, of the corpus or of a task's rows, above which a job ends (warning: 0.01)",
    )
    validation_fraction: float = setting(
        0.1, "clusters", gt=0, lt=1, description="share of documents kept for meta-validation"
    )
    seed: int = setting(
        0, ("units", "clusters"), ge=0, description="seed of the validation split, the order of units and k-means"
    )
    store_dir: str = setting("stores", "speed", description="folder of task stores, one folder per fingerprint")
    embedders: int | None = setting(
        None,
        "speed",
        ge=1,
        description="actors that embed units; default: one per GPU, else per CPU, and none for a small corpus",
    )
    embed_batch_tokens: int = setting(
        16_384, "speed", ge=64, description="padded tokens per embedding batch; a CPU takes at most 1024"
    )


class ClustersConfig(Section):
    """K-means over unit embeddings (section 1)."""

    num_clusters: int = setting(250, "clusters", ge=2, description="K")
    sample_size: int = setting(200_000, "clusters", ge=10, description="units that k-means is fitted on")
    restarts: int = setting(3, "clusters", ge=1, description="k-means restarts, best inertia kept")
    embedding_model: str | None = setting(
        None,
        "embeddings",
        description="mean-pooled sentence encoder (folder or hub name) to cluster by; default: the backbone's encoder",
    )
    embedding_revision: str | None = setting(None, "embeddings", description="revision of embedding_model on the hub")
