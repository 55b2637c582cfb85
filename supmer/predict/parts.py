"""Files of rows in parts: read, with answers added, joined again. All columns and their order are kept."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from supmer.predict.predictor import Predictor
from supmer.predict.rows import UnusableRowError, read_class, read_row
from supmer.readers.files import InputFile
from supmer.readers.rows import ReadOptions, read_rows
from supmer.readers.skipped import Skipped
from supmer.readers.streams import open_file

ANSWERS = ("label", "scores", "error")
"""Columns that are added. A column that has one of these names already is written as `given_<name>`."""

FORMATS = {"jsonl": ".jsonl", "csv": ".csv", "parquet": ".parquet"}


class Answer(NamedTuple):
    """What is added to a row: its label word and the probability of each word, or why it has none."""

    label: str | None
    scores: dict[str, float] | None
    error: str | None


class Summary(NamedTuple):
    """Rows of a part, those without a label by reason, and `confusion[class given][class predicted]`."""

    num_rows: int
    unusable: dict[str, int]
    confusion: list[list[int]]


def read_parts(file: InputFile, part_rows: int, skipped: Skipped) -> Iterator[bytes]:
    """Yield the rows of a file, so many at once: JSON, or Arrow where the file has types. What is no row is counted.

    Raises:
        one of `supmer.readers.rows.READ_ERRORS`: the file breaks off here.
    """
    if file.format == "parquet":
        with open_file(file) as stream:
            for batch in pq.ParquetFile(stream).iter_batches(part_rows):
                yield _parquet(pa.Table.from_batches([batch]))
        return
    rows = (values for _, _, values in read_rows(file, ReadOptions(), (), None, skipped))
    while part := list(islice(rows, part_rows)):
        yield json.dumps(part).encode()


def answer_part(predictor: Predictor, file_format: str, part: bytes, *, is_first: bool) -> tuple[bytes, Summary]:
    """Return a part as it is written, answers added (the first of a CSV file begins with its header), and its summary."""
    table = pq.read_table(io.BytesIO(part)) if file_format == "parquet" else None
    rows = json.loads(part) if table is None else table.to_pylist()
    answers, summary = answer(predictor, rows)
    if table is not None:
        return _parquet(_with_answers(table, answers, predictor.task.label_words)), summary
    named = [{_kept(name): value for name, value in row.items()} for row in rows]
    if file_format == "jsonl":
        lines = []
        for row, found in zip(named, answers, strict=True):
            added = {"error": found.error} if found.error else {"label": found.label, "scores": found.scores}
            lines.append(json.dumps({**row, **added}, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
        return b"".join(lines), summary
    return _csv(named, answers, with_header=is_first), summary


def answer(predictor: Predictor, rows: Sequence[Mapping[str, Any]]) -> tuple[list[Answer], Summary]:
    """Label the rows that can be labelled."""
    words = predictor.task.label_words
    answers: dict[int, Answer] = {}
    usable = {}
    unusable: dict[str, int] = {}
    for index, row in enumerate(rows):
        try:
            usable[index] = read_row(predictor.task, row)
        except UnusableRowError as error:
            answers[index] = Answer(None, None, str(error))
            unusable[str(error)] = unusable.get(str(error), 0) + 1
    found = predictor.label(list(usable.values()))
    confusion = [[0] * len(words) for _ in words]
    for index, label, probabilities in zip(usable, found.labels, found.probabilities.tolist(), strict=True):
        answers[index] = Answer(label, dict(zip(words, probabilities, strict=True)), None)
        given = read_class(predictor.task, rows[index])
        if given is not None:
            confusion[given][words.index(label)] += 1
    return [answers[index] for index in range(len(rows))], Summary(len(rows), unusable, confusion)


def join_parts(file_format: str, parts: Iterable[bytes], target: Any) -> None:
    """Write the parts of a file, in order, as one file to an open stream."""
    if file_format != "parquet":
        for part in parts:
            target.write(part)
        return
    tables = (pq.read_table(io.BytesIO(part)) for part in parts)
    first = next(tables, None)
    if first is None:
        pq.write_table(pa.table({}), target)
        return
    with pq.ParquetWriter(target, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def _kept(name: str) -> str:
    return f"given_{name}" if name in ANSWERS else name


def _csv(rows: list[dict[str, str]], answers: list[Answer], *, with_header: bool) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if with_header:
        writer.writerow([*rows[0], *ANSWERS])
    for row, found in zip(rows, answers, strict=True):
        scores = json.dumps(found.scores, ensure_ascii=False) if found.scores else ""
        writer.writerow([*row.values(), found.label or "", scores, found.error or ""])
    return text.getvalue().encode()


def _with_answers(table: pa.Table, answers: list[Answer], words: list[str]) -> pa.Table:
    table = table.rename_columns([_kept(name) for name in table.column_names])
    types = {"label": pa.string(), "scores": pa.struct([(word, pa.float64()) for word in words]), "error": pa.string()}
    for name, kind in types.items():
        table = table.append_column(name, pa.array([getattr(found, name) for found in answers], type=kind))
    return table


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()
