"""Every shipped configuration goes through the real command line, and fits the GPUs it is written for."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from scripts import ROOT, call

# Sweeps add a search space to a configuration; their own tests read them.
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


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


@pytest.mark.parametrize(("name", "gpus"), [("flan_t5_xl.yaml", 8), ("t5_base.yaml", 1)])
def test_configuration_fits_the_gpus_it_is_written_for(name: str, gpus: int, tmp_path: Path) -> None:
    """GPUs of 24 GiB in nodes of 4, as cluster/aws.yaml starts them: no setting need change."""
    page = tmp_path / "plan.md"
    hardware = ("--gpus", str(gpus), "--max-gpus", "1", "--gpu-memory", "24GiB", "--gpus-per-node", "4")
    links = ("--flops", "70T", "--network", "5GB")
    done = call("plan.py", "--config", ROOT / "configs" / name, *hardware, *links, "--markdown", page)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in page.read_text()
