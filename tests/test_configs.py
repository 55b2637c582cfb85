"""Every shipped configuration goes through the real command line and says how it is meant to be run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parents[1]
# Sweeps add a search space to a configuration; their own tests read them.
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
COMMAND = re.compile(r"^# python (pipeline/\w+\.py) --config (\S+)")


def print_config(config: Path, script: str = "pipeline/metatrain.py") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, script, "--config", str(config), "--print-config"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_configuration_is_valid_and_its_print_is_too(config: Path, tmp_path: Path) -> None:
    first = print_config(config)
    assert first.returncode == 0, first.stderr
    assert first.stderr == ""
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(first.stdout)
    assert print_config(resolved).stdout == first.stdout

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
