"""Settings by their dotted names: which there are, which a sweep may vary, and configurations with some of them replaced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel

from supmer.cli import validate
from supmer.config import Config
from supmer.train.run_dir import FREE_SETTINGS


@cache
def setting_names() -> tuple[str, ...]:
    """Return the names of all settings of a run, those of sweeps left out."""
    return tuple(name for name in _names(Config, "") if not name.startswith("tune."))


def is_free(name: str) -> bool:
    """Tell whether a setting says where or how fast a run goes, but not what it computes; such are not searched."""
    return any(name == free or name.startswith(f"{free}.") for free in FREE_SETTINGS)


def value_of(config: Config, name: str) -> Any:
    """Return the value of a setting, lists and sections as plain ones."""
    value: Any = config.model_dump(mode="json")
    for part in name.split("."):
        value = value[part]
    return value


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """Return the configuration with these settings replaced.

    Raises:
        UserError: a value is out of range, or does not go with the others.
    """
    values = config.model_dump(mode="json")
    for name, value in settings.items():
        *sections, last = name.split(".")
        inner = values
        for part in sections:
            inner = inner[part]
        inner[last] = value
    return validate(values)


def _names(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _names(inner, f"{prefix}{name}.")
        else:
            yield prefix + name
