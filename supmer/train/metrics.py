"""`metrics.jsonl`: one object a line for each meta-step and for each kind of each validation."""

from __future__ import annotations

import io
import json
import logging
import math
import os
from dataclasses import asdict, dataclass
from typing import IO, Any, Literal

from pyarrow import fs

from supmer import storage
from supmer.config import TaskKind

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MetricsRow:
    """What one meta-step, or the validation of one kind, showed.

    Attributes:
        step: meta-steps done: a row `train` of step n tells of the n-th, a row `validation` of the state after n.
        query_loss, support_loss, gate, similarity: means over the episodes.
        mixup_b: the curriculum's b at that step (validation itself never mixes).
        kind: task kind of the meta-batch or of the validation episodes.
        tokens: encoder tokens of text that were passed.
        step_seconds: wall time, waiting included; the kinds of one validation share its time evenly.
        data_wait_seconds: part of it spent waiting for episodes.
    """

    step: int
    split: Literal["train", "validation"]
    query_loss: float
    support_loss: float
    gate: float
    similarity: float
    mixup_b: float
    kind: TaskKind
    tokens: int
    step_seconds: float
    data_wait_seconds: float

    def to_json(self) -> str:
        """Return one line of JSON without the newline; what is not finite becomes null."""
        return json.dumps({name: _finite(value) for name, value in asdict(self).items()})


class MetricsLog:
    """Appends rows to `metrics.jsonl`, from which rows later than `step` are first removed.

    A local file grows line by line. Object stores cannot append: there the file is written anew at each `sync`.
    """

    def __init__(self, uri: str, step: int) -> None:
        self._uri = uri
        kept = b"".join(line for line in _whole_lines(uri) if json.loads(line)["step"] <= step)
        storage.write_bytes(uri, kept)
        filesystem, path = storage.resolve(uri)
        self._is_local = isinstance(filesystem, fs.LocalFileSystem)
        self._stream: IO[bytes] = open(path, "ab") if self._is_local else io.BytesIO()  # noqa: SIM115
        if not self._is_local:
            self._stream.write(kept)

    def append(self, row: MetricsRow) -> None:
        with storage.explained(self._uri, "written"):
            self._stream.write(row.to_json().encode() + b"\n")
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
    return [json.loads(line) for line in _whole_lines(uri)]


def _whole_lines(uri: str) -> list[bytes]:
    """Return the lines that hold a row; a crash of the machine may leave others."""
    if not storage.exists(uri):
        return []
    lines = storage.read_bytes(uri).splitlines(keepends=True)
    whole = [line for line in lines if _is_row(line)]
    if len(whole) < len(lines):
        logger.warning("%s: %d unreadable lines left out", uri, len(lines) - len(whole))
    return whole


def _is_row(line: bytes) -> bool:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return line.endswith(b"\n") and isinstance(row, dict) and isinstance(row.get("step"), int)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
