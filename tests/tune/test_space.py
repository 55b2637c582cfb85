"""Search spaces: what is refused, in one clear line, and what is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supmer.config import Config
from supmer.config.load import validate, value_of, with_settings
from supmer.corpus.clustering import min_num_clusters
from supmer.errors import UserError
from supmer.tune.checks import SEARCHABLE, check_space, check_sweep
from supmer.tune.space import draw, grid_points, settings_of
from supmer.tune.trial_config import store_configs

CONDITIONAL = {
    "meta.inner_lr": {"loguniform": [0.01, 10]},
    "regularizer.enabled": {"choice": [True, False]},
    "regularizer.rank": {"integer": [4, 64], "log": True, "when": {"regularizer.enabled": True}},
    "regularizer.gate": {"choice": [True, False], "when": {"regularizer.enabled": True}},
    "regularizer.gate_hidden": {"choice": [8, 24], "when": {"regularizer.gate": [True]}},
    "tasks.kinds": {"choice": [["nsp", "scc"], ["nss"]]},
    "curriculum.alpha": {"uniform": [0.5, 2]},
    "meta.order": {"choice": ["second"]},
}


def sweep(space: dict[str, Any], **tune: Any) -> Config:
    return validate({"tune": {"space": space, **tune}})


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "tune.space={}: must have at least one setting"),
        ({"meta.iner_lr": {"choice": [1]}}, "tune.space.meta.iner_lr: unknown setting; did you mean meta.inner_lr"),
        ({"inner_lr": {"choice": [1]}}, "tune.space.inner_lr: unknown setting; did you mean meta.inner_lr?"),
        ({"meta": {"choice": [1]}}, "tune.space.meta: unknown setting"),
        ({"meta.inner_lr": {"choice": []}}, "tune.space.meta.inner_lr.choice=[]: must not be empty"),
        ({"meta.inner_lr": {"loguniform": [0, 1]}}, "tune.space.meta.inner_lr.loguniform=[0, 1]: must begin above 0"),
        ({"meta.inner_lr": {"uniform": [2, 1]}}, "must be [low, high] with low less than high"),
        ({"meta.inner_lr": {"uniform": 3}}, "tune.space.meta.inner_lr.uniform=3: must be [low, high]"),
        ({"meta.inner_lr": {"unifrom": [1, 2]}}, "unifrom: unknown setting; did you mean tune.space.meta.inner_lr.uniform"),
        ({"meta.inner_lr": 0.1}, "tune.space.meta.inner_lr=0.1: must have exactly one of choice, uniform"),
        ({"meta.inner_lr": {"choice": [1], "uniform": [1, 2]}}, "must have exactly one of"),
        (
            {"meta.inner_lr": {"uniform": [-1, 1]}},
            "tune.space.meta.inner_lr: -1.0 cannot be used: meta.inner_lr=-1.0: must",
        ),
        ({"regularizer.norm": {"choice": ["row_l2", "l3"]}}, "tune.space.regularizer.norm: l3 cannot be used"),
        ({"meta.inner_steps": {"uniform": [1.5, 3]}}, "tune.space.meta.inner_steps: 1.5 cannot be used"),
        ({"train.workers": {"choice": [1]}}, "tune.space.train.workers: cannot be searched, it says where or how fast"),
        ({"run.name": {"choice": ["a"]}}, "tune.space.run.name: cannot be searched"),
        ({"tune.seed": {"choice": [1]}}, "tune.space.tune.seed: unknown setting"),
        ({"meta.inner_steps": {"choice": ["1", "01"]}}, "tune.space.meta.inner_steps.choice=[1, 1]: must not have 1 twice"),
        (
            {"a": {"cases": {"x": {"meta.order": "first"}}}, "b": {"cases": {"y": {"meta.order": "second"}}}},
            "tune.space.b.cases.y.meta.order: is set by the cases of tune.space.a as well",
        ),
        ({"a": {"cases": {"x": {"meta.ordr": "first"}}}}, "tune.space.a.cases.x.meta.ordr: unknown setting"),
        (
            {"a": {"cases": {"x": {"meta.order": "first"}}}, "meta.order": {"choice": ["first"]}},
            "tune.space.a.cases.x.meta.order: is a dimension of its own as well",
        ),
        (
            {"meta.pooling": {"choice": ["all"], "when": {"meta.order": "second"}}},
            "tune.space.meta.pooling.when.meta.order=second: never holds, meta.order is first",
        ),
        (
            {"meta.pooling": {"choice": ["all"], "when": {"order": 1}}},
            "meta.pooling.when.order=1: unknown setting",
        ),
        (
            {"meta.order": {"choice": ["first"]}, "meta.inner_steps": {"choice": [2], "when": {"meta.order": "second"}}},
            "tune.space.meta.inner_steps.when.meta.order=second: never holds in this space",
        ),
        (
            {
                "meta.order": {"choice": ["first"], "when": {"meta.inner_steps": 2}},
                "meta.inner_steps": {"choice": [2], "when": {"meta.order": "first"}},
            },
            "conditions depend on each other in a circle",
        ),
        ({"corpus.validation_fraction": {"uniform": [0.1, 0.2]}}, "each value needs its own task store"),
        ({"clusters.num_clusters": {"integer": [10, 900]}}, "would need more than 50 task stores"),
    ],
)
def test_bad_space_is_one_clear_line(space: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        check_sweep(sweep(space, scheduler="none"))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ({"objectives": ["validation_loss"]}, "tune.objectives=validation_loss: no trial reports it; did you mean"),
        ({"objectives": ["fewshot_dev_score"]}, "needs fewshot.tasks, which names no task here"),
        ({"objectives": ["validation_query_loss", "validation_query_loss_nsp"]}, "tune.scheduler=asha: must be none"),
        ({"searcher": "grid"}, "tune.searcher=grid: needs a finite space, tune.space.meta.inner_lr is loguniform"),
        ({"num_trials": None}, "tune.num_trials=null: must be a number unless tune.searcher=grid"),
        ({"scheduler": "pbt"}, "tune.scheduler=pbt: must be none, asha or median. Population-based training is not offered"),
        ({"grace_steps": 200_000}, "tune.grace_steps=200000: must be at most meta.steps=100000"),
        ({"grace_steps": 10}, "train.validate_every=1000: must be at most tune.grace_steps=10"),
    ],
)
def test_bad_sweep_is_one_clear_line(tune: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        check_sweep(sweep({"meta.inner_lr": {"loguniform": [0.1, 1]}}, **tune))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("space", [{"meta.steps": {"choice": [9, 12]}}, {"size": {"cases": {"long": {"meta.steps": 12}}}}])
def test_runs_of_unequal_length_are_not_stopped_early(space: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"tune\.scheduler=asha: must be none where tune\.space has meta\.steps"):
        check_sweep(sweep(space))
    check_sweep(sweep(space, scheduler="none"))


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32 - 1))
def test_drawn_points_obey_ranges_and_conditions(seed: int) -> None:
    config = sweep(CONDITIONAL)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    point = settings_of(config.tune.space, draw(config, study.ask()))
    assert 0.01 <= point["meta.inner_lr"] <= 10
    assert point["meta.order"] == "second"
    assert point["tasks.kinds"] in (["nsp", "scc"], ["nss"])
    assert ("regularizer.rank" in point) == ("regularizer.gate" in point) == point["regularizer.enabled"]
    assert ("regularizer.gate_hidden" in point) == point.get("regularizer.gate", False)
    drawn = with_settings(config, point)
    assert all(value_of(drawn, name) == value for name, value in point.items())


def test_logarithmic_ranges_are_drawn_evenly_on_their_scale() -> None:
    config = sweep({"meta.inner_lr": {"loguniform": [1e-4, 1]}, "regularizer.rank": {"integer": [1, 1000], "log": True}})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    points = [draw(config, study.ask()) for _ in range(400)]
    assert np.mean([point["meta.inner_lr"] < 1e-2 for point in points]) == pytest.approx(0.5, abs=0.08)
    assert np.mean([point["regularizer.rank"] < 32 for point in points]) == pytest.approx(0.5, abs=0.08)


def test_grid_has_each_active_combination_once() -> None:
    space = {
        "regularizer.enabled": {"choice": [True, False]},
        "regularizer.hidden_layers": {"integer": [0, 2], "when": {"regularizer.enabled": True}},
        "run.seed": {"choice": [0, 1]},
    }
    config = sweep(space)
    points = [settings_of(config.tune.space, point) for point in grid_points(config) or []]
    assert len(points) == (3 + 1) * 2
    assert len({str(point) for point in points}) == len(points)
    assert all(("regularizer.hidden_layers" in point) == point["regularizer.enabled"] for point in points)
    assert grid_points(sweep(CONDITIONAL)) is None
    assert grid_points(sweep({"run.seed": {"integer": [0, 10**9]}})) is None


def test_cases_set_several_settings_together() -> None:
    space = {"ablation": {"cases": {"full": {}, "plain": {"regularizer.enabled": False, "curriculum.mode": "none"}}}}
    config = sweep(space)
    check_space(config)
    points = [settings_of(config.tune.space, point) for point in grid_points(config) or []]
    assert points == [{}, {"regularizer.enabled": False, "curriculum.mode": "none"}]


def test_a_store_is_planned_for_each_value_it_depends_on() -> None:
    space = {"clusters.num_clusters": {"choice": [50, 100]}, "meta.inner_lr": {"uniform": [0.1, 1]}}
    assert [config.clusters.num_clusters for config in store_configs(sweep(space))] == [50, 100]
    assert len(store_configs(sweep({"meta.inner_lr": {"uniform": [0.1, 1]}}))) == 1


def test_kinds_left_out_have_their_store_prepared_too() -> None:
    """Without `scc` fewer clusters must host episodes, which makes another store."""
    cases = {"full": {}, "no_scc": {"tasks.kinds": ["nsp", "nss"]}, "plain": {"curriculum.mode": "none"}}
    configs = store_configs(sweep({"ablation": {"cases": cases}}))
    assert len(configs) == len({min_num_clusters(config.tasks) for config in configs}) == 2


def test_everything_that_a_run_computes_from_can_be_searched() -> None:
    names = set(SEARCHABLE)
    sections = {name.split(".")[0] for name in names}
    assert {"meta", "regularizer", "curriculum", "prompt", "tasks", "backbone", "clusters", "corpus"} <= sections
    assert {"meta.inner_lr", "meta.prompt_lr", "run.seed", "prompt.length", "tasks.kinds", "curriculum.m"} <= names
    assert not {"run.name", "train.workers", "log.every", "corpus.store_dir"} & names
