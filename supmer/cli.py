"""The command line that all `pipeline/` scripts share: ``--config FILE [section.key=value ...]``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError
from yaml import YAMLError

from supmer import storage
from supmer.config import Config
from supmer.config.text import describe, sections_help, suggest
from supmer.errors import UserError, causes
from supmer.redaction import RedactingFormatter, redact

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

MAX_YAML_DEPTH = 20


class JobParser(argparse.ArgumentParser):
    """A parser that reports a wrong argument like any other user's mistake: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file (or only defaults if `path` is None), apply ``section.key=value`` overrides and validate.

    A file may begin with ``base: other.yaml``, or a list of files, and then says only how it differs from them.

    Raises:
        UserError: the file cannot be read, a key is unknown, or a value is out of range.
    """
    settings, replacing = _on_base(path, _read_yaml(path)), _parse_overrides(overrides)
    try:
        _empty_replaced(settings, overrides)
        values = OmegaConf.to_container(OmegaConf.merge(settings, replacing), resolve=True)
    except (OmegaConfBaseException, RecursionError) as error:
        raise UserError(f"configuration: {_one_line(error)}") from error
    return validate(values)


def validate(values: Any) -> Config:
    """Return the typed configuration of a nested dict, or raise UserError for its first mistake."""
    if not isinstance(values, dict):
        raise UserError(f"config: must be a mapping of sections, got {type(values).__name__}")
    _refuse_unknown_keys(values, Config, "")
    _refuse_secrets(values, "")
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError(describe(error, Config)) from error


def to_yaml(config: Config) -> str:
    """Return the resolved configuration as YAML, every setting written out."""
    return str(OmegaConf.to_yaml(OmegaConf.create(config.model_dump(mode="json"))))


def build_parser(description: str) -> JobParser:
    """Return the parser with the arguments that every job takes; a job may add its own."""
    parser = JobParser(
        description=description,
        epilog=sections_help(Config),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file; without it the defaults below hold")
    parser.add_argument("--print-config", action="store_true", help="print the resolved YAML and exit")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings that replace the file's")
    return parser


def run_job(job: Callable[[Config, argparse.Namespace], int | None], parser: argparse.ArgumentParser) -> None:
    """Parse the command line, load the configuration, run `job(config, arguments)` and exit with its code."""
    try:
        arguments = parser.parse_intermixed_args()
        config = load_config(arguments.config, arguments.overrides)
        if arguments.print_config:
            sys.stdout.write(to_yaml(config))
            sys.exit(0)
        _configure_logging(config.log.level)
        sys.exit(job(config, arguments) or 0)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        told = _told_to_user(error)
        if told is None:
            raise
        sys.stderr.write(f"error: {redact(told)}\n")
        sys.exit(EXIT_USER_ERROR)


def _told_to_user(error: Exception) -> str | None:
    """Return the line for a user's mistake, or for a disk or service that refused; None for a fault of the program."""
    for cause in causes(error):
        if isinstance(cause, UserError):
            return _one_line(cause)
        if isinstance(cause, OSError) and storage.is_known(cause):
            return f"{cause.filename}: {storage.reason(cause)}" if cause.filename else storage.reason(cause)
    return None


def _configure_logging(level: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingFormatter())
    # Other libraries speak at info of their own affairs, as matplotlib does when it builds its cache of fonts.
    logging.basicConfig(level=logging.DEBUG if level == "debug" else logging.WARNING, handlers=[handler])
    logging.getLogger("supmer").setLevel(level.upper())
    # Of each try to reach the hub it would tell twice; what came of it is told by whoever asked.
    logging.getLogger("huggingface_hub.utils._http").setLevel(logging.ERROR)


def _read_yaml(path: str | Path | None) -> DictConfig:
    if path is None:
        return OmegaConf.create({})
    try:
        _refuse_traps(path)
        content = OmegaConf.load(path)
    except FileNotFoundError as error:
        raise UserError(f"--config {path}: no such file") from error
    except (OSError, ValueError, YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise UserError(f"--config {path}: not readable as YAML ({_one_line(error)})") from error
    if not isinstance(content, DictConfig):
        raise UserError(f"--config {path}: must be a mapping of sections")
    return content


def _refuse_traps(path: str | Path) -> None:
    """Aliases of aliases make a few lines grow to any size, and libyaml overflows the stack on deeply nested ones."""
    depth = 0
    for event in yaml.parse(Path(path).read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("aliases are not taken")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_YAML_DEPTH:
            raise ValueError(f"nested more than {MAX_YAML_DEPTH} levels deep")


def _on_base(path: str | Path | None, content: DictConfig) -> DictConfig:
    """Lay a file's settings over those that its key `base` names, relative to its own folder; of several the last wins."""
    base = content.pop("base", None)
    if path is None or base is None:
        return content
    names = list(base) if isinstance(base, ListConfig) else [base]
    layers = [_read_yaml(Path(path).parent / str(name)) for name in names]
    for name, layer in zip(names, layers, strict=True):
        if "base" in layer:
            raise UserError(f"--config {path}: base={name}: must not have a base itself")
    merged = OmegaConf.merge(*layers, content)
    assert isinstance(merged, DictConfig)
    return merged


def _parse_overrides(overrides: Sequence[str]) -> DictConfig:
    parsed = OmegaConf.create({})
    for item in overrides:
        key, equals, _ = item.partition("=")
        if not equals or not all(key.split(".")):
            raise UserError(f"{item}: settings are given as section.key=value")
        try:
            parsed.merge_with_dotlist([item])
        except (YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
            raise UserError(f"{item}: {_one_line(error)}") from error
    return parsed


def _empty_replaced(settings: DictConfig, overrides: Sequence[str]) -> None:
    """Empty the mappings that an override gives anew: it replaces their keys as it does any value; only sections merge."""
    for key in (item.partition("=")[0] for item in overrides):
        if not _is_section(key) and isinstance(OmegaConf.select(settings, key), DictConfig):
            OmegaConf.update(settings, key, {}, merge=False)


def _is_section(key: str) -> bool:
    model: Any = Config
    for name in key.split("."):
        model = model.model_fields[name].annotation if name in getattr(model, "model_fields", {}) else None
    return isinstance(model, type) and issubclass(model, BaseModel)


def _refuse_unknown_keys(values: dict[Any, Any], model: type[BaseModel], prefix: str) -> None:
    for key, value in values.items():
        if key not in model.model_fields:
            raise UserError(f"{prefix}{key}: unknown setting; {suggest(str(key), list(model.model_fields), prefix)}")
        inner = model.model_fields[key].annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel) and isinstance(value, dict):
            _refuse_unknown_keys(value, inner, f"{prefix}{key}.")


def _refuse_secrets(value: Any, setting: str) -> None:
    """The resolved settings are written into each run directory, so they must not hold a password or a token."""
    if isinstance(value, dict):
        for name, inner in value.items():
            _refuse_secrets(inner, f"{setting}.{name}" if setting else str(name))
    elif isinstance(value, list):
        for inner in value:
            _refuse_secrets(inner, setting)
    elif isinstance(value, str) and redact(value) != value:
        raise UserError(f"{setting}={redact(value)}: must not hold a password or token; leave it in the environment")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:600]
