"""The picture of a cluster's nodes over time."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

SCRIPT = Path(__file__).resolve().parents[2] / "cluster" / "local" / "watch_nodes.py"


def test_plot_shows_each_role(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = [{"head": 1}, {"head": 1, "data": 1}, {"head": 1, "data": 2, "trainer": 2}, {"head": 1}]
    rows = [json.dumps({"seconds": float(second), "nodes": nodes}) for second, nodes in enumerate(moments)]
    (tmp_path / "nodes.jsonl").write_text("\n".join(rows) + "\n")
    image = tmp_path / "nodes.png"
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "plot", str(tmp_path / "nodes.jsonl"), str(image)])
    runpy.run_path(str(SCRIPT), run_name="__main__")  # here, which spares importing Ray again
    colours = {colour for _, colour in Image.open(image).convert("RGB").quantize(16).convert("RGB").getcolors(2**20)}
    for role in ((76, 146, 195), (255, 152, 62), (86, 179, 86)):  # head, data, trainer at 80 % opacity
        assert min(sum(abs(a - b) for a, b in zip(role, colour, strict=True)) for colour in colours) < 60
