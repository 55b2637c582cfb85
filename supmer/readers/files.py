"""Files of rows or text: paths, folders and globs on any file system, and what each file holds."""

from __future__ import annotations

import logging
import os
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

from fsspec.utils import glob_translate
from pyarrow import fs

from supmer import storage
from supmer.errors import UserError, one_line, setting_error

logger = logging.getLogger(__name__)

FileFormat = Literal["text", "jsonl", "csv", "parquet", "arrow"]
"""`jsonl`: also arrays of objects; `arrow`: also the stream files in which the `datasets` library saves a data set."""

SUFFIXES: dict[str, FileFormat] = {
    **dict.fromkeys((".txt", ".text", ".md", ".rst"), "text"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "jsonl"),
    **dict.fromkeys((".csv", ".tsv", ".tab"), "csv"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys((".arrow", ".feather"), "arrow"),
}
SAVED_DATASET_FILES = ("dataset_info.json", "state.json", "dataset_dict.json")
"""What `datasets` saves beside the data: no text."""

COMPRESSIONS = (".gz", ".bz2", ".zst", ".xz", ".lz4", ".zip")
"""Endings that are passed over to find a format. Whether a file is compressed is decided by its first bytes."""


@dataclass(frozen=True)
class InputFile:
    """One input file.

    `source` is the path of the user's list that it was found through (it decides the file system), `path` its path there,
    `name` its path below the folder that all files share, escaped where it is not UTF-8: document ids are made of it, so
    that they do not depend on the machine.
    """

    source: str
    path: str
    name: str
    size: int
    mtime_ns: int
    format: FileFormat


class FoundFiles(NamedTuple):
    """All readable files sorted by path, and the number of files that were passed over because of their names."""

    files: tuple[InputFile, ...]
    num_ignored: int


def list_files(paths: Sequence[str], file_format: str, setting: str) -> FoundFiles:
    """List the readable files of some paths, of which there may be none.

    `file_format` is a FileFormat that all files have, or anything else (`auto`): then names decide.

    Raises:
        UserError: a path does not exist or cannot be listed; the message names `setting`.
    """
    found: dict[str, tuple[str, _Listed, FileFormat]] = {}
    ignored: set[str] = set()
    for entry in paths:
        for listed in _expand(entry, setting):
            stem, suffix = posixpath.splitext(listed.path.lower())
            if suffix in COMPRESSIONS:
                suffix = posixpath.splitext(stem)[1]
            known = cast(FileFormat, file_format) if file_format in SUFFIXES.values() else SUFFIXES.get(suffix)
            if posixpath.basename(listed.path) in SAVED_DATASET_FILES:
                known = None
            if known is None:
                ignored.add(listed.path)
            else:
                found[listed.path] = (entry, listed, known)
    root = posixpath.commonpath([posixpath.dirname(path) for path in found]) if found else ""
    files = [
        InputFile(entry, path, escaped(posixpath.relpath(path, root)), listed.size, listed.mtime_ns, known)
        for path, (entry, listed, known) in sorted(found.items())
    ]
    return FoundFiles(tuple(files), len(ignored))


def escaped(name: str) -> str:
    r"""Return a file's name with bytes that are not UTF-8 written out, ``caf\udce9.txt``: such a name fits in no table."""
    return name.encode("utf-8", "backslashreplace").decode()


class _Listed(NamedTuple):
    path: str
    size: int
    mtime_ns: int


def _expand(entry: str, setting: str) -> list[_Listed]:
    if entry.startswith("s3://"):  # one that does not answer is asked for more than a minute
        logger.info("looking for %s", entry)
    try:
        filesystem, path = storage.resolve(entry)
        if escaped(path) != path:
            return _walk(path) if os.path.isdir(path) else [_stat(path)]
        info = filesystem.get_file_info(path)
        if info.type == fs.FileType.NotFound and (wild := re.search(r"[*?\[]", path)):
            matches = re.compile(glob_translate(path)).match
            return [item for item in _below(filesystem, posixpath.dirname(path[: wild.start()])) if matches(item.path)]
        if info.type == fs.FileType.Directory:
            return _below(filesystem, path)
    except OSError as error:
        raise setting_error(setting, escaped(entry), f"cannot be listed: {storage.reason(error)}") from error
    except storage.StorageError as error:
        raise UserError(f"{setting}={error}") from error
    except Exception as error:  # what clients of other file systems raise has no common kind
        if "://" not in entry:
            raise
        raise setting_error(setting, entry, f"cannot be listed: {one_line(error)[:300]}") from error
    if info.type == fs.FileType.NotFound:
        raise setting_error(setting, entry, storage.what_is_missing(entry))
    return [_Listed(info.path, info.size, info.mtime_ns or 0)]


def _below(filesystem: fs.FileSystem, folder: str) -> list[_Listed]:
    """List the files below a folder, hidden ones left out; a folder that is not there has none."""
    infos = filesystem.get_file_info(fs.FileSelector(folder, recursive=True, allow_not_found=True))
    try:
        listed = [_Listed(info.path, info.size, info.mtime_ns or 0) for info in infos if info.type == fs.FileType.File]
    except UnicodeDecodeError:  # pyarrow cannot say a name that is not UTF-8
        listed = _walk(folder)
    parts = (posixpath.relpath(item.path, folder).split("/") for item in listed)
    return [item for item, names in zip(listed, parts, strict=True) if not any(name[0] in "._" for name in names)]


def _walk(folder: str) -> list[_Listed]:
    return [_stat(os.path.join(path, name)) for path, _, names in os.walk(folder) for name in names]


def _stat(path: str) -> _Listed:
    found = os.stat(path)
    return _Listed(path, found.st_size, found.st_mtime_ns)
