"""Files of every kind: encodings, compression, arrays, columns of other types, damaged values."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest

from supmer.config import CorpusConfig
from supmer.corpus.reading import corpus_files, find_files
from supmer.corpus.records import read_records
from supmer.errors import UserError
from supmer.readers.skipped import Skipped


def read(path: Path | str, **settings: object) -> tuple[list[str], Skipped]:
    config = CorpusConfig.model_validate({"paths": [str(path)], **settings})
    skipped = Skipped()
    return [text for file in find_files(config).files for _, text in read_records(file, config, skipped)], skipped


TEXTS = ["Grüße, Welt.", "Сколько стоит?", "写 a book 😀", "plain"]
ROWS = [{"text": text, "label": number} for number, text in enumerate(TEXTS)]
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
CSV = "text,label\n" + "".join(f'"{text}",{number}\n' for number, text in enumerate(TEXTS))
CONTENTS = {"a.txt": "\n".join(TEXTS), "a.jsonl": JSONL, "a.json": json.dumps(ROWS, indent=1), "a.csv": CSV}


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-be", "utf-32-be"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_a_byte_order_mark_decides_the_encoding(tmp_path: Path, name: str, encoding: str, line_end: str) -> None:
    mark = "\ufeff" if encoding.endswith("-be") else ""
    (tmp_path / name).write_bytes((mark + CONTENTS[name].replace("\n", line_end)).encode(encoding))
    assert read(tmp_path, text_document="line") == (TEXTS, {})


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_seen(tmp_path: Path, encoding: str) -> None:
    texts = [f"Line {number} stands here, as café." for number in range(50)]
    (tmp_path / "a.txt").write_bytes("\n".join(texts).encode(encoding))
    assert read(tmp_path, text_document="line") == (texts, {})


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("encoding", ["cp1252", "gbk", "shift_jis", "cp037", "utf-16-le", "koi8-r", "iso2022_jp"])
def test_the_setting_names_any_encoding(tmp_path: Path, name: str, encoding: str) -> None:
    def has(text: str) -> bool:
        return text.encode(encoding, "replace").decode(encoding) == text

    texts = [text for text in [*TEXTS, "日本語の本", "été", "книга"] if has(text)]
    rows = [{"text": text} for text in texts]
    contents = {
        "a.txt": "\n".join(texts),
        "a.jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
        "a.json": json.dumps(rows, ensure_ascii=False),
        "a.csv": "text\n" + "".join(f'"{text}"\n' for text in texts),
    }
    (tmp_path / name).write_bytes(contents[name].encode(encoding))
    assert read(tmp_path, text_document="line", encoding=encoding) == (texts, {})


def test_a_file_in_another_encoding_is_named_with_its_share(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.txt").write_bytes("été\nhiver\n".encode("cp1252") * 10)
    texts, skipped = read(tmp_path, text_document="line")
    assert texts == ["hiver"] * 10 and skipped == {"invalid_utf8": 10}
    assert "a.txt: 10 of 20 lines (50.0%)" in caplog.text and "corpus.encoding=" in caplog.text


@pytest.mark.parametrize("value", ["klingon", "rot13", "base64"])
def test_unknown_encodings_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match="must be a text encoding"):
        CorpusConfig(encoding=value)


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rows/a.jsonl", content)
        archive.writestr("__MACOSX/rows/._a.jsonl", b"")
    return buffer.getvalue()


def streamed(codec: str) -> Callable[[bytes], bytes]:
    def compress(content: bytes) -> bytes:
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, codec) as stream:
            stream.write(content)
        return sink.getvalue().to_pybytes()

    return compress


COMPRESS = {
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zstd": streamed("zstd"),
    "lz4": streamed("lz4"),
    "zip": zipped,
}


@pytest.mark.parametrize("kind", COMPRESS)
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zip"])
def test_compression_is_found_by_the_first_bytes(tmp_path: Path, kind: str, name: str) -> None:
    for content in (JSONL.encode(), gzip.compress(JSONL.encode())):
        (tmp_path / name).write_bytes(COMPRESS[kind](content))
        assert read(tmp_path) == (TEXTS, {})
    (tmp_path / name).write_bytes(JSONL.encode())
    assert read(tmp_path) == (TEXTS, {})


def test_an_archive_of_several_files_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with zipfile.ZipFile(tmp_path / "a.jsonl.zip", "w") as archive:
        archive.writestr("a.jsonl", JSONL)
        archive.writestr("b.jsonl", JSONL)
    assert read(tmp_path) == ([], {"broken_files": 1}) and "zip archive of 2 files" in caplog.text


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: {"version": "1", "data": rows, "notes": [{"x": 1}]}])
@pytest.mark.parametrize("head", ["", "\n\n  "])
def test_arrays_of_objects(tmp_path: Path, indent: int | None, wrap: Callable[[list[object]], object], head: str) -> None:
    (tmp_path / "a.json").write_text(head + json.dumps(wrap([*ROWS]), indent=indent))
    assert read(tmp_path) == (TEXTS, {})


def test_objects_over_several_lines_and_large_arrays(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("".join(json.dumps(row, indent=2) + "\n" for row in ROWS))
    assert read(tmp_path) == (TEXTS, {})
    rows = [{"text": f"{number} " * 300} for number in range(4000)]
    for content in (json.dumps(rows), ",\n".join(map(json.dumps, rows)).join("[]")):
        (tmp_path / "a.json").write_text(content)
        texts, skipped = read(tmp_path)
        assert texts == [row["text"].strip() for row in rows] and not skipped


@pytest.mark.parametrize("orient", ["columns", "split", "table", "records"])
def test_tables_as_pandas_writes_them(tmp_path: Path, orient: str) -> None:
    path = tmp_path / "a.json.gz"
    pa.Table.from_pylist(ROWS).to_pandas().to_json(path, orient=orient, compression="gzip")
    assert read(tmp_path) == (TEXTS, {})


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.txt", "a.jsonl.gz", "a.parquet", "a.arrow"])
@pytest.mark.parametrize(
    "content", [b"", b"\n", b"[]", b"{}", gzip.compress(b"")], ids=["nothing", "line", "array", "object", "gz"]
)
def test_files_with_nothing_in_them_are_no_error(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    if name[-3:] not in ("csv", "tsv") or content in (b"", b"\n"):
        corpus_files(CorpusConfig(paths=[str(tmp_path)]))
    assert read(tmp_path, text_document="line")[0] in ([], [content.decode("latin-1")])


def test_a_broken_object_of_an_array_costs_itself(tmp_path: Path) -> None:
    huge = '{"text": 1' + "0" * 5000 + "}"
    rows = ['{"text": "one"}', '{"text": "no end', '{"text": "two"}', huge, '{"text": "three"}', '{"text": "\xe9"}']
    (tmp_path / "a.json").write_bytes(",\n".join(["[\n" + rows[0], *rows[1:], '{"text": "end"}\n]']).encode("latin-1"))
    texts, skipped = read(tmp_path)
    assert texts == ["one", "two", "three", "end"] and skipped == {"invalid_json": 2, "invalid_utf8": 1}
    assert skipped.places == {"invalid_json": ["a.json:3", "a.json:5"], "invalid_utf8": ["a.json:7"]}


def test_an_array_on_one_line_may_be_longer_than_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supmer.readers.skipped.MAX_ROW_BYTES", 1001)
    monkeypatch.setattr("supmer.readers.streams.PART_BYTES", 101)
    rows = [{"text": f"{text} {number}"} for number in range(20) for text in TEXTS]
    (tmp_path / "a.json").write_text("\n" + json.dumps(rows, ensure_ascii=False) + "\n")
    assert read(tmp_path) == ([row["text"] for row in rows], {})


def test_a_longer_object_on_one_line_is_counted_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("supmer.readers.skipped.MAX_ROW_BYTES", 1001)
    monkeypatch.setattr("supmer.readers.streams.PART_BYTES", 101)
    (tmp_path / "a.json").write_text(json.dumps({"data": ROWS * 50}) + "\n" + JSONL)
    texts, skipped = read(tmp_path)
    assert texts == TEXTS and skipped == {"too_long": 1} and skipped.places == {"too_long": ["a.json:1"]}
    assert ["a.json: line 1 is no array" in message for message in caplog.messages] == [True]


def test_odd_values_of_json_lines(tmp_path: Path) -> None:
    lines = [
        '{"text": "one", "n": 1' + "0" * 5000 + "}",
        '{"text": "cut \\ud83d", "more": ["\\uD83D"]}',
        '{"text": "whole \\ud83d\\ude00"}',
        '{"text": NaN}',
        '{"text": "first", "text": "second"}',
        '{"text": ["One.", null, "Two."]}',
        '{"text": "last", "meta": {"text": "inner"}}',
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    texts, skipped = read(tmp_path)
    assert texts == ["cut \ufffd", "whole 😀", "One.\nTwo.", "last"]
    assert skipped == {"invalid_json": 2, "replaced_letters": 1, "missing_text": 1}
    assert read(tmp_path, text_column="meta.text")[0] == ["inner"]


def test_an_id_with_half_a_letter_is_mended(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x", "id": "\\ud83d"}\n')
    config = CorpusConfig(paths=[str(tmp_path)], id_column="id")
    [file] = find_files(config).files
    assert list(read_records(file, config, Skipped())) == [("\ufffd", "x")]


BYTES = [text.encode() for text in TEXTS]
COLUMNS = {
    "string": pa.array(TEXTS),
    "large_string": pa.array(TEXTS, pa.large_string()),
    "string_view": pa.array(TEXTS, pa.string_view()),
    "dictionary": pa.array(TEXTS).dictionary_encode(),
    "binary": pa.array(BYTES),
    "large_binary": pa.array(BYTES, pa.large_binary()),
    "list": pa.array([[text] for text in TEXTS]),
    "list_of_binary": pa.array([[text] for text in BYTES]),
    "large_list": pa.array([[text, None] for text in TEXTS], pa.large_list(pa.string())),
}


def write_table(folder: Path, kind: str, table: pa.Table) -> None:
    path = folder / f"a.{'arrow' if kind == 'stream' else kind}"
    if kind == "parquet":
        pq.write_table(table, path)
    elif kind == "feather":
        feather.write_feather(table, path)
    else:
        with ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=1000)


@pytest.mark.parametrize("kind", ["parquet", "stream", "feather"])
@pytest.mark.parametrize("column", COLUMNS)
def test_columns_of_all_types_of_text(tmp_path: Path, kind: str, column: str) -> None:
    array = COLUMNS[column]
    nested = pa.StructArray.from_arrays([array, pa.array(range(len(array)))], ["text", "id"])
    write_table(tmp_path, kind, pa.table({"text": array, "meta": nested, "a.b": array}))
    for name in ("text", "meta.text", "a.b"):
        corpus_files(CorpusConfig(paths=[str(tmp_path)], text_column=name))
        assert read(tmp_path, text_column=name) == (TEXTS, {})


@pytest.mark.parametrize("kind", ["parquet", "stream", "feather"])
def test_columns_that_cannot_be_read_are_refused_with_those_that_can(tmp_path: Path, kind: str) -> None:
    meta = [{"text": "x", "n": {"words": ["y"]}}]
    write_table(tmp_path, kind, pa.table({"meta": meta, "id": [1], "spans": [[1, 2]]}))
    for column, message in [
        ("meta", r"is of type struct<.*, must be one of those with text: meta.text, meta.n.words"),
        ("id", "is of type int64 in .*: meta.text, meta.n.words"),
        ("text", "has no such column, only meta.text, meta.n.words, id, spans"),
        ("meta.title", "has no such column"),
    ]:
        with pytest.raises(UserError, match=f"corpus.text_column={column}: .*{message}"):
            corpus_files(CorpusConfig(paths=[str(tmp_path)], text_column=column))


@pytest.mark.parametrize("kind", ["parquet", "stream"])
def test_two_columns_of_one_name_are_refused(tmp_path: Path, kind: str) -> None:
    write_table(tmp_path, kind, pa.table([["x"], ["y"]], names=["text", "text"]))
    with pytest.raises(UserError, match="has 2 columns of this name"):
        corpus_files(CorpusConfig(paths=[str(tmp_path)]))
    assert read(tmp_path) == ([], {"repeated_columns": 1})


def with_bad_bytes(values: list[bytes], kind: str) -> pa.Array:
    binary = pa.array(values)
    strings = pa.Array.from_buffers(pa.string(), len(binary), binary.buffers())
    if kind == "struct":
        return pa.StructArray.from_arrays([strings], ["text"])
    return pa.ListArray.from_arrays(list(range(len(binary) + 1)), strings) if kind == "list" else strings


@pytest.mark.parametrize("kind", ["parquet", "stream", "feather"])
@pytest.mark.parametrize("shape", ["plain", "struct", "list"])
def test_one_bad_value_costs_one_row(tmp_path: Path, kind: str, shape: str) -> None:
    values = [f"Row number {number}.".encode() for number in range(5000)]
    values[1234] = b"caf\xe9"
    write_table(tmp_path, kind, pa.table({"text": with_bad_bytes(values, shape)}))
    texts, skipped = read(tmp_path, text_column="text.text" if shape == "struct" else "text")
    assert texts == [value.decode() for value in values if value != b"caf\xe9"]
    assert skipped == {"invalid_utf8": 1} and [place.split(":")[1] for place in skipped.places["invalid_utf8"]] == ["1235"]


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    os.mkdir(folder + b"/sub\xff")
    for name in (b"/caf\xe9.txt", b"/sub\xff/b.jsonl", b"/c.txt", b"/.hidden\xe9.txt"):
        with open(folder + name, "wb") as file:
            file.write(b'{"text": "x"}\n')
    pq.write_table(pa.table({"text": ["x"]}), tmp_path / "d.parquet")
    os.rename(tmp_path / "d.parquet", folder + b"/d\xe9.parquet")
    config = CorpusConfig(paths=[str(tmp_path)])
    files = corpus_files(config).files
    assert [file.name for file in files] == ["c.txt", "caf\\udce9.txt", "d\\udce9.parquet", "sub\\udcff/b.jsonl"]
    ids = [document for file in files for document, _ in read_records(file, config, Skipped())]
    assert ids == ["c.txt", "caf\\udce9.txt", "d\\udce9.parquet#0", "sub\\udcff/b.jsonl#0"]
    assert [file.name for file in find_files(CorpusConfig(paths=[f"{tmp_path}/*.parquet"])).files] == ["d\\udce9.parquet"]
