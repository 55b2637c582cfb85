"""Search spaces: how one is checked, and how a point is drawn from it.

A point is first a dict of *draws*, one for each active dimension, of the types that Optuna stores (numbers, and the JSON
text of what is chosen from a list), and then the dict of *settings* that the draws stand for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from supmer.config import Config
from supmer.config.text import suggest
from supmer.config.tune import Dimension
from supmer.errors import UserError
from supmer.tune.settings import is_free, setting_names, value_of, with_settings

MAX_GRID = 10_000

Draws = dict[str, Any]
Settings = dict[str, Any]
Space = Mapping[str, Dimension]


class Drawer(Protocol):
    """What draws values, as an Optuna trial does."""

    def suggest_categorical(self, name: str, choices: list[str]) -> str: ...

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int: ...


def draw(config: Config, drawer: Drawer) -> Draws:
    """Draw a point: dimensions in an order in which those that others depend on come first."""
    draws: Draws = {}
    for name in in_order(config.tune.space):
        dimension = config.tune.space[name]
        if _is_active(config, dimension, draws):
            draws[name] = _draw(name, dimension, drawer)
    return draws


def settings_of(space: Space, draws: Draws) -> Settings:
    """Return the settings that the draws stand for."""
    settings: Settings = {}
    for name, value in draws.items():
        cases = space[name].cases
        settings |= {name: _meaning(space[name], value)} if cases is None else cases[value]
    return settings


def grid_points(config: Config) -> list[Draws] | None:
    """Return all points of a finite space, the last dimension varying fastest; None if it is not finite, or very large."""
    points: list[Draws] = [{}]
    for name in in_order(config.tune.space):
        values = _grid_values(config.tune.space[name])
        if values is None or len(points) * len(values) > MAX_GRID:
            return None
        points = [longer for point in points for longer in _extended(config, name, values, point)]
    return points


def check_grid(config: Config) -> None:
    """Raise UserError if the space has no grid."""
    for name, dimension in config.tune.space.items():
        if dimension.kind in ("uniform", "loguniform"):
            raise UserError(f"tune.searcher=grid: needs a finite space, tune.space.{name} is {dimension.kind}; use choice")
    if grid_points(config) is None:
        raise UserError(f"tune.searcher=grid: this space may have more than {MAX_GRID:,} points; use random or tpe")


def _extended(config: Config, name: str, values: Sequence[Any], point: Draws) -> list[Draws]:
    return [{**point, name: value} for value in values] if _is_active(config, config.tune.space[name], point) else [point]


def check_space(config: Config) -> None:
    """Find what is wrong with a space before anything starts; each value is tried in the configuration.

    Raises:
        UserError: a setting is unknown or not searchable, a condition cannot be met, or a value is out of range.
    """
    space = config.tune.space
    if not space:
        raise UserError("tune.space={}: must have at least one setting to search, see configs/sweeps/")
    for name, dimension in space.items():
        if dimension.cases is None:
            _check_setting(f"tune.space.{name}", name)
        for case, settings in (dimension.cases or {}).items():
            for setting in settings:
                _check_setting(f"tune.space.{name}.cases.{case}.{setting}", setting)
                if setting in space:
                    raise UserError(f"tune.space.{name}.cases.{case}.{setting}: is a dimension of its own as well")
    for name in in_order(space):
        _check_values(config, name)


def in_order(space: Space) -> list[str]:
    """Return the dimensions so that each comes after those that its condition names.

    Raises:
        UserError: conditions depend on each other in a circle.
    """
    ordered: list[str] = []
    left = list(space)
    while left:
        ready = [name for name in left if not any(other in left for other in space[name].when)]
        if not ready:
            raise UserError(f"tune.space.{left[0]}.when: conditions depend on each other in a circle")
        ordered += ready
        left = [name for name in left if name not in ready]
    return ordered


def _is_active(config: Config, dimension: Dimension, draws: Draws) -> bool:
    return all(_holds(config, name, _allowed(wanted), draws) for name, wanted in dimension.when.items())


def _holds(config: Config, name: str, wanted: list[Any], draws: Draws) -> bool:
    """Tell whether a condition holds at a point; one on a dimension that is not active there does not."""
    space = config.tune.space
    if name in space:
        return name in draws and _meaning(space[name], draws[name]) in wanted
    return value_of(config, name) in wanted


def _allowed(wanted: Any) -> list[Any]:
    return wanted if isinstance(wanted, list) else [wanted]


def _draw(name: str, dimension: Dimension, drawer: Drawer) -> Any:
    if dimension.uniform:
        return drawer.suggest_float(name, *dimension.uniform)
    if dimension.loguniform:
        return drawer.suggest_float(name, *dimension.loguniform, log=True)
    if dimension.integer:
        return drawer.suggest_int(name, *dimension.integer, log=dimension.log)
    return drawer.suggest_categorical(name, _labels(dimension))


def _labels(dimension: Dimension) -> list[str]:
    """Return what stands for the values of a list; Optuna itself takes no lists as values."""
    if dimension.cases is not None:
        return list(dimension.cases)
    return [json.dumps(value) for value in dimension.choice or [dimension.fixed]]


def _meaning(dimension: Dimension, drawn: Any) -> Any:
    return json.loads(drawn) if dimension.kind in ("choice", "fixed") else drawn


def _grid_values(dimension: Dimension) -> Sequence[Any] | None:
    if dimension.integer:
        low, high = dimension.integer
        return range(low, high + 1)
    return None if dimension.kind in ("uniform", "loguniform") else _labels(dimension)


def _check_setting(where: str, setting: str) -> None:
    if setting not in setting_names():
        raise UserError(f"{where}: unknown setting; {_nearest(setting)}")
    if is_free(setting):
        raise UserError(f"{where}: cannot be searched, it says where or how fast a run goes, not what it computes")


def _nearest(name: str) -> str:
    names = [known for known in setting_names() if not is_free(known)]
    ends = [known for known in names if known.split(".")[-1] == name.split(".")[-1]]
    return "did you mean " + ", ".join(ends) + "?" if ends else suggest(name, names, "")


def _check_values(config: Config, name: str) -> None:
    """Try the ends of a range, or each value of a list, together with what its condition asks for."""
    space = config.tune.space
    around = _condition_draws(config, name, ())
    for value in _samples(space[name]):
        settings = settings_of(space, {**around, name: value})
        try:
            with_settings(config, settings)
        except UserError as error:
            shown = _meaning(space[name], value)
            raise UserError(f"tune.space.{name}: {shown} cannot be used: {error}") from error


def _samples(dimension: Dimension) -> list[Any]:
    span = dimension.uniform or dimension.loguniform or dimension.integer
    return list(span) if span else _labels(dimension)


def _condition_draws(config: Config, name: str, below: tuple[str, ...]) -> Draws:
    """Return draws under which a dimension is active.

    Raises:
        UserError: there are none.
    """
    space = config.tune.space
    draws: Draws = {}
    for other, wanted in space[name].when.items():
        where = f"tune.space.{name}.when.{other}={wanted}"
        if other in space:
            draws |= _condition_draws(config, other, (*below, name))
            draws[other] = _matching(where, space[other], _allowed(wanted))
        elif other not in setting_names():
            raise UserError(f"{where}: unknown setting; {_nearest(other)}")
        elif value_of(config, other) not in _allowed(wanted):
            raise UserError(f"{where}: never holds, {other} is {value_of(config, other)} and is not searched")
    return draws


def _matching(where: str, dimension: Dimension, wanted: list[Any]) -> Any:
    """Return a draw of this dimension that a condition asks for."""
    if dimension.integer:
        low, high = dimension.integer
        found = [value for value in wanted if value in range(low, high + 1)]
    else:
        found = [label for label in _labels(dimension) if _meaning(dimension, label) in wanted]
    if not found or dimension.kind in ("uniform", "loguniform"):
        raise UserError(f"{where}: never holds in this space")
    return found[0]
