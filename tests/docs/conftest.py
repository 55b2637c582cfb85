"""One folder for all that the pages and the notebook say: a later command finds what the earlier ones have made."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL_JOBS = Path(__file__).with_name("small_jobs.py")


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a checkout has it, with commands that do less."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("configs", "pipeline"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "standard_library.py", folder / "docs")
    for name in ("supmer", "python"):
        program = folder / ".venv" / "bin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {SMALL_JOBS} {name} "$@"\n')
        program.chmod(0o755)
    (folder / ".venv" / "bin" / "activate").write_text("")
    return folder


@pytest.fixture(scope="package")
def environment(folder: Path) -> dict[str, str]:
    """Variables for what runs in the folder: its commands come first."""
    return {
        **os.environ,
        "PATH": f"{folder / '.venv' / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
    }
