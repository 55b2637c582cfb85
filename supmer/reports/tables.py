"""Tables of text cells, for the terminal, Markdown, HTML and LaTeX."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

UNBOUNDED = 10_000
"""Characters in a line, when the width that a table would take is asked for."""


@dataclass(frozen=True)
class Table:
    """Rows of cells under heads; numbers are right-aligned, so all columns are but the first `num_labels`.

    >>> print(Table(["task", "score"], [["trec", "50.0"]]).markdown())
    | task | score |
    | --- | ---: |
    | trec | 50.0 |
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    num_labels: int = 1

    def markdown(self) -> str:
        """Return the table in Markdown, without its title."""
        marks = ["---" if column < self.num_labels else "---:" for column in range(len(self.heads))]
        lines = ([cell.replace("|", r"\|") for cell in line] for line in (self.heads, marks, *self.rows))
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def terminal(self, styles: Mapping[str, str] | None = None) -> TerminalTable:
        """Return the table for `rich` to print; `styles` are those of cells that hold just this text."""
        return TerminalTable(self, styles or {})

    def html(self) -> str:
        """Return a table element, all texts escaped; see `page.html` for its style."""
        label = ' class="label"'

        def line(tag: str, cells: Sequence[str]) -> str:
            written = [
                f"<{tag}{label if column < self.num_labels else ''}>{html.escape(cell)}</{tag}>"
                for column, cell in enumerate(cells)
            ]
            return f"<tr>{''.join(written)}</tr>"

        return f"<table>{line('th', self.heads)}{''.join(line('td', row) for row in self.rows)}</table>"

    def latex(self, bold: frozenset[tuple[int, int]] = frozenset()) -> str:
        """Return a tabular in the style of booktabs; `bold` names cells by row and column."""

        def line(cells: Sequence[str], row: int | None = None) -> str:
            written = [re.sub("[_%&#]", r"\\\g<0>", cell).replace("±", r"$\pm$") for cell in cells]
            marked = [rf"\textbf{{{cell}}}" if (row, column) in bold else cell for column, cell in enumerate(written)]
            return " & ".join(marked) + r" \\"

        columns = "l" * self.num_labels + "r" * (len(self.heads) - self.num_labels)
        body = [line(row, number) for number, row in enumerate(self.rows)]
        lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", line(self.heads), r"\midrule", *body]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


@dataclass(frozen=True)
class TerminalTable:
    """A table as `rich` prints it: columns that do not fit beside the others follow below, under the labels again."""

    table: Table
    styles: Mapping[str, str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RichTable]:
        columns = [*range(len(self.table.heads))]
        labels, shown = columns[: self.table.num_labels], columns[: self.table.num_labels + 1]
        title, unbounded = self.table.title, options.update(max_width=UNBOUNDED)
        for column in columns[len(shown) :]:
            width = Measurement.get(console, unbounded, self._block([*shown, column])).maximum
            if labels and width > options.max_width:
                yield self._block(shown, title)
                shown, title = [*labels], ""
            shown.append(column)
        yield self._block(shown, title)

    def _block(self, columns: Sequence[int], title: str = "") -> RichTable:
        table = RichTable(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1))
        for column in columns:
            justify: Literal["left", "right"] = "left" if column < self.table.num_labels else "right"
            table.add_column(Text(self.table.heads[column]), justify=justify, overflow="fold")
        for row in self.table.rows:
            table.add_row(*(Text(row[column], self.styles.get(row[column], "")) for column in columns))
        return table
