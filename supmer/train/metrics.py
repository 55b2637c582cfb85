"""`metrics.jsonl`: one object a line for each meta-step and for each kind of each validation."""

from __future__ import annotations

import io
import json
import math
import os
from typing import IO, Any

from pyarrow import fs

from supmer import storage
from supmer.meta.record import StepRecord

COLUMNS = (
    *("step", "split", "query_loss", "support_loss", "gate", "similarity", "mixup_b", "kind", "tokens"),
    *("step_seconds", "data_wait_seconds"),
)
"""What a line holds of a `StepRecord`."""


def to_json(record: StepRecord) -> str:
    """Return one line of JSON without the newline; what is not finite becomes null."""
    values = {name: getattr(record, name) for name in COLUMNS}
    lost = {name: None for name, value in values.items() if isinstance(value, float) and not math.isfinite(value)}
    return json.dumps(values | lost)


class MetricsLog:
    """Appends rows to `metrics.jsonl`, from which rows later than `step` are first removed.

    A local file grows line by line. Object stores cannot append: there the file is written anew at each `sync`.
    """

    def __init__(self, uri: str, step: int) -> None:
        self._uri = uri
        storage.write_json_lines(uri, [row for row in read_rows(uri) if row["step"] <= step])
        filesystem, path = storage.resolve(uri)
        self._is_local = isinstance(filesystem, fs.LocalFileSystem)
        self._stream: IO[bytes] = open(path, "ab") if self._is_local else io.BytesIO()  # noqa: SIM115
        if not self._is_local:
            self._stream.write(storage.read_bytes(uri))

    def append(self, record: StepRecord) -> None:
        with storage.explained(self._uri, "written"):
            self._stream.write(to_json(record).encode() + b"\n")
            self._stream.flush()

    def sync(self) -> None:
        """Make what was appended survive a crash of the machine; call before a checkpoint of the same step."""
        if isinstance(self._stream, io.BytesIO):
            storage.write_bytes(self._uri, self._stream.getvalue())
            return
        with storage.explained(self._uri, "written"):
            os.fsync(self._stream.fileno())

    def close(self) -> None:
        self.sync()
        self._stream.close()


def read_rows(uri: str) -> list[dict[str, Any]]:
    """Return all rows of a `metrics.jsonl`; a missing file has none."""
    return storage.read_json_lines(uri, lambda row: isinstance(row.get("step"), int))
