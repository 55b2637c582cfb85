"""`fewshot.jsonl` and what lies beside it: kept whole at every moment, so that a killed run loses no finished cell.

Layout in the run directory: ``fewshot.jsonl`` (one line a cell), ``transfer.jsonl`` (one line a cell and target task), and
``fewshot/<cell>/`` with ``details.json`` (test scores, labels, learning curve), ``prompt.safetensors`` or
``<method>.safetensors`` (what was trained), and ``definition.json`` (what that is used with).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from safetensors.numpy import save as save_safetensors

from supmer import storage
from supmer.fewshot.cell_runner import CellResult
from supmer.fewshot.cells import Cell
from supmer.fewshot.definition import DEFINITION_FILE

Record = dict[str, Any]
RESULTS_FILE, TRANSFER_FILE = "fewshot.jsonl", "transfer.jsonl"
IDENTITY = ("task", "method", "seed", "k", "pattern", "training_seed")
TRANSFER_IDENTITY = ("source", "target", "method", "seed", "k", "pattern", "training_seed")


class Results:
    """The few-shot results in a run directory; a cell run again under other settings replaces its line.

    Args:
        run_dir: absolute path or URI.
        check: called before each write; raises where this process must not write (any more).
    """

    def __init__(self, run_dir: str, check: Callable[[], None] = lambda: None) -> None:
        self.run_dir = run_dir
        self._check = check
        self.records = _read(storage.join(run_dir, RESULTS_FILE), IDENTITY)
        self.transfer = _read(storage.join(run_dir, TRANSFER_FILE), TRANSFER_IDENTITY)

    def is_finished(self, cell: Cell, key: str) -> bool:
        """Return whether a cell has been computed under the same settings, data and starting points."""
        return any(cell_of(record) == cell and record.get("key") == key for record in self.records)

    def add(self, result: CellResult, key: str) -> Record:
        """Write a finished cell; the line in `fewshot.jsonl`, which makes it count, last."""
        self._check()
        cell, folder = result.cell, storage.join(self.run_dir, "fewshot", result.cell.name)
        record = {
            **{name: getattr(cell, name) for name in IDENTITY},
            "metric": " and ".join(result.metrics),
            "score": result.score,
            "metrics": result.metrics,
            "num_test": len(result.labels),
            "dev_score": result.dev_score,
            "best_step": result.best_step,
            "num_train": result.num_train,
            "num_dev": result.num_dev,
            "seconds": round(result.seconds, 2),
            "processor_seconds": round(result.processor_seconds, 2),
            "peak_bytes": result.peak_bytes,
            "key": key,
        }
        details = {
            "record": {**record, "pattern_text": result.pattern_text, "label_words": result.label_words},
            "scores": result.scores.tolist(),
            "labels": result.labels,
            "curve": [point._asdict() for point in result.curve],
        }
        files = {"details.json": json.dumps(details).encode()}
        if len(result.prompt) or result.parts:
            files[DEFINITION_FILE] = result.definition.model_dump_json(indent=2).encode()
        if len(result.prompt):
            files["prompt.safetensors"] = save_safetensors({"prompt": result.prompt})
        if result.parts:
            files[f"{cell.method}.safetensors"] = save_safetensors(result.parts)
        for name, data in files.items():
            storage.write_bytes(storage.join(folder, name), data)
        if result.transfer:
            identity = {name: record[name] for name in IDENTITY if name != "task"}
            self.transfer = [line for line in self.transfer if cell_of({**line, "task": line["source"]}) != cell]
            self.transfer += [{"source": cell.task, **identity, **vars(score)} for score in result.transfer]
            storage.write_json_lines(storage.join(self.run_dir, TRANSFER_FILE), self.transfer)
        self.records = [line for line in self.records if cell_of(line) != cell] + [record]
        storage.write_json_lines(storage.join(self.run_dir, RESULTS_FILE), self.records)
        return record

    def of(self, cells: Iterable[Cell]) -> list[Record]:
        """Return the records of cells, in their order."""
        found = {cell_of(record): record for record in self.records}
        return [found[cell] for cell in cells if cell in found]


def read_details(run_dir: str, record: Record) -> dict[str, Any]:
    """Return a cell's `record`, `scores` [N][C], `labels` [N] and `curve`."""
    path = storage.join(run_dir, "fewshot", cell_of(record).name, "details.json")
    details: dict[str, Any] = json.loads(storage.read_bytes(path))
    return details


def cell_of(record: Record) -> Cell:
    """Return the cell that a record is of."""
    return Cell(**{field: record[field] for field in IDENTITY})


def _read(path: str, identity: tuple[str, ...]) -> list[Record]:
    """Read the lines that name their cell; a cell without a whole line is computed again."""

    def with_training_seed(record: Record) -> Record:
        # Lines of earlier versions have one seed, which was that of the data and of the training.
        return {"training_seed": record.get("seed"), **record}

    lines = storage.read_json_lines(path, lambda record: all(name in with_training_seed(record) for name in identity))
    return [with_training_seed(line) for line in lines]
