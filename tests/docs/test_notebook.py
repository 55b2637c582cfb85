"""The notebook of the tour runs from top to bottom."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_the_tour_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="needs the extra docs")
    nbformat = pytest.importorskip("nbformat", reason="needs the extra docs")
    command = tmp_path / "bin" / "supmer"
    command.parent.mkdir()
    program = "from supmer.jobs.command import main; main()"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{program}" "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{os.environ.get('PYTHONPATH', '')}")
    notebook = nbformat.read(ROOT / "docs" / "tour.ipynb", as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=800, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    written = str([cell.get("outputs") for cell in notebook.cells])
    assert "error: " not in written and "Traceback" not in written
    assert (tmp_path / "runs" / "tour" / "fewshot" / "report.html").exists()
    last = notebook.cells[-1].outputs[0].text
    assert last.split()[0] in ("tables", "science", "learning", "graphs")
