"""Files of the cases that `benchmarks/cases.py` makes itself: what real users have, and what public reports describe."""

from __future__ import annotations

import gzip
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

LINES = [{"text": f"Sentence {number} of the case.", "label": number % 2} for number in range(6)]
JSONL = "".join(json.dumps(line) + "\n" for line in LINES)


def parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def arrow_with_a_bad_value() -> bytes:
    import pyarrow as pa
    import pyarrow.ipc as ipc

    values = pa.array([b"caf\xe9", *(f"Row {number}.".encode() for number in range(1, 5000))])
    table = pa.table({"text": pa.Array.from_buffers(pa.string(), len(values), values.buffers())})
    buffer = io.BytesIO()
    with ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


def table_with_two_columns() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.table([["real"], ["other"]], names=["text", "text"]), buffer)
    return buffer.getvalue()


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.jsonl", content)
    return buffer.getvalue()


def parquet_with_a_map() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    kind = pa.map_(pa.string(), pa.string())
    pq.write_table(pa.table({"text": pa.array([[("en", "One.")]], kind), "id": ["x"]}), buffer)
    return buffer.getvalue()


MADE: dict[str, tuple[str | bytes, Callable[[], bytes]]] = {
    "pq_two_columns": ("a.parquet", table_with_two_columns),
    "arrow_one_bad_value": ("a.arrow", arrow_with_a_bad_value),
    "utf32_mark": ("a.txt", lambda: "First line.\nSecond line.\n".encode("utf-32")),
    "name_not_utf8": (b"caf\xe9.txt", lambda: b"A text.\n"),
    "tab_separated_csv": ("a.csv", lambda: b"text\tlabel\nOne, two\t1\n"),
    "csv_extra_fields": ("a.csv", lambda: b"text,label\nOne, two, three,1\nFour,0\n"),
    "csv_quote_never_closed": ("a.csv", lambda: b'text,label\n"One,1\n' + b"Two,0\n" * 20),
    "csv_excel_sep": ("a.csv", lambda: b"sep=;\ntext;label\nOne;1\nTwo;0\n"),
    "csv_utf16_excel": ("a.csv", lambda: "text\tlabel\r\nOne\t1\r\nTwo\t0\r\n".encode("utf-16")),
    "data_in_an_object": ("a.json", lambda: json.dumps({"version": "1.1", "data": LINES}).encode()),
    "objects_over_lines": ("a.json", lambda: "".join(json.dumps(line, indent=2) + "\n" for line in LINES).encode()),
    "bz2_named_gz": ("a.jsonl.gz", lambda: __import__("bz2").compress(JSONL.encode())),
    "xz": ("a.jsonl.xz", lambda: __import__("lzma").compress(JSONL.encode())),
    "json_key_twice": ("a.jsonl", lambda: b'{"text": "first", "text": "second"}\n' + JSONL.encode()),
    "old_line_ends": ("a.csv", lambda: b"text,label\rOne,1\rTwo,0\r"),
    "pq_dotted_name": ("a.parquet", lambda: parquet([{"text": "One."}])),
    "jsonl_bom": ("a.jsonl", lambda: b"\xef\xbb\xbf" + JSONL.encode()),
    # From public reports; each says what failed there.
    "ray_17296_json_by_columns": (
        "a.json.gz",
        lambda: gzip.compress(b'{"text":{"0":"One","1":"Two"},"label":{"0":1,"1":0}}'),
    ),
    "pandas_to_json_split": ("a.json", lambda: b'{"columns":["text","label"],"index":[0,1],"data":[["One",1],["Two",0]]}'),
    "turicreate_1692_quote_after_blank": ("a.csv", lambda: b'label, text\n"1", "One, two"\n"0", "Three"\n"0", "open\n'),
    "cudf_10490_two_quotes_in_tsv": ("a.tsv", lambda: b'text\tlabel\nK ""\t1\n5"\t0\n'),
    "pandas_22661_tsv_without_header": ("a.tsv", lambda: b'3\tabc\t5.6\n4\t"abc"\t4.3\n5\t"error\t3.3\n'),
    "cudf_3335_compressed_nothing": ("a.csv.gz", lambda: gzip.compress(b"")),
    "ray_47198_empty_json": ("a.json", lambda: b""),
    "flashrag_132_types_that_change": (
        "a.jsonl",
        lambda: (
            b'{"text": "One", "meta": {"title": "a"}}\n{"text": "Two", "meta": {"title": 7}}\n{"text": "C", "meta": 1}\n'
        ),
    ),
    "daf_176_bars_and_blanks_in_header": ("a.csv", lambda: b" text | label \nOne, two|1\n"),
    "pandas_14124_delimiter_at_the_end": ("a.csv", lambda: b"text,label\nOne,1,\nTwo,0,\n"),
    "pandas_4793_mark_and_quoted_header": ("a.csv", lambda: b'\xef\xbb\xbf"text","label"\n"One","1"\n"Two","0"\n'),
    "datasets_5827_types_that_change_in_an_array": (
        "a.json",
        lambda: b'[{"text": "One", "id": 1},\n{"text": "Two", "id": "Nan"},\n{"text": 3, "id": 3}]',
    ),
    "datasets_622_returns_within_lines": ("a.txt", lambda: b"One line\rstill the same\nTwo\r\nThree\n"),
    "datasets_1821_a_stray_comma_in_one_row": ("a.csv", lambda: b"text,label\nOne,1\nTwo, and,0\nThree,1\n"),
    "ray_55356_gz_json_lines_not_ascii": (
        "a.jsonl.gz",
        lambda: gzip.compress("".join(f'{{"text": "caf\u00e9 {number}"}}\n' for number in range(9999)).encode()),
    ),
    "ray_47387_zipped_json_lines": ("a.jsonl.zip", lambda: zipped(JSONL.encode())),
    "arrow_32723_map_column": ("a.parquet", parquet_with_a_map),
    "gz_cut": ("a.jsonl.gz", lambda: gzip.compress(JSONL.encode() * 500)[:-9]),
}

