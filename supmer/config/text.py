"""How settings, and mistakes in them, are told to people: `--help`, and one line for each error."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from supmer.config.effects import fields

_TYPE_MESSAGES = {
    "int_parsing": "must be an integer",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "list_type": "must be a list, for example [a, b]",
    "model_type": "must be a section of settings",
    "string_pattern_mismatch": "must be at most 100 letters, digits, '.', '_', '-', the first a letter or digit",
}
_BOUND_WORDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def describe(error: ValidationError, root: type[BaseModel]) -> str:
    """Return the first mistake as ``section.key=value: what is allowed``."""
    first = error.errors(include_url=False)[0]
    kind, location, context = first["type"], first["loc"], first.get("ctx", {})
    model: Any = root
    field: FieldInfo | None = None  # of an item of a list None: pydantic reports its range
    for part in location:
        is_section = isinstance(model, type) and issubclass(model, BaseModel)
        field = model.model_fields.get(str(part)) if is_section else None
        model = field.annotation if field else None
    if kind in ("greater_than_equal", "greater_than", "less_than_equal", "less_than"):
        message = "must be " + ((_bounds(field) if field else "") or _words(context))
    elif kind == "literal_error":
        message = "must be one of " + str(context["expected"]).replace("'", "").replace(" or ", ", ")
    elif kind == "too_short":
        message = "must not be empty"
    else:
        default = first["msg"].removeprefix("Value error, ").removeprefix("Input ").replace("should be", "must be")
        message = _TYPE_MESSAGES.get(kind, default)
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).removeprefix(".")
    return f"{name}={first['input']}: {message}" if location else message


def suggest(key: str, known: Sequence[str], prefix: str) -> str:
    """Name the settings nearest to a misspelt one, or else all of them."""
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    if near:
        return "did you mean " + ", ".join(prefix + name for name in near) + "?"
    return "allowed: " + ", ".join(prefix + name for name in known)


def sections_help(root: type[BaseModel]) -> str:
    """List every section and every setting with its default, range and meaning."""
    lines = ["sections and settings (with their defaults):"]
    for section, field in root.model_fields.items():
        model = field.annotation
        assert isinstance(model, type) and issubclass(model, BaseModel)
        summary = (model.__doc__ or "").strip().splitlines()[0]
        lines.append(f"\n  {section}: {summary}")
        for name, setting in fields(model, f"{section}."):
            bounds = _bounds(setting)
            text = f"{setting.description} ({bounds})" if bounds else str(setting.description)
            lines.append(f"    {name}={setting.get_default(call_default_factory=True)}  {text}")
    return "\n".join(lines)


def _bounds(field: FieldInfo) -> str:
    """Return the range of a number, for example ``at least 0 and less than 1``."""
    found = {name: getattr(item, name) for item in field.metadata for name in _BOUND_WORDS if hasattr(item, name)}
    return _words(found)


def _words(bounds: dict[str, Any]) -> str:
    return " and ".join(
        f"{_BOUND_WORDS[name]} {value:,}" for name, value in bounds.items() if isinstance(value, int | float)
    )
