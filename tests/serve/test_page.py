"""The page in a real browser, used by the keyboard alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import CONTROL, browser
from endpoint import Endpoint

RESULTS = "[...document.querySelectorAll('.result')].map(result => result.innerText)"


def test_a_task_is_chosen_its_fields_typed_and_the_labels_shown_by_keyboard_alone(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    row = {"first": "the <b>red</b> river", "second": "a stone"}
    with browser(tmp_path) as page:
        page.open(f"{endpoint.client.url}/")
        page.wait_for("document.querySelectorAll('textarea').length == 2")
        page.press("Tab")
        assert page.value("document.activeElement.id") == "task"
        page.press("Tab")
        page.type(row["first"])
        page.press("Tab")
        page.type(row["second"])
        page.press("Enter", CONTROL)
        [colour] = page.wait_for(f"{RESULTS}.length && {RESULTS}")

        page.value("document.activeElement.blur(), document.getElementById('task').focus()")
        page.press("ArrowDown")
        page.wait_for("document.getElementById('pattern').textContent.includes('so {first}')")
        typed = "Object.fromEntries([...document.querySelectorAll('textarea')].map(area => [area.name, area.value]))"
        assert page.value(typed) == row
        for _ in range(3):
            page.press("Tab")
        assert page.value("document.activeElement.type") == "submit"
        page.press(" ")
        place, again = page.wait_for(f"{RESULTS}.length == 2 && {RESULTS}")
        assert again == colour

        page.value("document.querySelectorAll('textarea')[0].value = ' '")
        page.press(" ")
        assert page.wait_for("document.getElementById('error').textContent") == "row 0: field 'second' is empty"
        assert len(page.requests) >= 5
        assert all(url.startswith((endpoint.client.url, "data:")) for url in page.requests)
    for shown, task in ((colour, "colour"), (place, "place")):
        assert shown.startswith(f"{task}: ") and all(text in shown for text in row.values())
        lines = shown.split("\n")
        for word, score in endpoint.client.predict(task, [row])[1]["scores"][0].items():
            assert float(lines[lines.index(word) + 1].rstrip("%")) == pytest.approx(100 * score, abs=0.051)
