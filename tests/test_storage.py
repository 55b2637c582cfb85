"""Files on a local disk: whole or not at all, and one clear line where that is refused."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from supmer import storage
from supmer.storage import StorageError


@contextlib.contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    """Let this process write no file beyond a size: like a full disk, also for those who may not mount one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_refused_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "state"
    storage.write_bytes(path, b"old")
    with (
        file_size_limit(1000),
        pytest.raises(StorageError, match=rf"^{path}: cannot be written: the file would be larger than"),
    ):
        storage.write_bytes(path, bytes(2000))
    assert storage.read_bytes(path) == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_reasons_are_told_in_words(number: int, message: str) -> None:
    with pytest.raises(StorageError, match=f"^a: cannot be written: .*{message}$"), storage.explained("a", "written"):
        raise OSError(number, os.strerror(number))


def test_a_file_in_the_way_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    with pytest.raises(StorageError, match="a file is in the way"):
        storage.write_bytes(tmp_path / "a" / "b", b"")


def test_a_missing_file_stays_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(tmp_path / "nowhere")
