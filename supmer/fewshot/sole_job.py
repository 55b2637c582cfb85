"""One few-shot job at a time in a run directory: two would overwrite each other's `fewshot.jsonl`."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

from pyarrow import fs

from supmer import storage
from supmer.errors import UserError

LOCK_FILE = "fewshot.lock"


@contextmanager
def sole_job(run_dir: str) -> Iterator[Callable[[], None]]:
    """Hold a run directory; yields a check that it is still held, to be called before each write.

    In a folder the operating system keeps the lock, which ends with the process, however that ends. Object stores have
    none: there a later job takes over, and the earlier one finds that at its next check.

    Raises:
        UserError: another job holds the folder, or (from the check) has taken over.
    """
    uri = storage.join(run_dir, LOCK_FILE)
    filesystem, path = storage.resolve(uri)
    if not isinstance(filesystem, fs.LocalFileSystem):
        yield _take_over(run_dir, uri)
        return
    with storage.explained(uri, "locked"):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        _lock(descriptor, run_dir, uri)
        yield lambda: None
    finally:
        os.close(descriptor)


def _lock(descriptor: int, run_dir: str, uri: str) -> None:
    with storage.explained(uri, "locked"):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{run_dir}: another few-shot job is at work there; wait for its end, or give another run.name and "
                f"fewshot.from_run={run_dir}"
            ) from error


def _take_over(run_dir: str, uri: str) -> Callable[[], None]:
    own = uuid4().hex.encode()
    storage.write_bytes(uri, own)

    def check() -> None:
        if storage.read_bytes(uri) != own:
            raise UserError(f"{run_dir}: another few-shot job has begun there and has taken over; this one ends")

    return check
