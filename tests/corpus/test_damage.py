"""The share of the input that could not be used decides between silence, a warning and an error."""

from __future__ import annotations

import logging

import pytest

from supmer.corpus.checks import report_damage, skipped_share
from supmer.errors import UserError
from supmer.readers.skipped import Skipped


@pytest.mark.parametrize(
    ("counts", "share"),
    [
        ({}, 0),
        ({"documents_read": 99, "invalid_json": 1}, 0.01),
        ({"documents_read": 90, "empty_text": 9, "broken_rows": 1}, 0.01),
        ({"documents_read": 1, "text_lines": 97, "invalid_utf8": 2}, 0.02),
        ({"documents_read": 1000, "files_read": 4, "broken_files": 1}, 0.25),
        ({"documents_read": 10, "not_drawn": 990, "files_read": 1}, 0),
        ({"missing_columns": 2, "files_read": 2}, 1),
    ],
)
def test_the_share_of_rows_or_files(counts: dict[str, int], share: float) -> None:
    assert skipped_share(counts) == pytest.approx(share)


def test_more_than_one_percent_is_a_warning_or_an_error(caplog: pytest.LogCaptureFixture) -> None:
    skipped = Skipped({"documents_read": 985})
    for line in range(15):
        skipped.add("invalid_utf8", "a.txt", line)
    skipped = Skipped.load(skipped.dump())
    with caplog.at_level(logging.WARNING):
        report_damage(skipped, strict=False)
    message = "1.5% of the input was skipped: 15 lines or rows that are not UTF-8 (or what corpus.encoding names) "
    assert caplog.messages == [message + "(a.txt:0, a.txt:1, a.txt:2); corpus.encoding= names another encoding"]
    with pytest.raises(UserError, match=r"^--strict: 1.5%"):
        report_damage(skipped, strict=True)
    report_damage(Skipped({"documents_read": 999, "invalid_utf8": 1}), strict=True)


def test_places_are_the_first_three_of_all_that_are_merged() -> None:
    total = Skipped()
    for name in "ab":
        one = Skipped()
        for line in range(2):
            one.add("too_long", name, line)
        total.merge(one)
    assert total == {"too_long": 4} and total.places == {"too_long": ["a:0", "a:1", "b:0"]}
