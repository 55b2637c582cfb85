"""Where the labelled rows of a task come from: its own folder, documentation, `fewshot.data_dir`, the hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

from supmer import storage
from supmer.corpus.hub import answering_hub
from supmer.corpus.package_docs import TASK_LABELS, task_rows
from supmer.errors import UserError, one_line
from supmer.fewshot.task import Columns, FolderSource, HubSource, Task
from supmer.readers.files import list_files
from supmer.readers.rows import READ_ERRORS, ReadOptions, column_names, read_rows
from supmer.readers.skipped import Skipped

SplitName = Literal["train", "test"]


Record = tuple[str, dict[Any, Any]]
"""One row as its source has it: where it is, and its columns."""


class Source(NamedTuple):
    """The records of a split, how they become rows, where they are, and what could not be read (once all are read)."""

    columns: Columns
    origin: str
    records: Iterator[Record]
    skipped: Skipped


def find_source(task: Task, split: SplitName, data_dir: str | None) -> Source:
    """Return the first source that a task has: its own folder, the package documentation, `data_dir`, the hub.

    Raises:
        UserError: there is none, or (while records are read) it cannot be read.
    """
    folder, skipped = task.folder.path, Skipped()
    if folder is None and task.package_docs:
        if task.label_words != list(TASK_LABELS.values()):
            raise UserError(f"task {task.name}: with package_docs, label_words must be {list(TASK_LABELS.values())}")
        origin = f"package docs {split}"
        return Source(Columns(), origin, _numbered(origin, task_rows(split)), skipped)
    if folder is None and data_dir is not None:
        folder = storage.join(data_dir, task.name)
    if folder is not None:
        path = storage.join(folder, getattr(task.folder, split))
        return Source(task.folder, path, _read_files(task, task.folder, path, skipped), skipped)
    if task.hub is not None:
        origin = f"hub {task.hub.path} {getattr(task.hub, split)}"
        return Source(task.hub, origin, _numbered(origin, _read_hub(task, task.hub, split)), skipped)
    raise UserError(f"task {task.name}: has no data; give folder.path or hub in its file, or set fewshot.data_dir")


def _numbered(origin: str, rows: Iterable[Any]) -> Iterator[Record]:
    for number, row in enumerate(rows):
        yield f"{origin} row {number}", row


def _read_files(task: Task, source: FolderSource, path: str, skipped: Skipped) -> Iterator[Record]:
    """Yield the records of a file, or of all files of a folder or glob; other names are read as JSON or CSV."""
    if not storage.exists(path) and not any(letter in path for letter in "*?["):
        raise UserError(f"task {task.name}: no file {path}")
    files = list_files([path], "auto", f"task {task.name}").files or list_files([path], "text", f"task {task.name}").files
    columns = [*(source.columns.get(field, field) for field in task.fields), source.label]
    options = ReadOptions(source.encoding, source.delimiter, source.quoting)
    for file in files:
        where = path if len(files) == 1 else file.path
        try:
            there = column_names(file, options, columns) or []
            for column in columns if there else ():
                if there.count(column) != 1:
                    found = f"{there.count(column)} columns" if column in there else "no column"
                    raise UserError(f"task {task.name}: {where}: {found} {column!r}; it has {', '.join(there)}")
            for _, line, values in read_rows(file, options, columns, None, skipped):
                yield f"{where} row {line}", values
        except READ_ERRORS as error:
            raise UserError(f"task {task.name}: {where}: cannot be read to its end: {one_line(error)}") from error


def _read_hub(task: Task, source: HubSource, split: SplitName) -> Iterator[dict[str, Any]]:
    """Yield records; where the data set has names of classes, these are the labels."""
    import datasets  # slow to import, and needed for hub tasks only

    name = getattr(source, split)
    try:
        with answering_hub(source.path):
            data = datasets.load_dataset(source.path, source.config, revision=source.revision, split=name)
    except Exception as error:  # the library raises many kinds; all mean that the data cannot be had
        raise UserError(
            f"task {task.name}: cannot load {source.path} {name} from the hub ({one_line(error)[:150]}); "
            "set fewshot.data_dir to a folder with its train.jsonl and test.jsonl"
        ) from error
    names = getattr(data.features.get(source.label), "names", None)
    if names is None:
        yield from data
        return
    if source.classes is None or sorted(source.classes) != sorted(map(str, names)):
        raise UserError(f"task {task.name}: hub.classes={source.classes}: must be the data set's names {names}")
    for record in data:
        label = record[source.label]
        yield {**record, source.label: names[label] if label is not None and 0 <= label < len(names) else label}
