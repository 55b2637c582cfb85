"""`fewshot.jsonl` and what lies beside it: kept whole at every moment, so that a killed run loses no finished cell.

Layout in the run directory: ``fewshot.jsonl`` (one line a cell), ``transfer.jsonl`` (one line a cell and target task), and
``fewshot/<cell>/`` with ``details.json`` (test scores, labels, learning curve) and ``prompt.safetensors``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from typing import Any

from safetensors.numpy import save as save_safetensors

from supmer import storage
from supmer.fewshot.cells import Cell, CellResult

logger = logging.getLogger(__name__)

Record = dict[str, Any]
RESULTS_FILE, TRANSFER_FILE = "fewshot.jsonl", "transfer.jsonl"
IDENTITY = ("task", "method", "seed", "k", "pattern")
TRANSFER_IDENTITY = ("source", "target", "method", "seed", "k", "pattern")


class Results:
    """The few-shot results in a run directory; a cell run again under other settings replaces its line.

    Args:
        run_dir: absolute path or URI.
        check: called before each write; raises where this process must not write (any more).
    """

    def __init__(self, run_dir: str, check: Callable[[], None] = lambda: None) -> None:
        self.run_dir = run_dir
        self._check = check
        self.records = _read_lines(storage.join(run_dir, RESULTS_FILE), IDENTITY)
        self.transfer = _read_lines(storage.join(run_dir, TRANSFER_FILE), TRANSFER_IDENTITY)

    def is_finished(self, cell: Cell, key: str) -> bool:
        """Tell whether a cell has been computed under the same settings, data and starting points."""
        return any(_is_of(record, cell) and record.get("key") == key for record in self.records)

    def add(self, result: CellResult, key: str) -> Record:
        """Write a finished cell; the line in `fewshot.jsonl`, which makes it count, last."""
        self._check()
        record = _record(result, key)
        folder = storage.join(self.run_dir, "fewshot", result.cell.name)
        storage.write_bytes(storage.join(folder, "details.json"), _details(result, record))
        if len(result.prompt):
            storage.write_bytes(storage.join(folder, "prompt.safetensors"), save_safetensors({"prompt": result.prompt}))
        if result.transfer:
            self.transfer = [line for line in self.transfer if not _is_of({**line, "task": line["source"]}, result.cell)]
            self.transfer += _transfer_lines(result)
            _write_lines(storage.join(self.run_dir, TRANSFER_FILE), self.transfer)
        self.records = [line for line in self.records if not _is_of(line, result.cell)] + [record]
        _write_lines(storage.join(self.run_dir, RESULTS_FILE), self.records)
        return record

    def of(self, cells: Iterable[Cell]) -> list[Record]:
        """Return the records of cells, in their order."""
        found = {tuple(record[name] for name in IDENTITY): record for record in self.records}
        wanted = [tuple(getattr(cell, name) for name in IDENTITY) for cell in cells]
        return [found[identity] for identity in wanted if identity in found]


def read_details(run_dir: str, record: Record) -> dict[str, Any]:
    """Return a cell's `record`, `scores` [N][C], `labels` [N] and `curve`."""
    name = Cell(**{field: record[field] for field in IDENTITY}).name
    details: dict[str, Any] = json.loads(storage.read_bytes(storage.join(run_dir, "fewshot", name, "details.json")))
    return details


def _record(result: CellResult, key: str) -> Record:
    cell = result.cell
    return {
        "task": cell.task,
        "method": cell.method,
        "seed": cell.seed,
        "k": cell.k,
        "metric": result.metric,
        "score": result.score,
        "num_test": len(result.labels),
        "pattern": cell.pattern,
        "dev_score": result.dev_score,
        "best_step": result.best_step,
        "num_train": result.num_train,
        "num_dev": result.num_dev,
        "seconds": round(result.seconds, 2),
        "key": key,
    }


def _transfer_lines(result: CellResult) -> list[Record]:
    cell = result.cell
    identity = {"source": cell.task, "method": cell.method, "seed": cell.seed, "k": cell.k, "pattern": cell.pattern}
    return [{**identity, **vars(score)} for score in result.transfer]


def _details(result: CellResult, record: Record) -> bytes:
    details = {
        "record": {**record, "pattern_text": result.pattern_text, "label_words": result.label_words},
        "scores": result.scores.tolist(),
        "labels": result.labels,
        "curve": [point._asdict() for point in result.curve],
    }
    return json.dumps(details).encode()


def _is_of(record: Record, cell: Cell) -> bool:
    return all(record[name] == getattr(cell, name) for name in IDENTITY)


def _read_lines(path: str, identity: tuple[str, ...]) -> list[Record]:
    """Read the lines of an earlier run; one that is damaged is reported and its cell computed again."""
    if not storage.exists(path):
        return []
    records = []
    for number, line in enumerate(storage.read_bytes(path).splitlines(), start=1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if isinstance(record, dict) and all(name in record for name in identity):
            records.append(record)
        else:
            logger.warning("%s line %d is damaged; its cell will be computed again", path, number)
    return records


def _write_lines(path: str, records: Iterable[Record]) -> None:
    storage.write_bytes(path, "".join(json.dumps(record) + "\n" for record in records).encode())
