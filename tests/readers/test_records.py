"""Rows of single files: what is read, and what is counted instead."""

from __future__ import annotations

import bz2
import gzip
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from supmer.config import CorpusConfig
from supmer.corpus import records
from supmer.corpus.reading import find_files, group_files, is_drawn
from supmer.errors import UserError
from supmer.readers import csv_rows
from supmer.readers import skipped as limits
from supmer.readers.rows import ReadOptions, check_columns
from supmer.readers.skipped import SKIP_REASONS, Skipped


def read(path: Path, **settings: object) -> tuple[list[tuple[str, str]], Skipped]:
    config = CorpusConfig.model_validate({"paths": [str(path)], **settings})
    skipped = Skipped()
    rows = [row for file in find_files(config).files for row in records.read_records(file, config, skipped)]
    return rows, skipped


def test_jsonl_counts_every_line_it_leaves_out(tmp_path: Path) -> None:
    lines = [
        b'{"text": "one"}',
        b"{not json",
        b'["a list"]',
        b'{"text": "caf\xe9"}',
        b'{"body": "no text"}',
        b'{"text": 3}',
        b'{"text": " \\u0000 "}',
        b"",
        b'{"text": "two\\u0000"}',
    ]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    rows, skipped = read(tmp_path)
    assert rows == [("a.jsonl#0", "one"), ("a.jsonl#8", "two")]
    assert skipped == {"invalid_json": 2, "invalid_utf8": 1, "missing_text": 2, "empty_text": 1}
    assert set(skipped) <= set(SKIP_REASONS)


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_a_truncated_archive_gives_its_first_rows_and_is_counted(tmp_path: Path, suffix: str, compress) -> None:
    random.seed(0)
    lines = [json.dumps({"text": random.randbytes(400).hex()}) for _ in range(3000)]
    whole = compress("\n".join(lines).encode())
    (tmp_path / f"a.jsonl{suffix}").write_bytes(whole[: len(whole) // 2])
    rows, skipped = read(tmp_path)
    assert 300 < len(rows) < 1600
    assert [text for _, text in rows] == [json.loads(line)["text"] for line in lines[: len(rows)]]
    assert skipped == {"broken_files": 1}


def test_zstandard_is_read(tmp_path: Path) -> None:
    content = b'{"text": "one"}\n{"text": "two"}\n'
    (tmp_path / "a.jsonl.zst").write_bytes(pa.compress(content, codec="zstd", asbytes=True))
    with pa.OSFile(str(tmp_path / "a.jsonl.zst"), "wb") as sink, pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    assert [text for _, text in read(tmp_path)[0]] == ["one", "two"]


def test_a_parquet_file_cut_in_half_is_counted(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"] * 1000, "key": range(1000)}), tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[: len(whole) // 2])
    rows, skipped = read(tmp_path, id_column="key")
    assert len(rows) == 1000
    assert rows[7] == ("7", "a")
    assert skipped == {"broken_files": 1}


def test_a_file_that_vanishes_after_listing_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    config = CorpusConfig(paths=[str(tmp_path)])
    (file,) = find_files(config).files
    (tmp_path / "a.txt").unlink()
    skipped = Skipped()
    assert list(records.read_records(file, config, skipped)) == []
    assert skipped == {"broken_files": 1}


def test_text_files_are_documents_or_lines(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbffirst\nbad \xff\nsecond\n\n")
    assert read(tmp_path) == ([("a.txt", "first\nsecond")], {"invalid_utf8": 1, "text_lines": 4})
    rows, skipped = read(tmp_path, text_document="line")
    assert rows == [("a.txt#0", "first"), ("a.txt#2", "second")]
    assert skipped == {"invalid_utf8": 1, "empty_text": 1}


def test_overlong_lines_are_skipped_without_losing_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_ROW_BYTES", 100)
    (tmp_path / "a.txt").write_text("x" * 99 + "\n" + "y" * 100 + "\n" + "z\n")
    rows, skipped = read(tmp_path, text_document="line")
    assert [text[0] for _, text in rows] == ["x", "z"]
    assert skipped == {"too_long": 1}


def test_a_missing_parquet_column_is_refused_by_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["a"], "title": ["b"]}), tmp_path / "a.parquet")
    (file,) = find_files(CorpusConfig(paths=[str(tmp_path)])).files
    with pytest.raises(UserError, match=r"text_column=text: .*a.parquet has no such column, only body, title"):
        check_columns(file, ReadOptions(), "text", "corpus.text_column")


class TestFindFiles:
    def test_folders_globs_and_files(self, tmp_path: Path) -> None:
        for name in ("x/a.txt", "x/y/b.jsonl.gz", "x/y/c.md", "x/notes.docx", "x/.hidden.txt", "z/d.parquet"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text("")
        found = find_files(CorpusConfig(paths=[f"{tmp_path}/x"]))
        assert [(file.name, file.format) for file in found.files] == [
            ("a.txt", "text"),
            ("y/b.jsonl.gz", "jsonl"),
            ("y/c.md", "text"),
        ]
        assert found.num_ignored == 1
        globbed = find_files(CorpusConfig(paths=[f"{tmp_path}/**/[bd]*", f"{tmp_path}/x/*.txt", f"{tmp_path}/x/a.txt"]))
        assert [file.name for file in globbed.files] == ["x/a.txt", "x/y/b.jsonl.gz", "z/d.parquet"]

    @pytest.mark.parametrize(
        ("entry", "message"),
        [
            ("missing.txt", "no such file or folder"),
            ("empty", "no files there"),
            ("none/*.txt", "no files there"),
            ("other", "none of the 1 files there is named as text"),
            ("nowhere://x/y", "cannot be opened"),
        ],
    )
    def test_what_is_not_there_is_refused(self, tmp_path: Path, entry: str, message: str) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "a.docx").write_text("")
        path = entry if "://" in entry else f"{tmp_path}/{entry}"
        with pytest.raises(UserError, match=message) as error:
            find_files(CorpusConfig(paths=[path]))
        assert str(error.value).startswith(f"corpus.paths={path}")

    def test_no_paths_are_refused(self) -> None:
        with pytest.raises(UserError, match=r"corpus.paths=\[\]"):
            find_files(CorpusConfig())

    def test_groups_keep_order_and_size(self, tmp_path: Path) -> None:
        for index in range(10):
            (tmp_path / f"{index}.txt").write_text("x" * (10 + 50 * (index == 4)))
        files = find_files(CorpusConfig(paths=[str(tmp_path)])).files
        groups = list(group_files(files, max_bytes=30))
        assert [file for group in groups for file in group] == list(files)
        assert [len(group) for group in groups] == [3, 1, 1, 3, 2]


def test_csv_rows_may_span_lines(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,text\n1,"one, and\ntwo"\n2,three\n3\n4," "\n')
    rows, skipped = read(tmp_path, id_column="id")
    assert rows == [("1", "one, and\ntwo"), ("2", "three")]
    assert skipped == {"wrong_fields": 1, "empty_text": 1}
    assert skipped.places == {"wrong_fields": ["a.csv:5"], "empty_text": ["a.csv:6"]}
    (tmp_path / "a.csv").unlink()
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(b"body\ttext\nx\tone, two\n"))
    (tmp_path / "b.csv").write_text("body\nx\n")
    assert read(tmp_path) == ([("a.tsv.gz#0", "one, two")], {"missing_columns": 1})


@pytest.mark.parametrize("is_far", [False, True])
def test_a_csv_quote_that_is_never_closed_costs_one_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_far: bool
) -> None:
    if is_far:
        monkeypatch.setattr(csv_rows, "MAX_FIELD_CHARACTERS", 1000)
    (tmp_path / "a.csv").write_text('text\none\n"two\n' + "three\n" * 400)
    rows, skipped = read(tmp_path)
    assert [text for _, text in rows] == ["one"] + ["three"] * 400
    assert skipped == {"broken_rows": 1} and skipped.places == {"broken_rows": ["a.csv:3"]}


