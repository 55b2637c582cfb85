"""Search spaces: how one is checked, and how a point is drawn from it.

A point is first a dict of *draws*, one for each active dimension, of the types that Optuna stores (numbers, and the JSON
text of what is chosen from a list), and then the dict of *settings* that the draws stand for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from graphlib import CycleError, TopologicalSorter
from typing import Any

from optuna.trial import BaseTrial

from supmer.config import Config
from supmer.config.effects import RUN_EFFECTS, fields, names_that_affect
from supmer.config.load import value_of, with_settings
from supmer.config.text import suggest
from supmer.config.tune import Dimension
from supmer.errors import UserError, setting_error

MAX_GRID = 10_000

Draws = dict[str, Any]
Settings = dict[str, Any]
Space = Mapping[str, Dimension]


def draw(config: Config, trial: BaseTrial) -> Draws:
    """Draw a point: dimensions in an order in which those that others depend on come first."""
    draws: Draws = {}
    for name in in_order(config.tune.space):
        dimension = config.tune.space[name]
        if not _is_active(config, dimension, draws):
            continue
        if span := dimension.uniform or dimension.loguniform:
            draws[name] = trial.suggest_float(name, *span, log=dimension.kind == "loguniform")
        elif dimension.integer:
            draws[name] = trial.suggest_int(name, *dimension.integer, log=dimension.log)
        else:
            draws[name] = trial.suggest_categorical(name, _labels(dimension))
    return draws


def settings_of(space: Space, draws: Draws) -> Settings:
    """Return the settings that the draws stand for."""
    settings: Settings = {}
    for name, value in draws.items():
        cases = space[name].cases
        settings |= {name: _meaning(space[name], value)} if cases is None else cases[value]
    return settings


def settings_searched(name: str, dimension: Dimension) -> set[str]:
    """Return the settings that a dimension sets: the one it is named after, or those of its cases."""
    return {name} if dimension.cases is None else {setting for settings in dimension.cases.values() for setting in settings}


def is_searched(space: Space, setting: str) -> bool:
    """Return whether trials may differ in a setting."""
    return any(setting in settings_searched(name, dimension) for name, dimension in space.items())


def grid_points(config: Config) -> list[Draws] | None:
    """Return all points of a finite space, the last dimension varying fastest; None if it is not finite, or very large."""
    points: list[Draws] = [{}]
    for name in in_order(config.tune.space):
        dimension = config.tune.space[name]
        values = _finite_values(dimension)
        if values is None or len(points) * len(values) > MAX_GRID:
            return None
        longer = ([{**p, name: value} for value in values] if _is_active(config, dimension, p) else [p] for p in points)
        points = [point for each in longer for point in each]
    return points


def check_grid(config: Config) -> None:
    """Raise UserError if the space has no grid."""
    for name, dimension in config.tune.space.items():
        if _finite_values(dimension) is None:
            allowed = f"needs a finite space, tune.space.{name} is {dimension.kind}; use choice"
            raise setting_error("tune.searcher", "grid", allowed)
    if grid_points(config) is None:
        raise setting_error("tune.searcher", "grid", f"this space may have more than {MAX_GRID:,} points; use random or tpe")


@cache
def setting_names() -> tuple[str, ...]:
    """Return the names of all settings of a run, those of sweeps left out."""
    return tuple(name for name, _ in fields(Config) if not name.startswith("tune."))


def is_free(name: str) -> bool:
    """Return whether a setting may change while a run goes on; such settings are not searched."""
    return name not in names_that_affect(Config, *RUN_EFFECTS)


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
        if dimension.cases is None:
            _check_setting(f"tune.space.{name}", name)
        choice = dimension.choice or []
        if repeated := [value for number, value in enumerate(choice) if value in choice[:number]]:
            raise setting_error(f"tune.space.{name}.choice", choice, f"must not have {repeated[0]} twice")
        for case, settings in (dimension.cases or {}).items():
            for setting in settings:
                where = f"tune.space.{name}.cases.{case}.{setting}"
                _check_setting(where, setting)
                if setting in space:
                    raise UserError(f"{where}: is a dimension of its own as well")
                if not dimension.when and (other := always_set.setdefault(setting, name)) != name:
                    raise UserError(f"{where}: is set by the cases of tune.space.{other} as well")
    for name in in_order(space):
        condition = _condition_draws(config, name)
        for value in space[name].span or _labels(space[name]):
            try:
                with_settings(config, settings_of(space, {**condition, name: value}))
            except UserError as error:
                shown = _meaning(space[name], value)
                raise UserError(f"tune.space.{name}: {shown} cannot be used: {error}") from error


def in_order(space: Space) -> list[str]:
    """Return the dimensions so that each comes after those that its condition names.

    Raises:
        UserError: conditions depend on each other in a circle.
    """
    try:
        return list(TopologicalSorter({name: [d for d in space[name].when if d in space] for name in space}).static_order())
    except CycleError as error:
        raise UserError(f"tune.space.{error.args[1][0]}.when: conditions depend on each other in a circle") from error


def _is_active(config: Config, dimension: Dimension, draws: Draws) -> bool:
    """Return whether a dimension's condition holds; one on a dimension that is not active itself does not."""
    space = config.tune.space
    for name, wanted in dimension.when.items():
        if name in space and name not in draws:
            return False
        value = _meaning(space[name], draws[name]) if name in space else value_of(config, name)
        if value not in (wanted if isinstance(wanted, list) else [wanted]):
            return False
    return True


def _labels(dimension: Dimension) -> list[str]:
    """Return what stands for the values of a list; Optuna itself takes no lists as values."""
    return [json.dumps(value) for value in dimension.choice or []] if dimension.cases is None else list(dimension.cases)


def _meaning(dimension: Dimension, drawn: Any) -> Any:
    return json.loads(drawn) if dimension.kind == "choice" else drawn


def _finite_values(dimension: Dimension) -> Sequence[Any] | None:
    if dimension.integer:
        low, high = dimension.integer
        return range(low, high + 1)
    return None if dimension.span else _labels(dimension)


def _check_setting(where: str, setting: str) -> None:
    if setting not in setting_names():
        raise UserError(f"{where}: unknown setting; {_nearest(setting)}")
    if is_free(setting):
        raise UserError(f"{where}: cannot be searched, it says where or how fast a run goes, not what it computes")


def _nearest(name: str) -> str:
    names = [known for known in setting_names() if not is_free(known)]
    ends = [known for known in names if known.split(".")[-1] == name.split(".")[-1]]
    return "did you mean " + ", ".join(ends) + "?" if ends else suggest(name, names, "")


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
            values = _finite_values(space[other]) or []
            candidates = allowed if space[other].integer else values
            found = [value for value in candidates if value in values and _meaning(space[other], value) in allowed]
            if not found:
                raise UserError(f"{where}: never holds in this space")
            draws |= {**_condition_draws(config, other), other: found[0]}
        elif other not in setting_names():
            raise UserError(f"{where}: unknown setting; {_nearest(other)}")
        elif value_of(config, other) not in allowed:
            raise UserError(f"{where}: never holds, {other} is {value_of(config, other)} and is not searched")
    return draws
