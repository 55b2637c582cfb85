"""The house rules that make the code readable from top to bottom: who imports whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "supmer"

LAYERS = [
    "readers",
    "backbone",
    "corpus",
    "tasks",
    "model",
    "meta",
    "train",
    "fewshot",
    "predict",
    "serve",
    "tune",
    "compare",
    "planning",
    "doctor",
    "jobs",
]
"""From the bottom up, above `config`, `reports` and the modules directly under `supmer/`; imports point downwards."""

WITHOUT_RAY = ["config", "backbone", "tasks", "model", "meta"]
MAY_IMPORT = {"supmer/model/sharding.py"}
NEEDS_FILES = {"supmer/config/load.py", "supmer/tasks/codec.py", "supmer/backbone/identity.py"}
"""Of the method's folders, what reads settings or sends episodes for a job: these need more than the method does."""
MAX_SCRIPT_LINES = 80
MAX_MODULE_LINES = 300


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imports(path: Path, *, at_once: bool = False) -> Iterator[str]:
    """Yield the dotted names that a file imports: wherever in the file, or only when the file itself is imported."""
    tree = ast.parse(path.read_text())
    for node in tree.body if at_once else ast.walk(tree):
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
    if module == "supmer.__init__":
        return  # the public names, of all layers
    upwards = [other for other in imports(path) if other.startswith("supmer.") and layer(other) > layer(module)]
    assert upwards == []
    assert not any(other.split(".")[0] == "pipeline" for other in imports(path))


@pytest.mark.parametrize("path", python_files(*(f"supmer/{folder}" for folder in WITHOUT_RAY)), ids=name)
def test_the_method_knows_no_ray(path: Path) -> None:
    roots = {other.split(".")[0] for other in imports(path)}
    assert name(path) in MAY_IMPORT or not roots & {"ray", "accelerate"}
    assert "ray" not in roots


def test_the_method_runs_where_the_libraries_of_the_jobs_are_not_installed() -> None:
    """What the method's modules import, and what those import in turn; `tests/core_step.py` runs so."""
    waiting = [
        path
        for path in python_files(*(f"supmer/{folder}" for folder in WITHOUT_RAY))
        if name(path) not in MAY_IMPORT | NEEDS_FILES
    ]
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        for other in imports(path, at_once=True):
            refused = ("ray", "accelerate", "pyarrow", "datasets", "omegaconf", "sklearn")
            assert other.split(".")[0] not in refused, f"{name(path)} imports {other}"
            parts = other.split(".")
            files = [Path(ROOT, *parts[:end]).with_suffix(".py") for end in range(2, len(parts) + 1)]
            waiting += [file for file in files if file.exists() and file not in seen]
    assert PACKAGE / "config" / "values.py" in seen


def test_every_folder_has_its_place() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").is_file()}
    assert folders <= {"config", "reports", *LAYERS}


@pytest.mark.parametrize("path", python_files("pipeline"), ids=name)
def test_scripts_are_thin(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert len(path.read_text().splitlines()) < MAX_SCRIPT_LINES
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert calls == ["JOB.main"]
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
