"""Nested values as a typed configuration, and changes of one; a mistake is one line. Needs neither files nor OmegaConf."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from supmer.config import Config
from supmer.config.checks import check_together
from supmer.config.effects import fields, value_at
from supmer.config.scalars import item_type, parts, read_scalar
from supmer.config.section import Section
from supmer.config.text import describe, suggest
from supmer.errors import UserError, setting_error
from supmer.redaction import redact

S = TypeVar("S", bound=Section)


def validate(values: Any) -> Config:
    """Return the typed configuration of nested dicts, whose numbers may be text; raise UserError for the first mistake."""
    if not isinstance(values, dict):
        raise UserError(f"config: must be a mapping of sections, got {type(values).__name__}")
    values = read_settings(values, Config)
    _read_space(values["tune"].get("space") if isinstance(values.get("tune"), dict) else None)
    _refuse_secrets(values, "")
    return _validated(values, Config)


def with_settings(section: S, settings: Mapping[str, Any]) -> S:
    """Return a configuration, or a section of one, with these settings replaced; the names are dotted.

    Raises:
        UserError: a value is out of range, or does not go with the others.

    >>> with_settings(Config(), {"meta.steps": 7}).meta.steps
    7
    """
    values = section.model_dump(mode="json")
    for name, value in settings.items():
        *sections, last = name.split(".")
        inner = values
        for part in sections:
            inner = inner[part]
        inner[last] = value
    return _validated(read_settings(values, type(section)), type(section))


def value_of(config: Config, name: str) -> Any:
    """Return the value of a setting by its dotted name, lists and sections as plain ones."""
    return value_at(config.model_dump(mode="json"), name)


def to_yaml(config: Config) -> str:
    """Return the resolved configuration as YAML, every setting written out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _validated(values: dict[Any, Any], model: type[S]) -> S:
    """Return a typed configuration or section; the sections of a configuration must go together."""
    try:
        section = model.model_validate(values)
    except ValidationError as error:
        raise UserError(describe(error, model)) from error
    if isinstance(section, Config):
        check_together(section)
    return section


def read_settings(values: Mapping[Any, Any], model: type[BaseModel], prefix: str = "") -> dict[Any, Any]:
    """Return the values with text read as each setting's type asks for.

    Raises:
        UserError: a key is unknown, or text is no number where one is asked for.
    """
    read: dict[Any, Any] = {}
    for key, value in values.items():
        if key not in model.model_fields:
            raise UserError(f"{prefix}{key}: unknown setting; {suggest(str(key), list(model.model_fields), prefix)}")
        read[key] = _read(value, model.model_fields[key].annotation, f"{prefix}{key}")
    return read


def _read(value: Any, annotation: Any, name: str) -> Any:
    """Read a value of any shape by its type."""
    if isinstance(value, str):
        try:
            return read_scalar(value, annotation)
        except ValueError as error:
            raise setting_error(name, value, str(error)) from None
    if isinstance(value, list):
        return [_read(item, item_type(annotation, index), f"{name}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, dict):
        for part in parts(annotation):
            if isinstance(part, type) and issubclass(part, BaseModel):
                return read_settings(value, part, f"{name}.")
        return {key: _read(item, item_type(annotation), f"{name}.{key}") for key, item in value.items()}
    return value


def _read_space(space: Any) -> None:
    """Read the values in a search space by the types of the settings that they are for; shapes are checked later."""
    types = {name: field.annotation for name, field in fields(Config)}
    for dimension_name, dimension in space.items() if isinstance(space, dict) else ():
        where = f"tune.space.{dimension_name}"

        def read(value: Any, name: str = dimension_name, where: str = where) -> Any:
            return _read(value, types.get(name, Any), where)

        match dimension:
            case {"choice": list(choices)}:
                dimension["choice"] = [read(choice) for choice in choices]
            case {"cases": dict(cases)}:
                for case, settings in cases.items():
                    for name, value in settings.items() if isinstance(settings, dict) else ():
                        settings[name] = read(value, name, f"{where}.cases.{case}.{name}")
        match dimension:
            case {"when": dict(when)}:
                for name, wanted in when.items():
                    here = f"{where}.when.{name}"
                    several = isinstance(wanted, list)
                    when[name] = [read(value, name, here) for value in wanted] if several else read(wanted, name, here)


def _refuse_secrets(value: Any, setting: str) -> None:
    """The resolved settings are written into each run directory, so they must not hold a password or a token."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _refuse_secrets(inner, f"{setting}.{name}" if setting else str(name))
    elif isinstance(value, list):
        for inner in value:
            _refuse_secrets(inner, setting)
    elif isinstance(value, str) and redact(value) != value:
        raise setting_error(setting, redact(value), "must not hold a password or token; leave it in the environment")
