"""Files on any file system that pyarrow reaches (local paths, ``s3://``, ``gs://``), written whole or not at all.

Requests to object stores that fail for a moment are sent again by pyarrow's clients. What is left of errors (a full disk, a
missing right, a service that stays away) becomes `StorageError`, except FileNotFoundError, which callers know how to take.
"""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from pyarrow import ArrowInvalid, fs

from supmer import s3
from supmer.errors import UserError, setting_error

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
        StorageError: in place of any OSError but FileNotFoundError.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(f"{os.fspath(uri)}: cannot be {intent}: {reason(error)}") from error


def is_known(error: OSError) -> bool:
    """Tell whether a user can act on this error."""
    return s3.meaning(error) is not None or error.errno in MEANINGS


def reason(error: OSError) -> str:
    """Say in one line why a file system refused."""
    known = s3.meaning(error) or MEANINGS.get(error.errno or 0)
    return known or " ".join(str(error).split())[:300]


def resolve(uri: str | os.PathLike[str]) -> tuple[fs.FileSystem, str]:
    """Return the file system of `uri` and the path inside it; a path without a scheme is local and made absolute."""
    text = os.fspath(uri)
    if "://" not in text:
        return fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(text))
    try:
        with explained(text, "opened"):
            return s3.resolve(text) if text.startswith("s3://") else fs.FileSystem.from_uri(text)
    except ArrowInvalid as error:
        raise StorageError(f"{text}: cannot be opened: {' '.join(str(error).split())[:300]}") from error


def absolute(uri: str | os.PathLike[str]) -> str:
    """Return a local path made absolute, so that workers in other folders find it too; URIs are returned as they are."""
    text = os.fspath(uri)
    return text if "://" in text else resolve(text)[1]


def join(uri: str | os.PathLike[str], *parts: str) -> str:
    """Append path components to a path or URI (before the options that an URI may end in, ``?endpoint_override=...``)."""
    base, question, options = os.fspath(uri).partition("?") if "://" in os.fspath(uri) else (os.fspath(uri), "", "")
    return posixpath.join(base, *parts) + question + options


def exists(uri: str | os.PathLike[str]) -> bool:
    """Tell whether a file or folder is there."""
    return bool(file_type(uri) != fs.FileType.NotFound)


def file_type(uri: str | os.PathLike[str]) -> fs.FileType:
    """Tell whether a path is a file, a folder or not there."""
    filesystem, path = resolve(uri)
    with explained(uri, "looked up"):
        found: fs.FileType = filesystem.get_file_info(path).type
    return found


def what_is_missing(uri: str | os.PathLike[str]) -> str:
    """Say what is not there of a path that is not: the bucket already, or only the file."""
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
    """Return a file's content."""
    filesystem, path = resolve(uri)

    def read() -> bytes:
        with filesystem.open_input_stream(path, compression=None) as stream:
            return bytes(stream.read())

    with explained(uri, "read"):
        return s3.read_again(read)


def delete_folder(uri: str | os.PathLike[str]) -> None:
    """Delete a folder and what is in it; one that is not there is no error."""
    filesystem, path = resolve(uri)
    if file_type(uri) == fs.FileType.Directory:
        with explained(uri, "deleted"):
            filesystem.delete_dir(path)


def check_local(setting: str, uri: str, what: str) -> None:
    """Refuse an object store where `what` needs a folder, on this machine or shared by all.

    Raises:
        UserError: it is a URI.
    """
    if "://" in uri:
        raise setting_error(setting, uri, f"must be a folder, not an object store, for {what}")


def check_writable(setting: str, uri: str) -> None:
    """Write and delete a small file in a folder: a missing bucket or missing rights must not first show up in a worker.

    Raises:
        UserError: it cannot be written to, or not be reached.
    """
    mark = join(uri, f".writable-{uuid4().hex[:8]}")
    try:
        write_bytes(mark, b"")
        filesystem, path = resolve(mark)
        with explained(mark, "deleted"):
            filesystem.delete_file(path)
    except StorageError as error:
        told = reason(error.__cause__) if isinstance(error.__cause__, OSError) else str(error)
        raise StorageError(f"{setting}={uri}: cannot be written to: {told}") from error


def write_bytes(uri: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that readers see the old content or the new, never a part.

    Local files are written beside the target, synced and renamed; object stores publish an object only when its upload
    completes.

    Raises:
        StorageError: the file cannot be written; what was there before still is.
    """
    filesystem, path = resolve(uri)
    with explained(uri, "written"):
        if isinstance(filesystem, fs.LocalFileSystem):
            _replace(path, data)
            return
        with filesystem.open_output_stream(path) as stream:
            stream.write(data)


def _replace(path: str, data: bytes) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{uuid4().hex}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
