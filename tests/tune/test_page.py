"""What a sweep leaves for people: the page, the table, `best.yaml`, and how many trials run at once."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from rich.console import Console

from supmer.config import Config
from supmer.config.load import load_config, validate, value_of
from supmer.errors import UserError
from supmer.tune.checks import check_sweep
from supmer.tune.page import compared_study, importances, render
from supmer.tune.result import Ledger, TrialRecord, best_of, trials_table, write_best
from supmer.tune.space import draw, settings_of
from supmer.tune.trial_config import command_of, directory_of, num_concurrent, trial_config

LOSS = "validation_query_loss"
SPACE = {
    "meta.inner_lr": {"loguniform": [0.01, 1]},
    "curriculum.m": {"uniform": [1.5, 3]},
    "regularizer.gate": {"choice": [True, False]},
    "regularizer.gate_hidden": {"integer": [8, 24], "when": {"regularizer.gate": True}},
    "prompt.length": {"choice": [20, 50]},
}


def sweep(folder: Path, **sections: Any) -> Config:
    sections.setdefault("tune", {"space": SPACE})
    return validate({"run": {"dir": str(folder), "name": "<sweep>".strip("<>")}, "meta": {"steps": 3000}, **sections})


def make_records(config: Config) -> list[TrialRecord]:
    """Return twenty trials whose loss depends on the inner rate alone; every third is stopped, one fails."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    records = []
    for number in range(20):
        name = f"t{number:03d}"
        draws = draw(config, study.ask())
        settings = settings_of(config.tune.space, draws)
        record = TrialRecord(
            trial=name,
            status="stopped" if number % 3 == 1 else "complete",
            settings=settings,
            draws=draws,
            directory=directory_of(config, name),
            command=command_of(config, name),
        )
        for step in (1000,) if record.status == "stopped" else (1000, 2000, 3000):
            record.add_rung(step, {LOSS: (np.log10(settings["meta.inner_lr"]) + 1) ** 2 + 100 / step})
        records.append(record)
    records[4].status, records[4].rungs, records[4].error = "failed", [], "a <b> crashed"
    return records


def test_page_is_whole_and_refers_to_nothing_outside(tmp_path: Path) -> None:
    config = sweep(tmp_path)
    records = make_records(config)
    page = render(config, records)
    assert not re.search(r"<(script|link|img|iframe)\b|\bsrc=|@import|url\(https?:", page)
    figures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(figures) == 3  # curves, parallel coordinates, importance
    for figure in figures:
        ElementTree.fromstring(figure)
    for record in records:
        assert f">{record.trial}</td>" in page
    assert "a &lt;b&gt; crashed" in page
    assert "metatrain.py --config" in page


def luminance(colour: str) -> float:
    """Return the relative luminance of `#rrggbb`, as WCAG 2.2 defines it."""
    parts = np.asarray([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    return float(np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])


def test_no_trial_fades_into_a_light_or_a_dark_page(tmp_path: Path) -> None:
    config = sweep(tmp_path)
    coordinates = re.findall(r"<svg.*?</svg>", render(config, make_records(config)), re.DOTALL)[1]
    lines = re.search(r'<g id="LineCollection_1">.*?</g>', coordinates, re.DOTALL)
    assert lines
    colours = set(re.findall(r"stroke: (#\w{6})", lines[0]))
    assert len(colours) > 5
    for colour in colours:
        for back in ("#ffffff", "#14161a"):
            low, high = sorted([luminance(colour), luminance(back)])
            assert (high + 0.05) / (low + 0.05) > 2


def test_page_of_a_sweep_that_has_not_begun(tmp_path: Path) -> None:
    assert "0 trials" in render(sweep(tmp_path), [])


def test_importance_finds_the_setting_that_matters(tmp_path: Path) -> None:
    config = sweep(tmp_path)
    step, study = compared_study(config, make_records(config), LOSS)
    assert step == 1000  # the last that the stopped ones reached too
    found = importances(study)
    assert found["meta.inner_lr"] > 0.8
    assert sum(found.values()) == pytest.approx(1)


def test_table_has_a_row_for_each_trial_the_best_first(tmp_path: Path) -> None:
    config = sweep(tmp_path)
    records = make_records(config)
    console = Console(file=io.StringIO(), width=200)
    console.print(trials_table(config, records).terminal())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    best = best_of(config, records)
    assert best is not None
    rows = re.findall(r"(?m)^ *(t\d{3}) ", text)
    assert rows[0] == best.trial
    assert sorted(rows) == [record.trial for record in records]
    assert "13 complete, 6 stopped, 1 failed" in text


def test_best_is_a_configuration_that_metatrain_takes(tmp_path: Path) -> None:
    config = sweep(tmp_path, train={"cpus_per_worker": 2.5})
    best = best_of(config, make_records(config))
    assert best is not None
    written = load_config(write_best(config, best))
    for name, value in best.settings.items():
        assert value_of(written, name) == value
    assert (written.run.name, written.run.dir, written.tune.space) == ("sweep-best", str(tmp_path), {})
    trial = trial_config(config, best.trial, best.settings)
    assert trial.run_dir == str(tmp_path / "sweep" / "trials" / best.trial)
    assert trial.train.threads_per_worker == written.train.threads_per_worker == 2
    assert trial.model_copy(update={"run": written.run}) == written


@pytest.mark.parametrize(
    ("sections", "total", "expected"),
    [
        ({}, {"CPU": 2}, 1),  # 1.25 CPUs each
        ({"train": {"cpus_per_worker": 0.75}}, {"CPU": 2}, 2),
        ({"train": {"cpus_per_worker": 0.1, "cpus_per_builder": 0.1}}, {"CPU": 1}, 5),
        ({"train": {"workers": 2}}, {"CPU": 10}, 4),
        ({"train": {"workers": 2}}, {"CPU": 1}, 1),
        ({"train": {"gpus_per_worker": 0.25}}, {"CPU": 100, "GPU": 2}, 8),
        ({"train": {"gpus_per_worker": 1, "workers": 2}}, {"CPU": 100, "GPU": 1, "limit_gpus": 8}, 4),
        ({"tune": {"space": SPACE, "max_concurrent": 3}}, {"CPU": 100}, 3),
        ({"tune": {"space": SPACE, "objectives": ["fewshot_dev_score"]}}, {"CPU": 9}, 4),  # 2.25 CPUs each
    ],
)
def test_as_many_trials_at_once_as_fit(
    tmp_path: Path, sections: dict[str, Any], total: dict[str, float], expected: int
) -> None:
    assert num_concurrent(sweep(tmp_path, **sections), total) == expected


def test_losses_on_different_kinds_are_not_compared(tmp_path: Path) -> None:
    for space in ({"tasks.kinds": {"choice": [["nsp"]]}}, {"mix": {"cases": {"few": {"tasks.kinds": ["nsp"]}}}}):
        tune = {"space": space, "scheduler": "none"}
        with pytest.raises(UserError, match=r"tune\.objectives=validation_query_loss: does not compare"):
            check_sweep(sweep(tmp_path, tune=tune))
        check_sweep(sweep(tmp_path, tune={**tune, "objectives": ["fewshot_dev_score"]}, fewshot={"tasks": ["library-docs"]}))


def test_damaged_ledger_is_told(tmp_path: Path) -> None:
    (tmp_path / "trials.jsonl").write_text('{"trial": "t000"\n')
    with pytest.raises(UserError, match="is damaged"):
        Ledger(str(tmp_path))
