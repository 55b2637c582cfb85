"""Tables show every character of their cells, whatever they are written in, and fit the terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from supmer.reports.tables import Table

CELLS = ["[bold]a|b", "<i>5%", "x_y & z"]
TABLE = Table(["[task]", "<score>", "note"], [CELLS], "a title")


def test_terminal_shows_brackets() -> None:
    output = io.StringIO()
    Console(file=output, width=80).print(TABLE.terminal(styles={"<i>5%": "red"}))
    assert all(text in output.getvalue() for text in [*CELLS, "[task]", "<score>", "a title"])


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (TABLE.markdown(), r"| [bold]a\|b | <i>5% | x_y & z |"),
        (TABLE.html(), '<td class="label">[bold]a|b</td><td>&lt;i&gt;5%</td><td>x_y &amp; z</td>'),
        (TABLE.latex(bold=frozenset({(0, 1)})), r"[bold]a|b & \textbf{<i>5\%} & x\_y \& z \\"),
    ],
)
def test_special_characters_are_escaped(written: str, expected: str) -> None:
    assert expected in written


def printed(table: Table, width: int) -> list[list[str]]:
    """Return the words of each line that has any."""
    console = Console(file=io.StringIO(), width=width)
    console.print(table.terminal())
    return [line.split() for line in console.file.getvalue().splitlines() if line.strip(" ─")]  # type: ignore[attr-defined]


def test_columns_that_do_not_fit_follow_below_under_the_labels() -> None:
    table = Table(
        ["task", "ppt", "lora", "bitfit"], [["trec", "50.0", "33.3", "7.0"], ["rte", "1.0", "2.0", "3.0"]], "scores"
    )
    whole = [["scores"], ["task", "ppt", "lora", "bitfit"], ["trec", "50.0", "33.3", "7.0"], ["rte", "1.0", "2.0", "3.0"]]
    assert printed(table, 80) == whole
    first = [["scores"], ["task", "ppt", "lora"], ["trec", "50.0", "33.3"], ["rte", "1.0", "2.0"]]
    assert printed(table, 20) == [*first, ["task", "bitfit"], ["trec", "7.0"], ["rte", "3.0"]]


def test_text_that_is_no_number_is_folded_where_it_does_not_fit() -> None:
    lines = printed(Table(["check", "found"], [["memory", "one two three four"]], num_labels=2), 22)
    assert [word for line in lines for word in line] == ["check", "found", "memory", "one", "two", "three", "four"]
