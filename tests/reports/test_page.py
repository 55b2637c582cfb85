"""The pages as people see them: run report, few-shot report, sweep page and comparison in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import optuna
import pytest
from fewshot_material import result_of

from supmer.compare.runs import read_runs, render
from supmer.config.load import validate
from supmer.fewshot.cells import Cell
from supmer.fewshot.comparison_files import write_files
from supmer.fewshot.data import Row
from supmer.fewshot.results import Results
from supmer.reports.drawing import curves
from supmer.reports.page import figure, heading, page, paragraph, wide
from supmer.reports.tables import Table
from supmer.tune.page import write_page
from supmer.tune.result import TrialRecord
from supmer.tune.space import draw

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")

PROBE = """<!doctype html><body><script>
const shown = Promise.all(PAGES.map(text => new Promise(done => {
  const frame = document.createElement("iframe");
  frame.width = 360;
  frame.srcdoc = text;
  frame.onload = () => {
    const inner = frame.contentDocument;
    const texts = selector => [...inner.querySelectorAll(selector)].map(found => found.innerText);
    const look = inner.defaultView.getComputedStyle(inner.body);
    done({headings: texts("h1,h2,h3"), cells: texts("td"), links: texts("nav a"), width: inner.documentElement.scrollWidth,
          figures: texts("svg").length, drawn: [...inner.querySelectorAll("svg")].every(svg => svg.getBBox().width > 0),
          look: look.color + look.backgroundColor});
  };
  document.body.append(frame);
})));
shown.then(found => { document.body.innerHTML = ""; document.body.append("FOUND" + JSON.stringify(found) + "END"); });
</script>"""
"""Opens pages as wide as a phone and writes what is to be seen in them into its own."""


def test_texts_are_escaped_and_figures_take_the_colours_of_the_page() -> None:
    shown = page(
        "<a>",
        "<b>",
        heading("<c>", 3),
        paragraph("<d>"),
        wide(Table(["<e>"], [["<f>"]])),
        figure(curves({"<g>": ([1], [2])}, "steps"), "<h>"),
        links={"<i>": "i.html"},
    )
    assert all(f"&lt;{letter}&gt;" in shown for letter in "abcdefghi")
    body = shown.split("</head>")[1]
    assert "#000000" not in body and "currentColor" in body and "fill: #ffffff" not in body


def make_pages(folder: Path) -> dict[str, Path]:
    """Write a sweep of one trial, the trial's report, and its few-shot results."""
    run = folder / "sweep" / "trials" / "t000"
    config = validate(
        {"run": {"dir": str(folder), "name": "sweep"}, "tune": {"space": {"meta.inner_lr": {"loguniform": [0.01, 1]}}}}
    )
    draws = draw(config, optuna.create_study().ask())
    record = TrialRecord(
        trial="t000", status="complete", settings={}, draws=draws, directory=str(run), command="supmer metatrain <again>"
    )
    record.add_rung(20, {"validation_query_loss": 1.75})
    run.mkdir(parents=True)
    (folder / "sweep" / "trials.jsonl").write_text("")
    shared = {"support_loss": 2.0, "gate": 0.5, "similarity": 0.5, "mixup_b": 0.1, "tokens": 10, "data_wait_seconds": 0.0}
    rows = [
        {"step": step, "split": split, "kind": "nsp", "query_loss": 3.25 - step / 10, "step_seconds": 0.5, **shared}
        for step in range(16)
        for split in ("train", "validation")
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (run / "config.yaml").write_text("run: {name: <t000>}\nmeta: {inner_lr: 7.0}\n")
    results = Results(str(run))
    for method, score in (("prompt_tuning", 0.5), ("supmer", 0.75)):
        for seed in range(2):
            results.add(result_of(Cell("sst-2", 0, method, seed, 16, seed), score + seed / 8), "key")
    write_files(results, ["prompt_tuning", "supmer"], {"sst-2": [Row({"text": "a <good> film " * 40}, 0)] * 2})
    comparison = folder / "comparison.html"
    comparison.write_text(render(read_runs([str(run)]), str(folder)))
    return {
        "run": run / "report.html",
        "few-shot": run / "fewshot" / "report.html",
        "sweep": Path(write_page(config, [record])),
        "comparison": comparison,
    }


def test_pages_in_a_browser(tmp_path: Path) -> None:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed; on Debian: apt-get install chromium")
    pages = make_pages(tmp_path)
    probe = tmp_path / "probe.html"
    texts = json.dumps([path.read_text() for path in pages.values()]).replace("</", r"<\/")
    probe.write_text(PROBE.replace("PAGES", texts))

    def look(*flags: str) -> dict[str, dict[str, object]]:
        always = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr"]
        command = [program, *always, f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000", *flags]
        done = subprocess.run(
            [*command, "--dump-dom", probe.as_uri()], capture_output=True, text=True, timeout=300, check=True
        )
        assert "CONSOLE" not in done.stderr, done.stderr
        found = re.search(r"FOUND(.*)END", done.stdout, re.DOTALL)
        assert found, done.stdout[-2000:]
        text = found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        return dict(zip(pages, json.loads(text), strict=True))

    light = look()
    run, fewshot, sweep = light["run"], light["few-shot"], light["sweep"]
    assert {"t000", "Meta-validation query loss", "Gate z and gradient similarity"} <= set(run["headings"])
    assert run["cells"] == ["nsp", "3.2500", "1.7500", "15"] and run["links"] == ["Few-shot results", "The sweep"]
    assert {"Few-shot results", "Differences", "sst-2 (K=16)", "Rows that are often wrong"} <= set(fewshot["headings"])
    scores = np.asarray([[50, 62.5], [75, 87.5]])
    for method, found in zip(("prompt_tuning", "supmer"), scores, strict=True):
        numbers = [f"{number:.1f}" for number in (found.mean(), found.std(ddof=1), found[0])]
        assert "|".join([method, *numbers, "2", "1.0"]) in "|".join(fewshot["cells"])
    (wrong,) = (cell for cell in fewshot["cells"] if cell.startswith("a <good> film"))
    assert len(wrong) <= 160 and fewshot["links"] == ["The run"]
    assert "Trials" in sweep["headings"] and sweep["links"] == ["t000"] and "supmer metatrain <again>" in sweep["cells"]
    comparison = light["comparison"]
    assert {"Settings that differ", "Meta-validation", "Few-shot scores (%)"} <= set(comparison["headings"])
    assert "sst-2|prompt_tuning|56.2 ± 8.8 (50.0)" in "|".join(comparison["cells"]) and comparison["links"] == ["t000"]
    assert "meta.inner_lr|7.0" in "|".join(comparison["cells"])
    for found in light.values():
        assert found["width"] <= 360 and found["drawn"] and found["figures"]  # only tables and figures scroll sideways
    dark = look("--blink-settings=preferredColorScheme=0")
    assert all(dark[name]["look"] != light[name]["look"] for name in pages)