TASK = "name: t\npatterns: ['{text} It was <X> .']\nlabel_words: [bad, good]\n"

TASKS: dict[str, tuple[str, dict[str, str]]] = {
    "classes_leading_zero": (
        TASK + "folder: {path: d, classes: [01, 02]}\n",
        dict.fromkeys(("train", "test"), '{"text": "One", "label": "01"}\n{"text": "Two", "label": "02"}\n'),
    ),
    "classes_version": (
        TASK + "folder: {path: d, classes: [1.10, 2026-01-31]}\n",
        dict.fromkeys(("train", "test"), '{"text": "One", "label": "1.10"}\n{"text": "Two", "label": "2026-01-31"}\n'),
    ),
    "hub_nameless_label": (TASK + "hub: {path: HERE/d, label: label, classes: [neg, pos]}\n", {}),
}
"""Task files, and the rows of their splits."""


def write_nameless(folder: Path) -> None:
    """Write a data set whose label column has class names, and rows of no class."""
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    rows = datasets.Dataset.from_dict({"text": ["One", "Two", "Three"], "label": [0, 1, -1]}, features=features)
    for split in ("train", "test"):
        rows.to_parquet(folder / f"{split}-00000-of-00001.parquet")


def make(folder: Path) -> None:
    """Write all files: ``corpora/NAME/`` and ``tasks/NAME/task.yaml`` below a folder."""
    for name, (file, content) in MADE.items():
        path = folder / "corpora" / name
        path.mkdir(parents=True)
        with open(os.path.join(os.fsencode(path), os.fsencode(file)), "wb") as stream:
            stream.write(content())
    for name, (definition, splits) in TASKS.items():
        path = folder / "tasks" / name
        (path / "d").mkdir(parents=True)
        (path / "task.yaml").write_text(definition.replace("HERE", str(path)))
        for split, rows in splits.items():
            (path / "d" / f"{split}.jsonl").write_text(rows)
        if not splits:
            write_nameless(path / "d")
