"""Every shipped configuration goes through the real command line and says how it is meant to be run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from scripts import ROOT, call

# Sweeps add a search space to a configuration; their own tests read them.
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
COMMAND = re.compile(r"^# python (pipeline/\w+\.py) --config (\S+)")


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_configuration_is_valid_and_its_print_is_too(config: Path, tmp_path: Path) -> None:
    first = call("metatrain.py", "--config", config, "--print-config")
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(first.stdout)
    assert call("metatrain.py", "--config", resolved, "--print-config").stdout == first.stdout

    given, effective = (OmegaConf.to_container(OmegaConf.load(path)) for path in (config, resolved))
    for section, settings in given.items():
        for key, value in settings.items():
            found = effective[section][key]
            assert (value.items() <= found.items()) if isinstance(value, dict) else found == value


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_configuration_begins_with_command_hardware_and_time(config: Path) -> None:
    lines = config.read_text().splitlines()
    command = COMMAND.match(lines[0])
    assert command, f"first line must be the command: {lines[0]}"
    assert (ROOT / command[1]).is_file()
    assert command[2] == f"configs/{config.name}"
    head = "\n".join(lines[: next(index for index, line in enumerate(lines) if not line.startswith("#"))])
    assert "Hardware:" in head and "Time:" in head


def test_there_is_a_quickstart() -> None:
    assert ROOT / "configs" / "quickstart.yaml" in CONFIGS
