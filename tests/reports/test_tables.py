"""Tables show every character of their cells, whatever they are written in."""

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
