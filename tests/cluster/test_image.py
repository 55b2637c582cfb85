"""The image's Dockerfile, what goes into its build context, and what a submitted job uploads."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from ray._private.runtime_env.packaging import create_package

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "cluster" / "Dockerfile"
MAX_UPLOAD_BYTES = 5 * 2**20


def instructions(text: str) -> list[tuple[str, str]]:
    """Split a Dockerfile into (instruction, arguments), continuation lines joined and comments dropped."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined.splitlines()]


def breaches(text: str) -> list[str]:
    """List what a Dockerfile does against our rules (hadolint checks the common ones)."""
    steps = instructions(text)
    found = []
    users = [argument for name, argument in steps if name == "USER"]
    if not users or not re.fullmatch(r"[1-9]\d*(:\d+)?", users[-1]):
        found.append("does not end as a numbered user other than root")  # numbers, so that Kubernetes can tell
    if any(name == "ADD" for name, _ in steps):
        found.append("ADD")
    if any(name in ("ARG", "ENV") and re.search(r"TOKEN|SECRET|PASSWORD|KEY", argument) for name, argument in steps):
        found.append("secret in a layer")
    if any(not re.search(r":\d+\.\d+\.\d+", argument) for name, argument in steps if name == "FROM"):
        found.append("base image without a full version")
    found += _install_order(steps)
    return found


def _install_order(steps: list[tuple[str, str]]) -> list[str]:
    installs = [i for i, (name, argument) in enumerate(steps) if name == "RUN" and "pip install" in argument]
    code = [i for i, (name, argument) in enumerate(steps) if name == "COPY" and re.search(r" supmer \./supmer$", argument)]
    if len(installs) != 2 or len(code) != 1:
        return ["must install twice around copying the code"]
    found = []
    if not installs[0] < code[0] < installs[1]:
        found.append("dependencies are not in a layer of their own before the code")
    if "--constraint constraints.txt" not in steps[installs[0]][1]:
        found.append("dependencies are not constrained")
    if "--no-deps" not in steps[installs[1]][1]:
        found.append("the second install resolves dependencies again")
    return found


def lint(path: Path) -> list[str]:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    assert hadolint is not None, "hadolint comes with the dev dependencies"
    run = subprocess.run([hadolint, "--format", "json", str(path)], capture_output=True, text=True, check=False)
    return [finding["code"] for finding in json.loads(run.stdout)]


def test_dockerfile_is_clean() -> None:
    assert lint(DOCKERFILE) == []
    assert breaches(DOCKERFILE.read_text()) == []


def test_build_context_has_what_is_copied_and_no_more() -> None:
    patterns = (ROOT / ".dockerignore").read_text().split("\n")
    allowed = {pattern[1:] for pattern in patterns if pattern.startswith("!")}
    assert "*" in patterns
    copied = {
        source.split("/")[0]
        for name, argument in instructions(DOCKERFILE.read_text())
        if name == "COPY"
        for source in argument.split()[1:-1]
    }
    assert copied == allowed
    for secret in (".env", ".git", "runs", "id_rsa"):
        assert not any(fnmatch.fnmatch(secret, pattern) for pattern in allowed)


def clone(target: Path) -> Path:
    """A clean clone of the last commit, as a user has it."""
    subprocess.run(["git", "clone", "--quiet", "--depth=1", ROOT.as_uri(), str(target)], check=True)
    return target


def test_a_clean_clone_uploads_little(tmp_path: Path) -> None:
    package = tmp_path / "package.zip"
    create_package(str(clone(tmp_path / "clone")), package, include_gitignore=True)
    names = zipfile.ZipFile(package).namelist()
    assert package.stat().st_size < MAX_UPLOAD_BYTES
    assert {"pipeline/metatrain.py", "supmer/__init__.py", "pyproject.toml"} <= set(names)
    assert not any(name.startswith((".git/", "tests/", "docs/", "benchmarks/")) for name in names)


def test_results_of_runs_and_weights_are_not_uploaded(tmp_path: Path) -> None:
    folder = clone(tmp_path / "clone")
    for name in ("runs", "stores", "cache", ".venv", "supmer/backbone/embedded"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "large.bin").write_bytes(bytes(2**20))
    package = tmp_path / "package.zip"
    create_package(str(folder), package, include_gitignore=True)
    assert not any(name.endswith("large.bin") for name in zipfile.ZipFile(package).namelist())


@pytest.mark.slow
def test_install_steps_work_in_a_clean_environment(tmp_path: Path) -> None:
    """Runs the Dockerfile's own COPY and pip steps; dependencies are resolved against the constraints, not downloaded."""
    source, app = clone(tmp_path / "clone"), tmp_path / "app"
    app.mkdir()
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    for name, argument in instructions(DOCKERFILE.read_text()):
        if name == "COPY":
            *sources, target = argument.split()[1:]
            copy(source, sources, app / target)
        elif name == "RUN" and argument.startswith("mkdir "):
            (app / argument.split()[1]).mkdir()
        if name == "RUN" and "pip install" in argument:
            options = argument.split("pip install", 1)[1].split()
            dry = (
                []
                if "--no-deps" in options
                else ["--dry-run", "--ignore-installed", "--report", str(tmp_path / "report.json")]
            )
            subprocess.run([python, "-m", "pip", "install", "--quiet", *dry, *options], cwd=app, check=True)
    check_resolved(json.loads((tmp_path / "report.json").read_text()))
    found = subprocess.run(
        [python, "-c", "import supmer; print(supmer.__file__)"], cwd=tmp_path, capture_output=True, text=True
    )
    assert "site-packages" in found.stdout, found.stderr
    installed = Path(found.stdout.strip()).parent
    assert {p.name for p in installed.iterdir()} >= {p.name for p in (source / "supmer").iterdir()} - {"__pycache__"}


def copy(source: Path, names: list[str], target: Path) -> None:
    for name in names:
        if (source / name).is_dir():
            shutil.copytree(source / name, target, dirs_exist_ok=True)
        else:
            folder = target if len(names) > 1 else target.parent
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, folder)


def check_resolved(report: dict[str, list[dict[str, dict[str, str]]]]) -> None:
    """Every resolved version is the pinned one."""
    found = [item["metadata"] for item in report["install"]]
    resolved = {canonicalize_name(metadata["name"]): metadata["version"] for metadata in found}
    pins = read_pins()
    assert {"torch", "ray", "transformers"} <= resolved.keys()
    assert resolved.keys() - pins.keys() <= {"supmer", "setuptools"}, "all others are in constraints.txt"
    assert [name for name, version in resolved.items() if name in pins and version not in pins[name]] == []


def read_pins() -> dict[str, SpecifierSet]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): pin.specifier for pin in pins if pin.marker is None or pin.marker.evaluate()}
