"""Marks of settings: each setting changes the fingerprints of what it affects, and no others."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

import pytest

from supmer.config import Config
from supmer.config.effects import RUN_EFFECTS, digest, effects_of, fields, is_source
from supmer.corpus.fingerprint import Places, describe_inputs

FIELDS = dict(fields(Config))
LEVELS = ("units", "embeddings", "clusters")
"""What a store is made from, in the order in which it is made: each level includes those before it."""


def another(value: Any, annotation: Any) -> Any:
    """Return another value of the same type; it need not go together with the other settings."""
    if get_origin(annotation) is Literal:
        return next(other for other in get_args(annotation) if other != value)
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return f"{value}x"
        case None:
            return "7" if str in get_args(annotation) else 7
        case list() | tuple():
            return [*value, *value, 7]
        case dict():
            return {**value, "x": {}}
    raise AssertionError(f"no other value of {value!r}")


def changed(config: Config, name: str) -> Config:
    """Return the configuration with another value of one setting, without checks that settings go together."""
    *sections, last = name.split(".")
    path: list[Any] = [config]
    for section in sections:
        path.append(getattr(path[-1], section))
    value = another(getattr(path[-1], last), FIELDS[name].annotation)
    for section, part in zip(reversed([*sections, last]), reversed(path), strict=True):
        value = part.model_copy(update={section: value})
    assert isinstance(value, Config)
    return value


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text("One sentence.")
    return Config.model_validate(
        {"backbone": {"name": "embedded"}, "corpus": {"paths": [str(path)], "text_document": "line"}}
    )


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # the other values need not be valid
@pytest.mark.parametrize("name", FIELDS)
def test_a_setting_changes_what_it_affects_and_nothing_else(name: str, config: Config) -> None:
    effects = effects_of(FIELDS[name])
    assert "speed" not in effects or len(effects) == 1
    other = changed(config, name)
    assert (digest(other, *RUN_EFFECTS) != digest(config, *RUN_EFFECTS)) == bool({*effects} & {*RUN_EFFECTS})
    assert (digest(other, "tuning") != digest(config, "tuning")) == ("tuning" in effects)
    if not is_source(FIELDS[name]) and not name.startswith("tasks."):
        first = next((level for level in LEVELS if level in effects), None)
        assert _levels_that_differ(config, other) == (LEVELS[LEVELS.index(first) :] if first else ())


def test_only_episodes_that_need_other_clusters_need_another_store(config: Config) -> None:
    """Of `tasks`, the size and the number of clusters count that episodes need."""
    assert _levels_that_differ(config, changed(config, "tasks.num_options_nss")) == ()
    assert _levels_that_differ(config, changed(config, "tasks.num_query")) == ("clusters",)


def _levels_that_differ(config: Config, other: Config) -> tuple[str, ...]:
    here, there = describe_inputs(config), describe_inputs(other)
    places, others = Places.of(config.corpus, here), Places.of(config.corpus, there)
    differ = (places.text != others.text, places.embeddings != others.embeddings, places.store != others.store)
    return tuple(level for level, differs in zip(LEVELS, differ, strict=True) if differs)
