"""The command line that all `pipeline/` scripts share: ``--config FILE [section.key=value ...]``."""

from __future__ import annotations

import argparse
import difflib
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError
from yaml import YAMLError

from supmer.config import Config
from supmer.errors import UserError

EXIT_USER_ERROR = 2


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file (or only defaults if `path` is None), apply ``section.key=value`` overrides and validate.

    Raises:
        UserError: the file cannot be read, a key is unknown, or a value is out of range.
    """
    raw = OmegaConf.merge(_read_yaml(path), _parse_overrides(overrides))
    try:
        values = OmegaConf.to_container(raw, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"config {path}: {_first_line(error)}") from error
    return validate(values)


def validate(values: Any) -> Config:
    """Return the typed configuration of a nested dict, or raise UserError for its first mistake."""
    if not isinstance(values, dict):
        raise UserError(f"config: must be a mapping of sections, got {type(values).__name__}")
    _refuse_unknown_keys(values, Config, "")
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError(_describe(error)) from error


def to_yaml(config: Config) -> str:
    """Return the resolved configuration as YAML, every setting written out."""
    return str(OmegaConf.to_yaml(OmegaConf.create(config.model_dump(mode="json"))))


def build_parser(description: str) -> argparse.ArgumentParser:
    """Return the parser with the arguments that every job takes; a job may add its own."""
    parser = argparse.ArgumentParser(
        description=description, epilog=_sections_help(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file; without it the defaults below hold")
    parser.add_argument("--print-config", action="store_true", help="print the resolved YAML and exit")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings that replace the file's")
    return parser


def run_job(job: Callable[[Config, argparse.Namespace], int | None], parser: argparse.ArgumentParser) -> None:
    """Parse the command line, load the configuration, run `job(config, arguments)` and exit with its code."""
    arguments = parser.parse_args()
    try:
        config = load_config(arguments.config, arguments.overrides)
        if arguments.print_config:
            sys.stdout.write(to_yaml(config))
            sys.exit(0)
        _configure_logging(config.log.level)
        sys.exit(job(config, arguments) or 0)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(EXIT_USER_ERROR)


def _configure_logging(level: str) -> None:
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")


def _read_yaml(path: str | Path | None) -> Any:
    if path is None:
        return OmegaConf.create({})
    try:
        return OmegaConf.load(path)
    except FileNotFoundError as error:
        raise UserError(f"--config {path}: no such file") from error
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"--config {path}: not readable as YAML ({_first_line(error)})") from error


def _parse_overrides(overrides: Sequence[str]) -> Any:
    for item in overrides:
        if "=" not in item or item.startswith("="):
            raise UserError(f"{item}: settings are given as section.key=value")
    try:
        return OmegaConf.from_dotlist(list(overrides))
    except (YAMLError, OmegaConfBaseException, ValueError) as error:
        raise UserError(f"{' '.join(overrides)}: {_first_line(error)}") from error


def _refuse_unknown_keys(values: dict[Any, Any], model: type[BaseModel], prefix: str) -> None:
    for key, value in values.items():
        if key not in model.model_fields:
            raise UserError(f"{prefix}{key}: unknown setting; {_suggest(str(key), list(model.model_fields), prefix)}")
        inner = model.model_fields[key].annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel) and isinstance(value, dict):
            _refuse_unknown_keys(value, inner, f"{prefix}{key}.")


def _suggest(key: str, known: list[str], prefix: str) -> str:
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    if near:
        return "did you mean " + ", ".join(prefix + name for name in near) + "?"
    return "allowed: " + ", ".join(prefix + name for name in known)


def _describe(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    setting = ".".join(str(part) for part in first["loc"])
    if not setting:
        return message
    return f"{setting}={first['input']}: {message.removeprefix('Input ')}"


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _sections_help() -> str:
    lines = ["sections and settings (default):"]
    for section, field in Config.model_fields.items():
        model = field.annotation
        assert isinstance(model, type) and issubclass(model, BaseModel)
        summary = (model.__doc__ or "").strip().splitlines()[0]
        lines.append(f"\n  {section}: {summary}")
        lines += _settings_help(model, section)
    return "\n".join(lines)


def _settings_help(model: type[BaseModel], prefix: str) -> list[str]:
    lines = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            lines += _settings_help(inner, f"{prefix}.{name}")
            continue
        default = field.get_default(call_default_factory=True)
        lines.append(f"    {prefix}.{name}={default}  {field.description}")
    return lines
