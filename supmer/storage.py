"""Files on any file system that pyarrow reaches (local paths, ``s3://``, ``gs://``), written whole or not at all."""

from __future__ import annotations

import os
import posixpath
from uuid import uuid4

import pyarrow as pa
from pyarrow import fs

from supmer.errors import UserError, describe_setting


def resolve(uri: str | os.PathLike[str]) -> tuple[fs.FileSystem, str]:
    """Return the file system of `uri` and the path inside it; a path without a scheme is local and made absolute."""
    text = os.fspath(uri)
    if "://" not in text:
        return fs.LocalFileSystem(), os.path.abspath(os.path.expanduser(text))
    filesystem, path = fs.FileSystem.from_uri(text)
    return filesystem, path


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
    filesystem, path = resolve(uri)
    return bool(filesystem.get_file_info(path).type != fs.FileType.NotFound)


def list_files(uri: str | os.PathLike[str]) -> list[fs.FileInfo]:
    """List the files below a folder (a missing folder has none), sorted by path."""
    filesystem, path = resolve(uri)
    selector = fs.FileSelector(path, recursive=True, allow_not_found=True)
    found = [info for info in filesystem.get_file_info(selector) if info.type == fs.FileType.File]
    return sorted(found, key=lambda info: info.path)


def read_bytes(uri: str | os.PathLike[str]) -> bytes:
    """Return a file's content."""
    filesystem, path = resolve(uri)
    with filesystem.open_input_stream(path, compression=None) as stream:
        return bytes(stream.read())


def delete_folder(uri: str | os.PathLike[str]) -> None:
    """Delete a folder and what is in it; one that is not there is no error."""
    filesystem, path = resolve(uri)
    if filesystem.get_file_info(path).type == fs.FileType.Directory:
        filesystem.delete_dir(path)


def check_writable(setting: str, uri: str) -> None:
    """Write and delete a small file in a folder: a missing bucket or missing rights must not first show up in a worker.

    Raises:
        UserError: it cannot be written to, or not be reached.
    """
    try:
        mark = join(uri, f".writable-{uuid4().hex[:8]}")
        write_bytes(mark, b"")
        filesystem, path = resolve(mark)
        filesystem.delete_file(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(describe_setting(setting, uri, f"cannot be written to ({error})")) from error


def write_bytes(uri: str | os.PathLike[str], data: bytes) -> None:
    """Write a file so that readers see the old content or the new, never a part.

    Local files are written beside the target, synced and renamed; object stores publish an object only when its upload
    completes.
    """
    filesystem, path = resolve(uri)
    if not isinstance(filesystem, fs.LocalFileSystem):
        with filesystem.open_output_stream(path) as stream:
            stream.write(data)
        return
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
