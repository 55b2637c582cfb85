"""Each shipped sweep has a sound space; a base is laid under a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts import ROOT, call

from supmer.config.load import load_config
from supmer.tune.checks import check_sweep

SHIPPED = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))
EVIDENCE = [ROOT / "experiments" / "evidence" / name for name in ("ablations.yaml", "rates.yaml")]
SWEEPS = [*SHIPPED, *EVIDENCE]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_sweep_is_sound(path: Path) -> None:
    check_sweep(load_config(path))


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
