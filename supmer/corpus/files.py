"""The files of a corpus: paths, folders and globs on any file system, and what each file holds."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from fsspec.utils import glob_translate
from pyarrow import fs

from supmer import storage
from supmer.config import CorpusConfig
from supmer.errors import UserError

FileFormat = Literal["text", "jsonl", "csv", "parquet", "arrow"]
"""`arrow`: the stream files in which the `datasets` library saves a data set."""

SUFFIXES: dict[str, FileFormat] = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".rst": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
}
SAVED_DATASET_FILES = ("dataset_info.json", "state.json", "dataset_dict.json")
"""What `datasets` saves beside the data: no text."""

COMPRESSIONS = (".gz", ".bz2", ".zst")
GROUP_BYTES = 32 << 20
"""Small files are read together until they reach this size, so that a folder of many of them needs few tasks."""


@dataclass(frozen=True)
class CorpusFile:
    """One input file.

    `source` is the entry of `corpus.paths` it was found through (it decides the file system), `path` its path there, `name`
    its path below the folder that all files share: document ids are made of it, so that they do not depend on the machine.
    """

    source: str
    path: str
    name: str
    size: int
    mtime_ns: int
    format: FileFormat


@dataclass(frozen=True)
class CorpusFiles:
    """All readable files sorted by path, and the number of files that were passed over because of their names."""

    files: tuple[CorpusFile, ...]
    num_ignored: int


def find_files(config: CorpusConfig) -> CorpusFiles:
    """List the files of `corpus.paths`.

    Raises:
        UserError: no paths given, a path does not exist, or there is no readable file.
    """
    if not config.paths:
        raise UserError("corpus.paths=[]: must name at least one file, folder or glob (or set corpus.format=package_docs)")
    check_shares(config)
    found = list_files(config.paths, config.format, "corpus.paths")
    if not found.files:
        kinds = f"none of the {found.num_ignored} files there is {_known_names()}" if found.num_ignored else "no files there"
        raise UserError(f"corpus.paths={', '.join(config.paths)}: {kinds}")
    return found


def check_shares(config: CorpusConfig) -> None:
    """Raise UserError unless there is a share for each path, or none at all."""
    if config.shares and len(config.shares) != len(config.paths):
        raise UserError(
            f"corpus.shares={config.shares}: must have one number for each of the {len(config.paths)} corpus.paths"
        )


def list_files(paths: Sequence[str], file_format: str, setting: str) -> CorpusFiles:
    """List the readable files of some paths, of which there may be none; `file_format` is as in `corpus.format`.

    Raises:
        UserError: a path does not exist or cannot be listed; the message names `setting`.
    """
    found: dict[str, tuple[str, fs.FileInfo, FileFormat]] = {}
    ignored: set[str] = set()
    for entry in paths:
        for info in _expand(entry, setting):
            known = _format_of(info.path, file_format)
            if known is None:
                ignored.add(info.path)
            else:
                found[info.path] = (entry, info, known)
    root = posixpath.commonpath([posixpath.dirname(path) for path in found]) if found else ""
    files = [
        CorpusFile(entry, path, posixpath.relpath(path, root), info.size, info.mtime_ns or 0, known)
        for path, (entry, info, known) in sorted(found.items())
    ]
    return CorpusFiles(tuple(files), len(ignored))


def group_files(files: Sequence[CorpusFile], max_bytes: int = GROUP_BYTES) -> Iterator[list[CorpusFile]]:
    """Cut the list into runs of at most `max_bytes` (or one file), each of which one task reads."""
    group: list[CorpusFile] = []
    size = 0
    for file in files:
        if group and size + file.size > max_bytes:
            yield group
            group, size = [], 0
        group.append(file)
        size += file.size
    if group:
        yield group


def _expand(entry: str, setting: str) -> list[fs.FileInfo]:
    try:
        filesystem, path = storage.resolve(entry)
        info = filesystem.get_file_info(path)
        if info.type == fs.FileType.NotFound and re.search(r"[*?\[]", path):
            return _expand_glob(filesystem, path)
        if info.type == fs.FileType.Directory:
            selected = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
            return [item for item in selected if item.type == fs.FileType.File and not _hidden(item.path, path)]
    except OSError as error:
        raise UserError(f"{setting}={entry}: cannot be listed: {storage.reason(error)}") from error
    except storage.StorageError as error:
        raise UserError(f"{setting}={error}") from error
    if info.type == fs.FileType.NotFound:
        raise UserError(f"{setting}={entry}: {storage.what_is_missing(entry)}")
    return [info]


def _expand_glob(filesystem: fs.FileSystem, pattern: str) -> list[fs.FileInfo]:
    fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
    base = posixpath.dirname(fixed)
    matches = re.compile(glob_translate(pattern)).match
    selector = fs.FileSelector(base, recursive=True, allow_not_found=True)
    return [
        item
        for item in filesystem.get_file_info(selector)
        if item.type == fs.FileType.File and matches(item.path) and not _hidden(item.path, base)
    ]


def _hidden(path: str, root: str) -> bool:
    return any(part.startswith((".", "_")) for part in posixpath.relpath(path, root).split("/"))


def _format_of(path: str, file_format: str) -> FileFormat | None:
    if posixpath.basename(path) in SAVED_DATASET_FILES:
        return None
    if file_format in SUFFIXES.values():
        return cast(FileFormat, file_format)
    stem, suffix = posixpath.splitext(path.lower())
    if suffix in COMPRESSIONS:
        suffix = posixpath.splitext(stem)[1]
    return SUFFIXES.get(suffix)


def _known_names() -> str:
    kinds = "named as text, JSONL, CSV, Parquet or a saved data set"
    return f"{kinds} ({' '.join(SUFFIXES)}, compressed or not); corpus.format says it otherwise"
