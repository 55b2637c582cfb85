"""The report is one self-contained page, also for odd runs."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from supmer.reports.drawing import MAX_POINTS
from supmer.train.report import render


def rows(num_steps: int) -> list[dict[str, Any]]:
    shared = {"support_loss": 2.0, "gate": 0.5, "similarity": 0.5, "mixup_b": 0.1, "tokens": 10, "data_wait_seconds": 0.0}
    train = [
        {"step": step, "split": "train", "kind": "nsp", "query_loss": 1.0, "step_seconds": 0.5, **shared}
        for step in range(1, num_steps + 1)
    ]
    validation = [
        {"step": step, "split": "validation", "kind": kind, "query_loss": loss, "step_seconds": 0.1, **shared}
        for step, loss in ((0, 3.25), (num_steps, 1.75))
        for kind in ("nsp", "scc")
    ]
    return train + validation


def test_page_is_well_formed_and_refers_to_nothing_outside() -> None:
    page = render("my <run>", rows(20), "run: {name: <a>}")
    ElementTree.fromstring(page.replace("<!doctype html>", "").replace('<meta charset="utf-8">', ""))
    assert page.count("<svg") == 6
    references = set(re.findall(r"(?:href|src)=\"([^\"]*)\"", page))
    assert all(reference.startswith("#") for reference in references)
    assert "my &lt;run&gt;" in page
    assert '<td class="label">scc</td><td>3.2500</td><td>1.7500</td><td>20</td>' in page


def test_long_runs_give_a_small_page() -> None:
    assert len(render("r", rows(50 * MAX_POINTS), "")) < 1_000_000


@pytest.mark.parametrize("broken", [[], rows(1), [{**row, "query_loss": None} for row in rows(3)]])
def test_empty_and_spoiled_runs_still_give_a_page(broken: list[dict[str, Any]]) -> None:
    assert "<h1>r</h1>" in render("r", broken, "")


def test_same_rows_give_the_same_page() -> None:
    assert render("r", rows(5), "") == render("r", rows(5), "")
