"""The JSON schema of a configuration file, for editors."""

from __future__ import annotations

from typing import Any

from supmer.config import Config

BASE = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    "description": "configuration files, relative to this one, that this one changes",
}


def json_schema() -> dict[str, Any]:
    """Return the schema of the settings, and of the key `base` that a file may begin with."""
    schema = Config.model_json_schema()
    schema["properties"] = {"base": BASE, **schema["properties"]}
    return schema
