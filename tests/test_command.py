"""The command `supmer`: from a wheel in an environment of its own, and what shells and editors ask it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import jsonschema
import pytest
from omegaconf import OmegaConf
from scripts import ROOT, call

import supmer as supmer_package
from supmer.config.load import shipped_names
from supmer.config.schema import json_schema

MAIN = "import sys; sys.argv[0] = 'supmer'; from supmer.jobs.command import main; main()"


def supmer(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", MAIN, *arguments]
    done: subprocess.CompletedProcess[str] = subprocess.run(  # type: ignore[call-overload]
        command, capture_output=True, text=True, timeout=100, check=False, **options
    )
    return done


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of a wheel in a clean environment, which borrows the dependencies of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run([*pip, *build], check=True, timeout=300)
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    install = ["--python", str(python), "install", "--no-deps", *map(str, folder.glob("supmer-*.whl"))]
    subprocess.run([*pip, *install], check=True, timeout=300)
    [site] = (folder / "env" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "env" / "bin" / "supmer"


def test_a_wheel_is_all_that_a_job_needs(installed: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*arguments: str) -> str:
        command = [str(installed), *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100, check=True
        ).stdout

    printed = run("metatrain", "meta.steps=7", "--config", "quickstart", "run.name=two", "--print-config")
    assert (
        printed
        == call(
            "metatrain.py", "--config", ROOT / "configs/quickstart.yaml", "meta.steps=7", "run.name=two", "--print-config"
        ).stdout
    )
    assert run("metatrain", "--config", "sweeps/sizes_quickstart", "--print-config")
    site = Path(
        subprocess.run(
            [installed.with_name("python"), "-c", "import supmer; print(supmer.__path__[0])"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    )
    assert installed.parents[1] in site.parents
    for file in ("backbone/embedded/model.safetensors", "fewshot/tasks/sst-2.yaml", "py.typed"):
        assert (site / file).read_bytes() == (ROOT / "supmer" / file).read_bytes()


def test_public_names_are_there_and_cost_nothing_before_they_are_used() -> None:
    code = "import sys, supmer\nassert not {'torch', 'ray', 'pydantic', 'numpy'} & sys.modules.keys()\n"
    subprocess.run([sys.executable, "-c", code], timeout=100, check=True)
    assert {"Predictor", "load_config"} <= {*dir(supmer_package)}
    assert all(getattr(supmer_package, name) for name in supmer_package.__all__)


def test_a_name_that_is_not_shipped_is_answered_with_those_that_are() -> None:
    result = call("metatrain.py", "--config", "quickstrat")
    assert result.returncode == 2
    assert result.stderr.startswith("error: --config quickstrat: no such file, and none of the shipped ones: ")
    assert ", quickstart, " in result.stderr


def test_an_unknown_command_ends_in_one_line() -> None:
    done = supmer("metatrian")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: argument COMMAND: invalid choice: 'metatrian'")


def test_help_answers_at_once() -> None:
    """It imports every job; torch, transformers or Ray would take seconds."""
    slow = "{'torch', 'transformers', 'ray', 'sklearn', 'datasets'}"
    code = f"import atexit, sys; atexit.register(lambda: print({slow} & sys.modules.keys()))\n{MAIN}"
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout.startswith("usage: supmer") and done.stdout.endswith("set()\n")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("supmer me", {"metatrain"}),
        ("supmer metatrain --con", {"--config"}),
        ("supmer metatrain --config qui", {"quickstart"}),
        ("supmer metatrain --config quickstart meta.st", {"meta.steps="}),
    ],
)
def test_shells_complete_commands_configurations_and_settings(line: str, expected: set[str], tmp_path: Path) -> None:
    answer = tmp_path / "answer"
    asked = {"COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n"}
    done = supmer(env={**os.environ, **asked, "_ARGCOMPLETE_STDOUT_FILENAME": str(answer)}, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {word.strip() for word in answer.read_text().split("\n")} == expected


def test_schema_is_right_about_the_shipped_configurations() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.check_schema(validator.schema)
    for name in shipped_names():
        assert not list(validator.iter_errors(OmegaConf.to_container(OmegaConf.load(ROOT / "configs" / f"{name}.yaml")))), (
            name
        )
    for wrong in (
        {"meta": {"stpes": 3}},
        {"meta": {"steps": "many"}},
        {"tasks": {"num_support": 0}},
        {"fewshot": {"k": "x"}},
    ):
        assert list(validator.iter_errors(wrong)), wrong
