"""Read, check, change and print configurations: a YAML file, ``section.key=value`` overrides, one line for a mistake."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from supmer.config import Config
from supmer.config.checks import why_without_effect
from supmer.config.effects import fields
from supmer.config.scalars import is_text, parse_yaml
from supmer.config.values import read_settings, to_yaml, validate, value_of, with_settings
from supmer.errors import UserError, one_line, setting_error
from supmer.package_data import data_folder

__all__ = ["load_config", "read_settings", "to_yaml", "validate", "value_of", "with_settings"]


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file (only defaults if `path` is None), apply ``section.key=value`` overrides and validate.

    The name of a shipped configuration will do for a path.

    A file may begin with ``base: other.yaml``, or a list of files, and then says only how it differs from them. Where an
    override names files in place of the packages of `corpus.format=package_docs`, these files are read.

    Raises:
        UserError: the file cannot be read, a key is unknown, a value is out of range, or an override would have no effect.

    >>> load_config(None, ["meta.steps=1_000"]).meta.steps
    1000
    """
    file = None if path is None else find_file(path)
    settings, given = _read_file(file), _parse_overrides(overrides)
    if (base := settings.pop("base", None)) is not None and file is not None:
        names = list(base) if isinstance(base, ListConfig) else [base]
        layers = [_read_file(file.parent / str(name)) for name in names]  # of several the last wins
        for name, layer in zip(names, layers, strict=True):
            if "base" in layer:
                raise UserError(f"--config {file}: base={name}: must not have a base itself")
        settings = OmegaConf.merge(*layers, settings)
    try:
        for key in (item.partition("=")[0] for item in overrides):
            # An override replaces the keys of a mapping as it does any value; only sections merge.
            is_section = any(name.startswith(f"{key}.") for name, _ in fields(Config))
            if not is_section and isinstance(OmegaConf.select(settings, key), DictConfig):
                OmegaConf.update(settings, key, {}, merge=False)
        merged = OmegaConf.merge(settings, given)
        is_given = [OmegaConf.select(given, name) is not None for name in ("corpus.paths", "corpus.format")]
        if is_given == [True, False] and OmegaConf.select(merged, "corpus.format") == "package_docs":
            OmegaConf.update(merged, "corpus.format", "auto")
        values = OmegaConf.to_container(merged, resolve=True)
    except (OmegaConfBaseException, RecursionError) as error:
        raise UserError(f"configuration: {one_line(error)}") from error
    config = validate(values)
    for name in _names_in(given):
        if reason := why_without_effect(config, name):
            raise setting_error(name, value_of(config, name), reason)
    return config


def settings_without_effect(config: Config, path: str | Path | None) -> list[str]:
    """Return the settings of a file that have no effect in `config`, each with the reason.

    Settings of the file's base are left out, as are those that are given their defaults.
    """
    found, default = [], Config()
    for name in () if path is None else _names_in(_read_file(find_file(path))):
        reason = why_without_effect(config, name)
        if reason and value_of(config, name) != value_of(default, name):
            found.append(f"{name} {reason}")
    return found


def _names_in(content: DictConfig) -> list[str]:
    """Return the names of the settings that a file or a command line gives."""
    return [name for name, _ in fields(Config) if OmegaConf.select(content, name) is not None]


def shipped_names() -> list[str]:
    """List the configurations that come with the package, as ``--config`` takes them.

    >>> "quickstart" in shipped_names()
    True
    """
    folder = data_folder("configs")
    names = (path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))
    return sorted(name for name in names if "/cases/" not in name)


def find_file(path: str | Path) -> Path:
    """Return the file of a configuration: a path, or the name of one that comes with the package.

    Raises:
        UserError: neither is there.
    """
    given = Path(path)
    if given.is_file():
        return given
    if str(path) in shipped_names():
        return data_folder("configs") / f"{path}.yaml"
    raise UserError(f"--config {path}: no such file, and none of the shipped ones: {', '.join(shipped_names())}")


def _read_file(path: Path | None) -> DictConfig:
    if path is None:
        return OmegaConf.create({})
    try:
        content = parse_yaml(Path(path).read_text(encoding="utf-8-sig"))
        if not isinstance(content, dict | None):
            raise UserError(f"--config {path}: must be a mapping of sections")
        return OmegaConf.create(content or {})
    except FileNotFoundError as error:
        raise UserError(f"--config {path}: no such file") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise UserError(f"--config {path}: not readable as YAML ({one_line(error)})") from error


def _parse_overrides(overrides: Sequence[str]) -> DictConfig:
    """Return the settings of the command line. A text setting takes what was written, YAML's own signs too."""
    types = {name: field.annotation for name, field in fields(Config)}
    parsed = OmegaConf.create({})
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not all(key.split(".")):
            raise UserError(f"{item}: settings are given as section.key=value")
        try:
            is_written_out = is_text(types.get(key, Any)) and text not in ("", "null", "~") and text[0] not in "\"'"
            OmegaConf.update(parsed, key, text if is_written_out else parse_yaml(text))
        except (yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
            raise UserError(f"{item}: {one_line(error)}") from error
    return parsed
