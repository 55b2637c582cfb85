"""Settings of unlabeled text, and of its clusters (section 1)."""

from __future__ import annotations

import codecs
import difflib
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from supmer.config.section import Section, setting

MIN_EXCLUDE_WORDS = 8
"""Fewer words in a row are common phrases; shorter texts of tasks are not looked for."""

LANGUAGES = {
    "amharic": "am", "arabic": "ar", "armenian": "hy", "bengali": "bn", "bulgarian": "bg", "burmese": "my", "catalan": "ca",
    "chinese": "zh", "czech": "cs", "danish": "da", "dutch": "nl", "english": "en", "finnish": "fi", "french": "fr",
    "german": "de", "greek": "el", "gujarati": "gu", "hindi": "hi", "hungarian": "hu", "italian": "it", "japanese": "ja",
    "kannada": "kn", "kazakh": "kk", "korean": "ko", "malayalam": "ml", "marathi": "mr", "norwegian": "no", "persian": "fa",
    "polish": "pl", "portuguese": "pt", "punjabi": "pa", "romanian": "ro", "russian": "ru", "slovak": "sk", "spanish": "es",
    "swedish": "sv", "tamil": "ta", "telugu": "te", "thai": "th", "turkish": "tr", "ukrainian": "uk", "vietnamese": "vi",
}  # fmt: skip
"""English names that are suggested for what is no code."""


def _check_language(value: object) -> str:
    """Accept codes of the IANA registry (BCP 47: `en`, `pt-BR`). Others would be cut by default rules."""
    if value == "en":
        return "en"
    from langcodes import tag_is_valid  # here: 30 ms that jobs on English save

    if isinstance(value, str) and tag_is_valid(value):
        return value
    known = {**LANGUAGES, **{code: code for code in LANGUAGES.values()}}
    near = difflib.get_close_matches(str(value or "").lower(), known, n=3, cutoff=0.4) or ["english", "german", "chinese"]
    codes = dict.fromkeys(known[name] for name in near)
    raise ValueError(f"must be the code of a language, for example {', '.join(codes)}")


def _check_encoding(name: str) -> str:
    try:
        "a\n".encode(name)
        return codecs.lookup(name).name
    except (LookupError, UnicodeError) as error:
        raise ValueError("must be a text encoding that Python knows, such as utf-8, cp1252, latin-1, gbk") from error


def _check_delimiter(delimiter: str) -> str:
    delimiter = {"tab": "\t", "\\t": "\t"}.get(delimiter, delimiter)
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise ValueError('must be one letter that is no quotation mark or line end, or "tab"')
    return delimiter


LanguageCode = Annotated[str, BeforeValidator(_check_language)]
Encoding = Annotated[str, AfterValidator(_check_encoding)]
Delimiter = Annotated[str, AfterValidator(_check_delimiter)]
Quoting = Literal["none", "double", "backslash"]
"""How a quotation mark within a quoted field is written: not at all (no field is quoted), as two, or as ``\\\\"``."""


class CorpusConfig(Section):
    """Unlabeled text and how it is cut into units (section 1)."""

    paths: list[str] = setting([], "units", "files, folders or globs; names for format=hub", source=True)
    format: Literal["auto", "text", "jsonl", "csv", "parquet", "arrow", "hub", "package_docs"] = setting(
        "auto", "units", "`auto`: by file name; `hub`: data sets by name; `package_docs`: docstrings of installed packages"
    )
    hub_subset: str | None = setting(None, "units", "subset (configuration) of the data sets of format=hub")
    hub_split: str = setting("train", "units", "split of the data sets of format=hub")
    hub_revision: str | None = setting(None, "units", "commit, tag or branch of the data sets of format=hub")
    packages: list[str] = setting([], "units", "packages read by format=package_docs", source=True)
    text_document: Literal["file", "line"] = setting("file", "units", "what one document is in plain text files")
    text_column: str = setting("text", "units", "column that holds the text")
    id_column: str | None = setting(None, "units", "column that identifies a document; default: file and row number")
    encoding: Encoding | None = setting(
        None, "units", "of text, JSON and CSV files without a byte-order mark; default: UTF-8"
    )
    delimiter: Delimiter | None = setting(None, "units", "of CSV files, a letter or tab; default: found from the header")
    quoting: Quoting | None = setting(
        None,
        "units",
        "quotation marks in quoted fields of CSV files: doubled, after a backslash, or `none` (no field is "
        "quoted); default: found from the file",
    )
    shares: list[Annotated[float, Field(gt=0, le=1)]] = setting(
        [], "units", "share of the documents of each path that is kept, drawn by seed; default: all"
    )
    max_documents: int | None = setting(None, "units", "read at most so many documents", ge=1)
    unit: Literal["sentence", "paragraph", "line"] = setting(
        "sentence", "units", "a document's parts; paragraphs end at blank lines"
    )
    language: LanguageCode = setting("en", "units", "language code for sentence splitting: en, pt-BR")
    min_unit_tokens: int = setting(5, "units", "shorter units are left out", ge=1)
    max_unit_tokens: int = setting(256, "units", "longer units are cut to so many tokens", ge=8)
    min_document_units: int = setting(5, "units", "documents of fewer units are left out", ge=1)
    deduplicate: Literal["units", "documents", "none"] = setting(
        "units", "units", "what is kept only where it occurs first in the whole corpus; `units`: documents too"
    )
    exclude_tasks: list[str] = setting([], "units", "files or folders of labelled tasks, kept out of the text", source=True)
    exclude_words: int = setting(13, "units", "a unit that shares so many words in a row is left out", ge=MIN_EXCLUDE_WORDS)
    max_unknown: float = setting(
        0.2,
        "speed",
        "share of unknown tokens, of the corpus or of a task's rows, above which a job ends (warning: 0.01)",
        ge=0,
        le=1,
    )
    validation_fraction: float = setting(0.1, "clusters", "share of documents kept for meta-validation", gt=0, lt=1)
    seed: int = setting(0, ("units", "clusters"), "seed of the validation split, the order of units and k-means", ge=0)
    store_dir: str = setting("stores", "speed", "folder of task stores, one folder per fingerprint")
    embedders: int | None = setting(
        None, "speed", "actors that embed units; default: one per GPU, else per CPU, and none for a small corpus", ge=1
    )
    embed_batch_tokens: int = setting(16_384, "speed", "padded tokens per embedding batch; a CPU takes at most 1024", ge=64)


class ClustersConfig(Section):
    """K-means over unit embeddings (section 1)."""

    num_clusters: int = setting(250, "clusters", "K", ge=2)
    sample_size: int = setting(200_000, "clusters", "units that k-means is fitted on", ge=10)
    restarts: int = setting(3, "clusters", "k-means restarts, best inertia kept", ge=1)
    embedding_model: str | None = setting(
        None,
        "embeddings",
        "mean-pooled sentence encoder (folder or hub name) to cluster by; default: the backbone's encoder",
    )
    embedding_revision: str | None = setting(None, "embeddings", "revision of embedding_model on the hub")