def test_a_saved_data_set_is_read_without_its_description(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(2500)]
    saved = {"train": Dataset.from_dict({"text": texts}), "test": Dataset.from_dict({"text": ["last"], "key": ["k"]})}
    for split, data in saved.items():
        data.save_to_disk(tmp_path / split)
    rows, skipped = read(tmp_path, id_column="key")
    assert [text for _, text in rows] == ["last", *texts]
    assert rows[0][0] == "k" and not skipped
    (file,) = (tmp_path / "train").glob("*.arrow")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    rows, skipped = read(tmp_path / "train")
    assert len(rows) < 2500 and skipped == {"broken_files": 1}


def test_mixed_encodings_nul_bytes_and_a_huge_line(tmp_path: Path) -> None:
    huge = b"x" * (10 << 20)
    lines = ["größe".encode("latin-1"), "größe".encode(), "größe".encode("utf-16"), b"a\x00b", huge, b"last"]
    (tmp_path / "a.txt").write_bytes(b"\n".join(lines))
    rows, skipped = read(tmp_path, text_document="line")
    assert [text for _, text in rows] == ["größe", "ab", huge.decode(), "last"]
    assert skipped["invalid_utf8"] == 2


def test_each_path_has_a_share(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UserError, match=r"corpus.shares=\[0.5, 1.0\]: must have one number for each of the 1 corpus.paths"):
        read(tmp_path, shares=[0.5, 1])
    kept = {str(number) for number in range(4000) if is_drawn(0, str(number), 0.25)}
    assert len(kept) == pytest.approx(1000, rel=0.1)
    assert kept < {str(number) for number in range(4000) if is_drawn(0, str(number), 0.5)}


def test_how_files_are_written_is_counted_and_said(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.csv").write_text("text;label\nOne;1\n")
    (tmp_path / "a.tsv").write_bytes("text\tlabel\nTwo\t1\n".encode("utf-16"))
    (tmp_path / "b.jsonl").write_text('{"text": "Three"}\n')
    rows, skipped = read(tmp_path)
    assert [text for _, text in rows] == ["One"] * 4 + ["Two", "Three"] and not skipped
    total = Skipped()
    for _ in range(2):
        total.merge(Skipped.load(skipped.dump()))
    assert total.describe_files() == [
        "8 files are read with delimiter ';', quoting double: 0.csv, 1.csv, 2.csv and 5 more",
        "2 files are read with delimiter tab, quoting none: a.tsv, a.tsv",
        "2 files are read with encoding utf-16-le: a.tsv, a.tsv",
    ]
