"""Rows of CSV and TSV files. Delimiter and quoting are found from the file itself, unless they are given.

The first line names the columns. A table with commas (or semicolons, bars) follows the rules of csv.writer, or escapes
quotation marks by backslashes. A table with tabs, as GLUE and most sets of sentences are, has no quoting: a quotation mark
is a letter like any other, unless the file is quoted throughout, or its rows have as many fields as the header only so.
A row that breaks the rules is counted, and the next line begins a new one.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from supmer.config.corpus import Quoting
from supmer.readers.skipped import Skipped
from supmer.readers.streams import ESCAPED, Lines

DELIMITERS = (",", "\t", ";", "|")
NO_DELIMITER = "\x1f"
"""Stands in no text: a table of one column."""

SAMPLE_CHARACTERS = 1 << 18
MAX_FIELD_CHARACTERS = 8 << 20
"""So far a quotation mark that is never closed is followed."""


class Dialect(NamedTuple):
    """How a table is written."""

    delimiter: str
    quoting: Quoting
    skips_space: bool = False
    """A quoted field may begin after a blank: ``"a", "b"``."""

    def __str__(self) -> str:
        names = {"\t": "tab", NO_DELIMITER: "none"}
        return f"delimiter {names.get(self.delimiter, repr(self.delimiter))}, quoting {self.quoting}"

    def reader(self, lines: Iterable[str]) -> Any:
        """Return a csv.reader that raises csv.Error where the rules are broken."""
        if self.quoting == "none":
            return csv.reader(lines, delimiter=self.delimiter, quoting=csv.QUOTE_NONE)
        if self.quoting == "double":
            return csv.reader(lines, delimiter=self.delimiter, strict=True, skipinitialspace=self.skips_space)
        # Backslashes that escape nothing, as in C:\new, are doubled: csv.reader would drop them.
        escaping = re.compile(r'\\(["\\\r\n' + re.escape(self.delimiter) + "])?")
        lines = (escaping.sub(lambda m: m[0] if m[1] else "\\\\", line) if "\\" in line else line for line in lines)
        return csv.reader(lines, delimiter=self.delimiter, escapechar="\\", strict=True, skipinitialspace=self.skips_space)


class Table:
    """The rows of a CSV file: `header` and `dialect` as they were found, `how` in words, and an iterator.

    `wanted` are columns that the delimiter is recognized by; `delimiter` and `quoting` are found where they are None.
    """

    def __init__(
        self, lines: Lines, wanted: Sequence[str], delimiter: str | None, quoting: Quoting | None, skipped: Skipped
    ) -> None:
        csv.field_size_limit(MAX_FIELD_CHARACTERS)
        self.lines, self.name, self.skipped = lines, lines.file.name, skipped
        self.live = iter(lines)
        self.sample: list[str] = []
        size = 0
        while size <= SAMPLE_CHARACTERS and (line := next(self.live, None)) is not None:
            if self.sample or not line.isspace():
                self.sample.append(line.replace("\x00", ""))
                size += len(line)
        self.is_whole = size <= SAMPLE_CHARACTERS
        self.header_line = lines.number - len(self.sample) + 1
        if delimiter is None and self.sample and (excel := re.fullmatch(r"sep=(.)\s*", self.sample[0])):
            delimiter = excel[1]
            del self.sample[0]
            self.header_line += 1
        first = self.sample[0] if self.sample else ""
        self.hint, self.ends_in_delimiter = "", False
        if delimiter is None:
            # The one that gives the wanted columns, else the most; the file's name decides where several do.
            usual = "\t" if re.search(r"\.(tsv|tab)\b", self.name.lower()) else ","
            columns = {one: _split(first, Dialect(one, "double")) for one in dict.fromkeys((usual, *DELIMITERS))}
            holding = [one for one, names in columns.items() if wanted and set(wanted) <= set(names)]
            delimiter = max(holding or columns, key=lambda one: len(columns[one]))
        if quoting is None:
            quoting = self._find_quoting(delimiter)
        dialect = Dialect(delimiter, quoting)
        if quoting != "none" and delimiter != "\t":
            text, begun = "".join(self.sample), delimiter + ' "'
            pattern = re.escape(begun) + r'[^"]*(""[^"]*)*"\s*?(?=[\r\n]|$|' + re.escape(delimiter) + ")"
            is_usual = begun in text and 2 * len(re.findall(pattern, text)) > text.count(begun)
            dialect = dialect._replace(skips_space=is_usual)
        if len(_split(first, dialect)) == 1:
            whole = Dialect(NO_DELIMITER, quoting)
            dialect = min(dialect, whole, key=lambda one: len(self._damage(one)[1]))
        self.dialect = dialect
        self.header = _split(first, self.dialect)
        self.how = f"{self.dialect}{self.hint}"
        rows = [line.rstrip("\r\n") for line in self.sample[1:] if not line.isspace()]
        self.ends_in_delimiter = all(row.endswith(self.dialect.delimiter) for row in rows)

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        """Yield (number of its first line, fields) of each row with as many fields as the header, read once."""
        return self._rows(self.live, self.dialect, len(self.header), self.skipped)

    def _find_quoting(self, delimiter: str) -> Quoting:
        text = "".join(self.sample)
        if '"' not in text:
            return "none" if delimiter == "\t" else "double"
        double, backslash = Dialect(delimiter, "double"), Dialect(delimiter, "backslash")
        if delimiter == "\t":
            written = text.replace("\r\n", "\n")

            def is_no_number(field: str) -> bool:
                return not re.fullmatch(r"[-+]?\d*\.?\d+([eE][-+]?\d+)?|NA|", field)

            for one in [double, backslash] if '\\"' in text else [double]:
                if self._is_written_so(written, one, (lambda field: True, is_no_number)):
                    return one.quoting
            if self._is_written_so(written, double, (re.compile('["\r\n\t]').search,)):
                if self._damage(Dialect(delimiter, "none"))[1]:
                    return "double"
                self.hint = '; quotation marks are kept as they are, corpus.quoting=double would read ""word"" as "word"'
            return "none"
        if '\\"' in text and len(self._damage(backslash)[1]) < len(self._damage(double)[1]):
            return "backslash"
        return "double"

    def _is_written_so(self, text: str, dialect: Dialect, rules: Iterable[Callable[[str], Any]]) -> bool:
        """Return whether a writer that quotes the fields which one of the rules names would make this sample of its rows.

        Lines that are whole rows without quoting, too, are taken for rows: ``1<tab>"Who`` and ``0<tab>said?"``.
        """
        rows, damaged = self._damage(dialect)
        if len(damaged) > (not self.is_whole) or not rows:
            return False
        if any("\n" in field for row in rows for field in row) and not self._damage(Dialect(dialect.delimiter, "none"))[1]:
            return False
        inner = '\\"' if dialect.quoting == "backslash" else '""'

        def write(rows: Iterable[list[str]], is_quoted: Callable[[str], Any]) -> str:
            quoted = (['"' + f.replace('"', inner) + '"' if is_quoted(f) else f for f in row] for row in rows)
            return "".join(dialect.delimiter.join(row) + "\n" for row in quoted)

        header = [_split(text.split("\n", 1)[0], dialect)]
        for is_quoted in rules:
            for of_header in (is_quoted, lambda field: False):
                written = write(header, of_header) + write(rows, is_quoted)
                if text.rstrip("\n") == written.rstrip("\n") or (not self.is_whole and text.startswith(written)):
                    return True
        return False

    def _damage(self, dialect: Dialect) -> tuple[list[list[str]], list[str]]:
        """Return the rows of the sample, and the reasons why others are none."""
        found = Skipped()
        num_fields = len(_split(self.sample[0], dialect)) if self.sample else 0
        rows = [row for _, row in self._rows(iter(()), dialect, num_fields, found)]
        return rows, list(found.elements())

    def _rows(
        self, live: Iterator[str], dialect: Dialect, num_fields: int, skipped: Skipped
    ) -> Iterator[tuple[int, list[str]]]:
        """Yield (number of its first line, fields) of each row of the sample and then of `live`."""
        sample = iter(self.sample[1:])
        pending: deque[str] = deque()
        consumed: list[str] = []
        last = self.header_line  # number of the last line that the reader has taken

        def feed() -> Iterator[str]:
            nonlocal last
            while line := pending.popleft() if pending else next(sample, None):
                last += 1
                consumed.append(line)
                yield line
            for line in live:
                last = self.lines.number
                if "\x00" in line:
                    line = line.replace("\x00", "")
                consumed.append(line)
                yield line

        reader = dialect.reader(feed())
        is_recovering = False
        while True:
            consumed.clear()
            row: list[str] = []
            try:
                row = next(reader)
                if self.ends_in_delimiter and len(row) == num_fields + 1 and not row[-1]:
                    del row[-1]
                # After a broken row, a line that holds a quotation mark which quotes nothing seems to be a part of that row.
                is_within = is_recovering and any('"' in field for field in row)
                is_within = is_within and not any('""' in line or '\\"' in line for line in consumed)
                is_broken = is_within or (len(row) != num_fields and len(consumed) > 1)
            except StopIteration:
                return
            except csv.Error:
                is_broken = True
            first = last - len(consumed) + 1
            if is_broken:
                if not is_recovering:
                    skipped.add("broken_rows", self.name, first)
                is_recovering = True
                pending.extendleft(reversed(consumed[1:]))
                last = first
                reader = dialect.reader(feed())
            elif len(row) == num_fields:
                if self.lines.num_invalid and any(map(ESCAPED.search, row)):
                    skipped.add("invalid_utf8", self.name, first)
                    continue
                is_recovering = False
                yield first, row
            elif row:
                skipped.add("wrong_fields", self.name, first)


def _split(line: str, dialect: Dialect) -> list[str]:
    """Return the names of the columns."""
    try:
        return [name.strip() for name in next(dialect.reader([line]), [])]
    except csv.Error:
        return [name.strip() for name in line.split(dialect.delimiter)]
