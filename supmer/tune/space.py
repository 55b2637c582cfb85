"""Search spaces: how a point is drawn from one, and what points there are.

A point is first a dict of *draws*, one for each active dimension, of the types that Optuna stores (numbers, and the JSON
text of what is chosen from a list), and then the dict of *settings* that the draws stand for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

from optuna.trial import BaseTrial

from supmer.config import Config
from supmer.config.load import value_of
from supmer.config.tune import Dimension
from supmer.errors import UserError

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
            draws[name] = trial.suggest_categorical(name, labels(dimension))
    return draws


def settings_of(space: Space, draws: Draws) -> Settings:
    """Return the settings that the draws stand for."""
    settings: Settings = {}
    for name, value in draws.items():
        cases = space[name].cases
        settings |= {name: meaning(space[name], value)} if cases is None else cases[value]
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
        values = finite_values(dimension)
        if values is None or len(points) * len(values) > MAX_GRID:
            return None
        longer = ([{**p, name: value} for value in values] if _is_active(config, dimension, p) else [p] for p in points)
        points = [point for each in longer for point in each]
    return points


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
        value = meaning(space[name], draws[name]) if name in space else value_of(config, name)
        if value not in (wanted if isinstance(wanted, list) else [wanted]):
            return False
    return True


def labels(dimension: Dimension) -> list[str]:
    """Return what stands for the values of a list; Optuna itself takes no lists as values."""
    return [json.dumps(value) for value in dimension.choice or []] if dimension.cases is None else list(dimension.cases)


def meaning(dimension: Dimension, drawn: Any) -> Any:
    """Return the value that a draw stands for."""
    return json.loads(drawn) if dimension.kind == "choice" else drawn


def finite_values(dimension: Dimension) -> Sequence[Any] | None:
    """Return what may be drawn of a dimension, None for a continuous one."""
    if dimension.integer:
        low, high = dimension.integer
        return range(low, high + 1)
    return None if dimension.span else labels(dimension)
