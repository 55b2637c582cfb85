"""The notebook of the tour runs from top to bottom."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_the_tour_runs(folder: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="needs the extra docs")
    nbformat = pytest.importorskip("nbformat", reason="needs the extra docs")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(ROOT / "docs" / "tour.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=800, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    written = str([cell.get("outputs") for cell in notebook.cells])
    assert "error: " not in written and "Traceback" not in written
    assert (folder / "runs" / "tour" / "fewshot" / "report.html").exists()
    last = notebook.cells[-1].outputs[0].text
    assert last.split()[0] in ("tables", "science", "learning", "graphs")
