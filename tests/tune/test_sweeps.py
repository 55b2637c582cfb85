"""Each shipped sweep: valid through the real command line, its space sound, its twin a small version of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts import ROOT, call

from supmer.cli import load_config
from supmer.tune.run import check_sweep
from supmer.tune.space import grid_points

SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))
FULL = [path for path in SWEEPS if not path.stem.endswith("_quickstart") and not path.stem.startswith("evidence_")]
"""Those for large machines; those of the evidence are for a small one already."""


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_sweep_is_sound_and_says_how_to_run_it(path: Path) -> None:
    head = path.read_text().split("\n\n")[0]
    assert head.startswith(f"# python pipeline/tune.py --config configs/sweeps/{path.name}")
    assert "Hardware:" in head and "Time:" in head
    check_sweep(load_config(path))


@pytest.mark.parametrize("path", FULL, ids=lambda path: path.stem)
def test_each_has_a_twin_that_is_smaller(path: Path) -> None:
    full, twin = load_config(path), load_config(path.with_stem(f"{path.stem}_quickstart"))
    assert set(twin.tune.space) <= set(full.tune.space)
    assert (twin.tune.searcher, twin.tune.objectives) == (full.tune.searcher, full.tune.objectives)
    assert twin.meta.steps < full.meta.steps
    assert twin.backbone.name == "embedded"


@pytest.mark.parametrize(
    ("name", "num_trials"), [("ablations", 33), ("ablations_quickstart", 11), ("evidence_ablations", 11)]
)
def test_ablations_leave_out_each_part_once(name: str, num_trials: int) -> None:
    config = load_config(ROOT / "configs" / "sweeps" / f"{name}.yaml")
    cases = config.tune.space["ablation"].cases
    assert cases is not None and cases["full"] == {}
    assert len({str(case) for case in cases.values()}) == len(cases) == 11
    assert len(grid_points(config) or []) == num_trials


def test_printed_sweep_reads_back_the_same(tmp_path: Path) -> None:
    def printed(path: Path) -> str:
        finished = call("tune.py", "--config", path, "--print-config")
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    first = printed(ROOT / "configs" / "sweeps" / "regularizer.yaml")
    (tmp_path / "printed.yaml").write_text(first)
    assert printed(tmp_path / "printed.yaml") == first


def test_base_is_laid_under_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "below.yaml").write_text("run: {name: below, seed: 3}\nmeta: {steps: 7}\n")
    (tmp_path / "above.yaml").write_text("base: below.yaml\nrun: {name: above}\n")
    config = load_config(tmp_path / "above.yaml", ["meta.steps=9"])
    assert (config.run.name, config.run.seed, config.meta.steps) == ("above", 3, 9)
    (tmp_path / "beside.yaml").write_text("run: {seed: 4}\n")
    (tmp_path / "above.yaml").write_text("base: [below.yaml, beside.yaml]\nrun: {name: above}\n")
    config = load_config(tmp_path / "above.yaml")
    assert (config.run.name, config.run.seed, config.meta.steps) == ("above", 4, 7)
    (tmp_path / "below.yaml").write_text("base: above.yaml\n")
    with pytest.raises(ValueError, match=r"base=below\.yaml: must not have a base itself"):
        load_config(tmp_path / "above.yaml")
