"""The house rules that make the code readable from top to bottom: who imports whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "supmer"

LAYERS = ["backbone", "corpus", "pretrain", "tasks", "model", "meta", "train", "fewshot", "tune", "planning", "doctor"]
"""From the bottom up, above `config` and the modules directly under `supmer/`; imports point downwards."""

WITHOUT_RAY = ["config", "backbone", "tasks", "model", "meta"]
MAY_IMPORT = {"supmer/model/sharding.py"}
MAX_SCRIPT_LINES = 80
MAX_MODULE_LINES = 300


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(module: str) -> int:
    """Return the height of a module of the package; modules directly under it are the ground."""
    folder = module.split(".")[1] if module.count(".") else ""
    return LAYERS.index(folder) if folder in LAYERS else -1


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", python_files("supmer"), ids=name)
def test_imports_point_downwards(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    upwards = [other for other in imports(path) if other.startswith("supmer.") and layer(other) > layer(module)]
    assert upwards == []
    assert not any(other.split(".")[0] == "pipeline" for other in imports(path))


@pytest.mark.parametrize("path", python_files(*(f"supmer/{folder}" for folder in WITHOUT_RAY)), ids=name)
def test_the_method_knows_no_ray(path: Path) -> None:
    roots = {other.split(".")[0] for other in imports(path)}
    assert name(path) in MAY_IMPORT or not roots & {"ray", "accelerate"}
    assert "ray" not in roots


def test_the_method_runs_where_ray_is_not_installed() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in python_files(*(f"supmer/{folder}" for folder in WITHOUT_RAY))
        if name(path) not in MAY_IMPORT
    ]
    program = (
        "import importlib, sys\n"
        "sys.modules['ray'] = sys.modules['accelerate'] = None\n"
        f"for module in {modules!r}: importlib.import_module(module)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr


def test_every_folder_has_its_place() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").is_file()}
    assert folders <= {"config", *LAYERS}


@pytest.mark.parametrize("path", python_files("pipeline"), ids=name)
def test_scripts_are_thin(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert len(path.read_text().splitlines()) < MAX_SCRIPT_LINES
    assert any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)
    assert not any(isinstance(node, ast.ClassDef) for node in tree.body)


@pytest.mark.parametrize("path", python_files("supmer"), ids=name)
def test_modules_can_be_read_in_one_go(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_MODULE_LINES


@pytest.mark.parametrize("path", python_files("supmer", "pipeline"), ids=name)
def test_nothing_is_unpickled(path: Path) -> None:
    assert not {other.split(".")[0] for other in imports(path)} & {"pickle", "cloudpickle", "dill", "shelve", "marshal"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert any(
                word.arg == "weights_only" and isinstance(word.value, ast.Constant) and word.value.value is True
                for word in node.keywords
            ), f"{name(path)}:{node.lineno}: torch.load without weights_only=True"
