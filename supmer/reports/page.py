"""Pages for people: one HTML file without outside references, light or dark as the reader's system is, for paper too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, select_autoescape
from markupsafe import Markup
from matplotlib.figure import Figure

from supmer.reports import drawing
from supmer.reports.tables import Table

TEMPLATES = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=select_autoescape(), trim_blocks=True)


def page(title: str, *parts: str, links: Mapping[str, str] | None = None) -> str:
    """Return an HTML page of parts: those that the functions below made, and plain texts, which are escaped.

    `links` are names and relative addresses of pages that belong to this one.
    """
    return TEMPLATES.get_template("page.html").render(title=title, parts=parts, links=links or {})


def heading(text: str, level: int = 2) -> Markup:
    """Return a heading; the page's own has level 1."""
    return Markup("<h{0}>{1}</h{0}>").format(level, text)


def paragraph(text: str) -> Markup:
    return Markup("<p>{}</p>").format(text)


def wide(table: Table) -> Markup:
    """Return a table that scrolls by itself where the screen is narrow."""
    return Markup('<div class="wide">{}</div>').format(Markup(table.html()))


def figure(drawn: Figure, title: str) -> Markup:
    """Return a figure in the colours of the page; `title` is what it is called where it cannot be seen.

    Figures of one page need different titles, which keep the identifiers in them apart.
    """
    for patch in (drawn.patch, *(axes.patch for axes in drawn.axes)):
        patch.set_visible(False)
    for legend in filter(None, (*drawn.legends, *(axes.get_legend() for axes in drawn.axes))):
        legend.get_frame().set_visible(False)
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    _, _, inner = drawing.svg(drawn, title, bbox_inches="tight", metadata=metadata).decode().partition("<svg")
    coloured = Markup(inner.replace("#000000", "currentColor"))
    return Markup('<figure><svg role="img" aria-label="{}"{}</figure>').format(title, coloured)


def folded(title: str, text: str) -> Markup:
    """Return a long text behind its title."""
    return Markup("<details><summary>{}</summary><pre>{}</pre></details>").format(title, text)
