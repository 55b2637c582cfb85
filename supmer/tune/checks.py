"""What is wrong with a sweep, found before anything starts: its space, its objectives, its early stopping."""

from __future__ import annotations

from supmer import storage
from supmer.config import Config
from supmer.config.effects import RUN_EFFECTS, fields, names_that_affect
from supmer.config.load import value_of, with_settings
from supmer.config.text import suggest
from supmer.errors import UserError, setting_error
from supmer.tune.objectives import FEWSHOT, QUERY_LOSS
from supmer.tune.schedule import grace_steps
from supmer.tune.space import (
    MAX_GRID,
    Draws,
    finite_values,
    grid_points,
    in_order,
    is_searched,
    labels,
    meaning,
    settings_of,
)
from supmer.tune.trial_config import store_configs

SETTINGS = tuple(name for name, _ in fields(Config) if not name.startswith("tune."))
SEARCHABLE = tuple(name for name in names_that_affect(Config, *RUN_EFFECTS) if name in SETTINGS)
"""Settings that decide what is computed; the others may change while a run goes on."""


def check_sweep(config: Config) -> None:
    """Find the user's mistakes.

    Raises:
        UserError: the space, the objectives or the early stopping cannot work, or the place of the results cannot.
    """
    tune, train = config.tune, config.train
    storage.check_local("run.dir", config.run.dir, "a sweep")
    if tune.num_trials is None and tune.searcher != "grid":
        raise setting_error("tune.num_trials", "null", f"must be a number unless tune.searcher=grid, here {tune.searcher}")
    check_space(config)

    reported = [QUERY_LOSS, *(f"{QUERY_LOSS}_{kind}" for kind in config.tasks.kinds), FEWSHOT]
    for name in tune.objectives:
        if name == FEWSHOT and not config.fewshot.tasks:
            raise setting_error("tune.objectives", name, "needs fewshot.tasks, which names no task here")
        if name not in reported:
            raise setting_error("tune.objectives", name, f"no trial reports it; {suggest(name, reported, '')}")
        if name != FEWSHOT and is_searched(tune.space, "tasks.kinds"):
            wrong = "does not compare trials of different tasks.kinds, because it is a loss on those kinds"
            raise setting_error("tune.objectives", name, f"{wrong}; use {FEWSHOT}")
    if len(set(tune.objectives)) < len(tune.objectives):
        raise setting_error("tune.objectives", tune.objectives, "must not repeat an objective")
    if len(tune.objectives) > 1 and tune.scheduler != "none":
        allowed = "must be none with several tune.objectives, because a scheduler compares one"
        raise setting_error("tune.scheduler", tune.scheduler, allowed)
    if FEWSHOT in tune.objectives and train.validate_every % train.checkpoint_every:
        allowed = f"must divide train.validate_every={train.validate_every}: {FEWSHOT} is tuned from a rung's checkpoint"
        raise setting_error("train.checkpoint_every", train.checkpoint_every, allowed)

    if tune.scheduler != "none":
        if is_searched(tune.space, "meta.steps"):
            wrong = "must be none where tune.space has meta.steps, as it compares trials at equal meta-steps of equal runs"
            raise setting_error("tune.scheduler", tune.scheduler, wrong)
        if grace_steps(config) > config.meta.steps:
            raise setting_error("tune.grace_steps", tune.grace_steps, f"must be at most meta.steps={config.meta.steps}")
        if train.validate_every > grace_steps(config):
            limit = f"tune.grace_steps={tune.grace_steps}" if tune.grace_steps else f"meta.steps={config.meta.steps}"
            why = f"with tune.scheduler={tune.scheduler}, because trials report when they validate"
            raise setting_error("train.validate_every", train.validate_every, f"must be at most {limit} {why}")

    store_configs(config)
    if tune.searcher == "grid":
        for name, dimension in tune.space.items():
            if finite_values(dimension) is None:
                allowed = f"needs a finite space, tune.space.{name} is {dimension.kind}; use choice"
                raise setting_error("tune.searcher", "grid", allowed)
        if grid_points(config) is None:
            allowed = f"this space may have more than {MAX_GRID:,} points; use random or tpe"
            raise setting_error("tune.searcher", "grid", allowed)


def check_space(config: Config) -> None:
    """Find what is wrong with a space before anything starts; each value is tried in the configuration.

    Raises:
        UserError: a setting is unknown or not searchable, a condition cannot be met, or a value is out of range.
    """
    space = config.tune.space
    if not space:
        raise setting_error("tune.space", {}, "must have at least one setting to search, see configs/sweeps/")
    always_set: dict[str, str] = {}
    for name, dimension in space.items():
        choice, cases = dimension.choice or [], (dimension.cases or {}).items()
        of_cases = [(f"tune.space.{name}.cases.{case}.{key}", key) for case, settings in cases for key in settings]
        for where, setting in [(f"tune.space.{name}", name)] if dimension.cases is None else of_cases:
            if setting not in SETTINGS:
                raise UserError(f"{where}: unknown setting; {_nearest(setting)}")
            if setting not in SEARCHABLE:
                raise UserError(f"{where}: cannot be searched, it says where or how fast a run goes, not what it computes")
            if of_cases and setting in space:
                raise UserError(f"{where}: is a dimension of its own as well")
            if of_cases and not dimension.when and (other := always_set.setdefault(setting, name)) != name:
                raise UserError(f"{where}: is set by the cases of tune.space.{other} as well")
        if repeated := [value for number, value in enumerate(choice) if value in choice[:number]]:
            raise setting_error(f"tune.space.{name}.choice", choice, f"must not have {repeated[0]} twice")
    for name in in_order(space):
        condition = _condition_draws(config, name)
        for value in space[name].span or labels(space[name]):
            try:
                with_settings(config, settings_of(space, {**condition, name: value}))
            except UserError as error:
                shown = meaning(space[name], value)
                raise UserError(f"tune.space.{name}: {shown} cannot be used: {error}") from error


def _nearest(name: str) -> str:
    ends = [known for known in SEARCHABLE if known.split(".")[-1] == name.split(".")[-1]]
    return "did you mean " + ", ".join(ends) + "?" if ends else suggest(name, SEARCHABLE, "")


def _condition_draws(config: Config, name: str) -> Draws:
    """Return draws under which a dimension is active.

    Raises:
        UserError: there are none.
    """
    space = config.tune.space
    draws: Draws = {}
    for other, wanted in space[name].when.items():
        where, allowed = f"tune.space.{name}.when.{other}={wanted}", wanted if isinstance(wanted, list) else [wanted]
        if other in space:
            values = finite_values(space[other]) or []
            candidates = allowed if space[other].integer else values
            found = [value for value in candidates if value in values and meaning(space[other], value) in allowed]
            if not found:
                raise UserError(f"{where}: never holds in this space")
            draws |= {**_condition_draws(config, other), other: found[0]}
        elif other not in SETTINGS:
            raise UserError(f"{where}: unknown setting; {_nearest(other)}")
        elif value_of(config, other) not in allowed:
            raise UserError(f"{where}: never holds, {other} is {value_of(config, other)} and is not searched")
    return draws
