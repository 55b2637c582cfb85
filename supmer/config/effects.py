"""Which settings decide what: fingerprints, and what may change, are derived from the marks of the settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from supmer.config.section import Effect

if TYPE_CHECKING:
    from supmer.config import Config

RUN_EFFECTS: tuple[Effect, ...] = ("units", "embeddings", "clusters", "training")
"""What a run is bound to. Settings that affect none of these may change when a run is continued, and are not searched."""

STORE_EFFECTS: tuple[Effect, ...] = ("units", "embeddings", "clusters")
"""What a task store is made from, level by level."""


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every setting of a section and of the sections in it, with its dotted name."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from fields(inner, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def effects_of(field: FieldInfo) -> tuple[Effect, ...]:
    """Return what a setting affects."""
    assert isinstance(field.json_schema_extra, dict), "a setting is declared by supmer.config.section.setting"
    affects = field.json_schema_extra["affects"]
    assert isinstance(affects, list) and affects and set(affects) <= set(get_args(Effect))
    return tuple(affects)  # type: ignore[arg-type]


@cache
def names_that_affect(model: type[BaseModel], *effects: Effect, sources: bool = True) -> tuple[str, ...]:
    """Return the dotted names of the settings that affect any of these, those that name a source of data if wanted."""
    return tuple(
        name for name, field in fields(model) if set(effects_of(field)) & set(effects) and (sources or not is_source(field))
    )


def settings_that_affect(config: Config, *effects: Effect, sources: bool = True) -> dict[str, Any]:
    """Return the settings that affect any of these, as JSON values by dotted names.

    Without `sources` those are left out that name data: the caller describes what the data hold.

    >>> from supmer.config import Config
    >>> settings_that_affect(Config(), "clusters")["clusters.num_clusters"]
    250
    """
    values = config.model_dump(mode="json")
    return {name: value_at(values, name) for name in names_that_affect(type(config), *effects, sources=sources)}


def all_settings(config: Config) -> dict[str, Any]:
    """Return all settings as JSON values by dotted names."""
    values = config.model_dump(mode="json")
    return {name: value_at(values, name) for name, _ in fields(type(config))}


def digest(config: Config, *effects: Effect, sources: bool = True) -> str:
    """Return the SHA-256 over the settings that affect any of these.

    Only values that are not the defaults enter, so that runs stay valid when a setting is added.
    """
    defaults = settings_that_affect(type(config)(), *effects, sources=sources)
    settings = settings_that_affect(config, *effects, sources=sources)
    changed = {name: value for name, value in settings.items() if value != defaults[name]}
    return hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()


def value_at(values: dict[str, Any], name: str) -> Any:
    """Return the value of a dotted name in nested dicts."""
    value: Any = values
    for part in name.split("."):
        value = value[part]
    return value


def is_source(field: FieldInfo) -> bool:
    """Say whether a setting names data, which fingerprints describe by the content."""
    assert isinstance(field.json_schema_extra, dict)
    return bool(field.json_schema_extra["source"])
