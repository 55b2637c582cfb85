"""Tables: delimiter and quoting are found, every row is its own, what breaks the rules is counted with its line."""

from __future__ import annotations

import csv
import io
import json
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supmer.errors import UserError
from supmer.readers.csv_rows import Dialect, Table
from supmer.readers.files import list_files
from supmer.readers.rows import ReadOptions, check_columns, read_rows
from supmer.readers.skipped import Skipped
from supmer.readers.streams import Lines


def table(path: Path, content: str | bytes, **options: str) -> tuple[list[list[str]], Skipped, Dialect]:
    """Write a file and read it: rows, what was counted, and what was found."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    [file] = list_files([str(path)], "csv", "paths").files
    skipped = Skipped()
    found = Table(
        Lines(file, options.get("encoding"), skipped), ["text"], options.get("delimiter"), options.get("quoting"), skipped
    )
    return [row for _, row in found], skipped, found.dialect


TEXTS = ["plain", '"begins with a quote', 'a "quoted" word', '"all of it."', 'ends with "', "'single'", '5" pipe', "\\"]


def test_a_quotation_mark_in_a_tsv_is_a_letter(tmp_path: Path) -> None:
    content = "".join(f"{text}\t{number}\n" for number, text in enumerate(TEXTS))
    rows, skipped, dialect = table(tmp_path / "a.tsv", "text\tlabel\n" + content)
    assert rows == [[text, str(number)] for number, text in enumerate(TEXTS)]
    assert not skipped and dialect == Dialect("\t", "none")


@pytest.mark.parametrize(
    ("delimiter", "quoting"),
    [*product(["\t", ",", ";", "|"], [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_what_a_writer_has_quoted_is_read_as_it_was(tmp_path: Path, quoting: int, delimiter: str, line_end: str) -> None:
    buffer = io.StringIO(newline="")
    rows = [[text, number] for number, text in enumerate([*TEXTS, "two\nlines", f"a {delimiter} b"])]
    csv.writer(buffer, delimiter=delimiter, quoting=quoting, lineterminator=line_end).writerows([["text", "label"], *rows])
    read, skipped, dialect = table(tmp_path / "a.csv", buffer.getvalue())
    assert read == [[text, str(number)] for text, number in rows]
    assert not skipped and dialect == Dialect(delimiter, "double")


def test_doubled_quotes_of_a_tsv_that_need_not_be_quoting_are_kept_and_named(tmp_path: Path) -> None:
    # Real sets of sentences look so: qqp has texts with doubled quotation marks.
    [[text, _], _], _, dialect = table(tmp_path / "a.tsv", content := 'text\tlabel\n"A ""B"" C"\t1\nD\t0\n')
    assert text == '"A ""B"" C"' and dialect == Dialect("\t", "none")
    (tmp_path / "a.tsv").write_text(content)
    [file] = list_files([str(tmp_path / "a.tsv")], "csv", "paths").files
    assert "corpus.quoting=double" in check_columns(file, ReadOptions(), "text", "corpus.text_column")
    assert "double" not in check_columns(file, ReadOptions(quoting="none"), "text", "corpus.text_column")


@pytest.mark.parametrize(
    "content",
    [
        'label\ttext\n1\t"Who\n0\tsaid so?"\n',
        'text\tlabel\nA ""word"" here\t1\n"B ""C"" D"\t0\n',
        'text\tlabel\n"A ""B"" C"\t1\n"begins with a quote\t0\n',
    ],
)
def test_a_tsv_that_no_writer_with_quoting_leaves_so_has_none(tmp_path: Path, content: str) -> None:
    rows, skipped, dialect = table(tmp_path / "a.tsv", content)
    assert rows == [line.split("\t") for line in content.splitlines()[1:]]
    assert not skipped and dialect == Dialect("\t", "none")


def test_lines_may_end_in_a_delimiter(tmp_path: Path) -> None:
    rows, skipped, _ = table(tmp_path / "a.csv", "text,label\nOne,1,\nTwo,0,\nThree,\n,,,\n")
    assert rows == [["One", "1"], ["Two", "0"], ["Three", ""]] and skipped == {"wrong_fields": 1}


@given(
    rows=st.lists(st.tuples(st.text("ab \"',;\t\n\\", max_size=8), st.text("01", min_size=1, max_size=2)), min_size=1),
    delimiter=st.sampled_from(",\t;"),
)
def test_any_text_survives_a_writer_that_quotes_all(tmp_path_factory, rows, delimiter) -> None:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([("text", "label"), *rows])
    read, skipped, _ = table(tmp_path_factory.mktemp("rows") / "a.csv", buffer.getvalue(), quoting="double")
    assert read == [list(row) for row in rows] and not skipped


def test_backslashes_that_escape_quotation_marks(tmp_path: Path) -> None:
    content = 'text,label\n"She said \\"come, now\\" and left. ",1\n"C:\\new\\\\dir",0\n"Second text, with comma.",0\n'
    rows, skipped, dialect = table(tmp_path / "a.csv", content)
    assert [text for text, _ in rows] == ['She said "come, now" and left. ', "C:\\new\\dir", "Second text, with comma."]
    assert not skipped and dialect.quoting == "backslash"
    rows, skipped, dialect = table(tmp_path / "a.csv", 'text,label\n"in C:\\",1\n"and ""C:\\""",0\n')
    assert rows == [["in C:\\", "1"], ['and "C:\\"', "0"]] and dialect.quoting == "double" and not skipped


