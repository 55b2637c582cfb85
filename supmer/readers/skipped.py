"""What cannot be used is counted by reason, with the first places of each reason, and never lost silently."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence

MAX_ROW_BYTES = 64 << 20
"""A line or a plain-text document beyond this size is skipped: one row must not decide how much memory a worker needs."""

SKIP_REASONS = {
    "broken_files": "files that could not be read to their end",
    "missing_columns": "files without the text column",
    "repeated_columns": "files with two columns of the text column's name",
    "too_long": f"rows or text files of more than {MAX_ROW_BYTES >> 20} MiB",
    "invalid_utf8": "lines or rows that are not UTF-8 (or what corpus.encoding names)",
    "invalid_json": "rows that are not JSON objects",
    "broken_rows": "rows with a quotation mark that is not closed, or not followed by a delimiter",
    "wrong_fields": "rows with another number of fields than the header",
    "missing_text": "rows without a string in the text column",
    "empty_text": "rows with nothing but white space",
    "not_drawn": "documents outside of corpus.shares",
}

OF_FILES = ("broken_files", "missing_columns", "repeated_columns")
"""Reasons that count files; the others count rows, or lines of plain text."""

AS_ASKED = ("empty_text", "not_drawn")
"""Reasons that are no damage."""

NUM_PLACES = 3
"""Places (file and line) that are kept for each reason."""


ReadAs = tuple[int, Sequence[str]]
"""Number of files that are written in one way, and the first NUM_PLACES of them."""


class Skipped(Counter[str]):
    """Counts by reason; `places` holds the first NUM_PLACES places of each reason, ``file:line``.

    `read_as` holds how files were found to be written (``delimiter tab, quoting none``): how many, and the first of them.

    >>> skipped = Skipped()
    >>> skipped.add("invalid_json", "a.jsonl", 7)
    >>> skipped, skipped.places
    (Skipped({'invalid_json': 1}), {'invalid_json': ['a.jsonl:7']})
    """

    def __init__(
        self,
        counts: Mapping[str, int] | None = None,
        places: Mapping[str, list[str]] | None = None,
        read_as: Mapping[str, ReadAs] | None = None,
    ) -> None:
        super().__init__(counts or {})
        self.places = {reason: [*found] for reason, found in (places or {}).items()}
        self.read_as = dict(read_as or {})

    def add(self, reason: str, file: str, line: int | None = None) -> None:
        """Count one file, or one line or row of it (`line` counts from 1)."""
        self[reason] += 1
        self.add_places(reason, [file if line is None else f"{file}:{line}"])

    def add_read_as(self, how: str, count: int, files: Sequence[str]) -> None:
        """Count files that are written so; `files` are the first of them."""
        before, first = self.read_as.get(how, (0, ()))
        self.read_as[how] = before + count, [*first, *files][:NUM_PLACES]

    def add_places(self, reason: str, places: Sequence[str]) -> None:
        """Keep places as long as there are fewer than NUM_PLACES."""
        kept = self.places.setdefault(reason, [])
        kept += places[: NUM_PLACES - len(kept)]

    def merge(self, other: Mapping[str, int]) -> None:
        """Add other counts, with their places if they have some."""
        self.update(other)
        if isinstance(other, Skipped):
            for how, (count, files) in other.read_as.items():
                self.add_read_as(how, count, files)
            for reason, places in other.places.items():
                self.add_places(reason, places)

    def describe_files(self) -> list[str]:
        """Return a line for each way in which files are written, with the first of them.

        >>> skipped = Skipped()
        >>> for number in range(4):
        ...     skipped.add_read_as("encoding utf-16-le", 1, [f"{number}.txt"])
        >>> skipped.describe_files()
        ['4 files are read with encoding utf-16-le: 0.txt, 1.txt, 2.txt and 1 more']
        """
        lines = []
        for how, (count, first) in sorted(self.read_as.items()):
            more = f" and {count - len(first):,} more" if count > len(first) else ""
            files = "1 file is" if count == 1 else f"{count:,} files are"
            lines.append(f"{files} read with {how}: {', '.join(first)}{more}")
        return lines

    def dump(self) -> str:
        """Return counts and places as JSON, for `load`."""
        return json.dumps({"counts": dict(sorted(self.items())), "places": self.places, "read_as": self.read_as})

    @classmethod
    def load(cls, text: str | bytes) -> Skipped:
        """Return what `dump` wrote."""
        return cls(**json.loads(text))

    def clear(self) -> None:
        """Forget all counts and places."""
        super().clear()
        self.places, self.read_as = {}, {}
