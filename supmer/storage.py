"""Files on any file system that pyarrow reaches (local paths, ``s3://``, ``gs://``), written whole or not at all.

Requests to object stores that fail for a moment are sent again by pyarrow's clients. What is left of errors (a full disk, a
missing right, a service that stays away) becomes `StorageError`, except FileNotFoundError, which callers know how to take.
"""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from pyarrow import ArrowException, fs

from supmer import reachable, s3
from supmer.errors import UserError, one_line, setting_error
from supmer.locations import absolute as absolute
from supmer.locations import join as join

logger = logging.getLogger(__name__)

MEANINGS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than the system allows",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EEXIST: "a file is in the way",
    errno.EISDIR: "there is a folder of this name",
}
"""Errors of the operating system that a user can act on."""


class StorageError(UserError):
    """A file or folder that cannot be read or written, for a reason that trying again at once would not change."""


@contextmanager
def explained(uri: str | os.PathLike[str], intent: str) -> Iterator[None]:
    """Turn an operating system's or a service's error into one line, such as ``s3://b/x: cannot be written: ...``.

    Raises:
        StorageError: in place of any OSError but FileNotFoundError, and of errors of pyarrow.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(f"{os.fspath(uri)}: cannot be {intent}: {reason(error)}") from error
    except ArrowException as error:  # Azure without credentials
        raise StorageError(f"{os.fspath(uri)}: cannot be {intent}: {one_line(error)[:300]}") from error


def is_known(error: OSError) -> bool:
    """Return whether a user can act on this error."""
    return s3.meaning(error) is not None or error.errno in MEANINGS


def reason(error: OSError) -> str:
    """Return in one line why a file system refused."""
    known = s3.meaning(error) or MEANINGS.get(error.errno or 0)
    return known or " ".join(str(error).split())[:300]


def resolve(uri: str | os.PathLike[str]) -> tuple[fs.FileSystem, str]:
    """Return the file system of `uri` and the path inside it; a path without a scheme is local and made absolute."""
    text = os.fspath(uri)
    if "://" not in text:
        return fs.LocalFileSystem(), absolute(text)
    if silent := reachable.why_silent(text):
        raise StorageError(f"{text}: cannot be opened: {silent}")
    if text.startswith(("gs://", "gcs://")) and "retry_limit_seconds" not in text:  # otherwise a quarter of an hour
        text += f"{'&' if '?' in text else '?'}retry_limit_seconds=60"
    with explained(text, "opened"):
        return s3.resolve(text) if text.startswith("s3://") else fs.FileSystem.from_uri(text)


def exists(uri: str | os.PathLike[str]) -> bool:
    return bool(file_type(uri) != fs.FileType.NotFound)


def file_type(uri: str | os.PathLike[str]) -> fs.FileType:
    """Return whether a path is a file, a folder or not there."""
    filesystem, path = resolve(uri)
    with explained(uri, "looked up"):
        found: fs.FileType = filesystem.get_file_info(path).type
    return found


def what_is_missing(uri: str | os.PathLike[str]) -> str:
    """Return what is missing of a path that is not there: the bucket, or only the file."""
    filesystem, path = resolve(uri)
    if isinstance(filesystem, fs.S3FileSystem):
        with explained(uri, "looked up"):
            if filesystem.get_file_info(path.split("/")[0]).type == fs.FileType.NotFound:
                return "no such bucket"
    return "no such file or folder"


def list_files(uri: str | os.PathLike[str]) -> list[fs.FileInfo]:
    """List the files below a folder (a missing folder has none), sorted by path."""
    filesystem, path = resolve(uri)
    selector = fs.FileSelector(path, recursive=True, allow_not_found=True)
    with explained(uri, "listed"):
        found = [info for info in filesystem.get_file_info(selector) if info.type == fs.FileType.File]
    return sorted(found, key=lambda info: info.path)


def read_bytes(uri: str | os.PathLike[str]) -> bytes:
    filesystem, path = resolve(uri)

    def read() -> bytes:
        with filesystem.open_input_stream(path, compression=None) as stream:
            return bytes(stream.read())

    with explained(uri, "read"):
        return s3.read_again(read)


def read_json_lines(
    uri: str | os.PathLike[str], is_whole: Callable[[dict[str, Any]], bool] = lambda _: True
) -> list[dict[str, Any]]:
    """Return the objects of a file with one JSON object a line; a missing file has none.

    A crash of the machine may leave broken lines. Lines without an object, and those that `is_whole` refuses, are counted,
    logged and left out.
    """
    if not exists(uri):
        return []
    found, damaged = [], []
    for number, line in enumerate(read_bytes(uri).splitlines(), start=1):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict) and is_whole(value):
            found.append(value)
        else:
            damaged.append(number)
    if damaged:
        logger.warning("%s: %d damaged lines are left out, the first is line %d", os.fspath(uri), len(damaged), damaged[0])
    return found


def write_json_lines(uri: str | os.PathLike[str], values: Iterable[dict[str, Any]]) -> None:
    """Write objects as JSON lines, whole or not at all, as `write_bytes` does."""
    write_bytes(uri, "".join(json.dumps(value) + "\n" for value in values).encode())


def delete_folder(uri: str | os.PathLike[str]) -> None:
    """Delete a folder and what is in it; one that is not there is no error."""
    filesystem, path = resolve(uri)
    if file_type(uri) == fs.FileType.Directory:
        with explained(uri, "deleted"):
            filesystem.delete_dir(path)


def check_local(setting: str, uri: str, what: str) -> None:
    """Raise UserError for an object store where `what` needs a folder, on this machine or shared by all."""
    if "://" in uri:
        raise setting_error(setting, uri, f"must be a folder, not an object store, for {what}")


def check_writable(setting: str, uri: str) -> None:
    """Write and delete a file in a folder; StorageError where that fails: a worker must not be the first to find out."""
    mark = join(uri, f".writable-{uuid4().hex[:8]}")
    try:
        write_bytes(mark, b"")
        filesystem, path = resolve(mark)
        with explained(mark, "deleted"):
            filesystem.delete_file(path)
    except StorageError as error:
        why = reason(error.__cause__) if isinstance(error.__cause__, OSError) else str(error)
        raise StorageError(f"{setting}={uri}: cannot be written to: {why}") from error


def write_bytes(uri: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that readers see the old content or the new, never a part.

    Raises:
        StorageError: the file cannot be written; what was there before still is.
    """
    with open_whole(uri) as stream:
        stream.write(data)


@contextmanager
def open_whole(uri: str | os.PathLike[str]) -> Iterator[Any]:
    """Open a file for writing, which appears when the block ends without an error; StorageError if it cannot be written.

    A local file is written beside the target, synced and renamed; an object store publishes an object when its upload
    completes. There a file is deleted that an error ended, and one that was there before is lost with it.
    """
    filesystem, path = resolve(uri)
    with explained(uri, "written"):
        if isinstance(filesystem, fs.LocalFileSystem):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            temporary = f"{path}.{uuid4().hex}.tmp"
            try:
                with open(temporary, "wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                if os.path.exists(temporary):
                    os.unlink(temporary)
                raise
            return
        with filesystem.open_output_stream(path) as stream:
            try:
                yield stream
            except BaseException:
                stream.close()
                filesystem.delete_file(path)
                raise