def test_rows_with_other_numbers_of_fields_are_counted_with_their_lines(tmp_path: Path) -> None:
    _, skipped, _ = table(tmp_path / "a.csv", 'text,label\none,1\na, b,1\n"two\nlines",2\nthree\n\nfour,4\nx,,\n')
    assert skipped == {"wrong_fields": 3}
    assert skipped.places == {"wrong_fields": ["a.csv:3", "a.csv:6", "a.csv:9"]}


@pytest.mark.parametrize("broken", ['"never closed,1', '"closed" too early,1', '"three\nlines "of" which",1'])
def test_a_broken_row_costs_only_itself(tmp_path: Path, broken: str) -> None:
    before, after = [f'"row, {n}",{n}' for n in range(5)], [f'"row, {n}\nand more",{n}' for n in range(5, 9)]
    rows, skipped, _ = table(tmp_path / "a.csv", "\n".join(["text,label", *before, broken, *after, ""]))
    assert [int(label) for _, label in rows] == list(range(9))
    assert skipped == {"broken_rows": 1} and skipped.places == {"broken_rows": ["a.csv:7"]}


def test_a_bad_byte_within_a_quoted_field_costs_one_row(tmp_path: Path) -> None:
    content = b'text,label\n"First text.\nends here: caf\xe9.",1\n"Second text.",0\nThird,1\n'
    rows, skipped, _ = table(tmp_path / "a.csv", content)
    assert rows == [["Second text.", "0"], ["Third", "1"]]
    assert skipped == {"invalid_utf8": 1} and skipped.places == {"invalid_utf8": ["a.csv:2"]}
    assert table(tmp_path / "a.csv", content, encoding="cp1252")[0][0] == ["First text.\nends here: café.", "1"]


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.csv", "text;label\nOne, two;1\n", ";"),
        ("a.csv", "label\ttext\n1\tOne, two\n", "\t"),
        ("a.tsv", 'text,label\n"One, two",1\n', ","),
        ("a.csv", "sep=|\ntext|label\nOne, two|1\n", "|"),
        ("a.csv", "text\nOne, two\n", "\x1f"),
        ("a.csv", 'text\n"One, two"\n', ","),
        ("a.csv", " text , label\nOne,1\n", ","),
        ("a.csv", "other;columns\nOne;1\n", ";"),
    ],
)
def test_the_header_shows_the_delimiter(tmp_path: Path, name: str, content: str, found: str) -> None:
    rows, skipped, dialect = table(tmp_path / name, content)
    assert dialect.delimiter == found and len(rows) == 1 and not skipped


def test_quoted_fields_after_a_blank(tmp_path: Path) -> None:
    rows, skipped, _ = table(tmp_path / "a.csv", 'label, text\n"1", "One, two"\n"0", "Three ""four"""\n"0", "open\n')
    assert rows == [["1", "One, two"], ["0", 'Three "four"']] and skipped == {"broken_rows": 1}


def test_settings_go_before_what_is_found(tmp_path: Path) -> None:
    content = 'text,label;"x"\n"One, two";1\n'
    assert table(tmp_path / "a.csv", content, delimiter=";", quoting="none")[0] == [['"One, two"', "1"]]
    assert table(tmp_path / "a.csv", content, delimiter=";", quoting="double")[0] == [["One, two", "1"]]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,text,label\nreal,other,1\n")
    [file] = list_files([str(tmp_path)], "auto", "paths").files
    with pytest.raises(UserError, match=r"corpus.text_column=text: .*a.csv has 2 columns of this name"):
        check_columns(file, ReadOptions(), "text", "corpus.text_column")
    skipped = Skipped()
    assert not list(read_rows(file, ReadOptions(), ["text"], "text", skipped)) and skipped == {"repeated_columns": 1}
    assert [values for _, _, values in read_rows(file, ReadOptions(), ["label"], "label", skipped)] == [{"label": "1"}]


@pytest.mark.parametrize("name", ["mrpc", "qqp", "mr", "sst-2", "trec"])
def test_real_sentences_as_tsv_come_out_as_they_were(tmp_path: Path, shared: Path, name: str) -> None:
    """As GLUE ships them: nothing is quoted, and some sentences begin with a quotation mark."""
    rows = [json.loads(line) for line in (shared / "tasks" / name / "train.jsonl").read_text().splitlines()]
    columns = sorted(rows[0])
    expected = [[" ".join(str(row[column]).split()) for column in columns] for row in rows]
    path = tmp_path / "train.tsv"
    path.write_text("".join("\t".join(row) + "\n" for row in [columns, *expected]))
    [file] = list_files([str(path)], "auto", "paths").files
    skipped = Skipped()
    read = [list(values.values()) for _, _, values in read_rows(file, ReadOptions(), columns, columns[0], skipped)]
    assert read == expected and not skipped
