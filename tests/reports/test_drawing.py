"""Figures whose lines and bars can be told from each other."""

from __future__ import annotations

from supmer.reports.drawing import bars, curves, panels

NAMES = [f"name {number}" for number in range(25)]


def test_more_curves_than_colours_differ_in_their_dashes() -> None:
    found = {name: ([1.0, 2.0], [number, number + 1.0]) for number, name in enumerate(NAMES)}
    for figure in (curves(found, "steps"), panels({"all": found}, "steps", "loss")):
        lines = figure.axes[0].get_lines()
        assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(NAMES)


def test_more_bars_than_colours_differ_in_their_hatches() -> None:
    figure = bars(["sst-2"], {name: [(0.5, 0.0)] for name in NAMES}, "score")
    looks = {(bar.get_facecolor(), bar.get_hatch()) for bar in figure.axes[0].patches}
    assert len(looks) == len(NAMES)


def test_a_curve_of_one_point_is_seen() -> None:
    one, two = curves({"one": ([3.0], [1.0]), "two": ([3.0, 4.0], [1.0, 2.0])}, "steps").axes[0].get_lines()
    assert one.get_marker() == "o" and two.get_marker() in ("", "None")
