"""Running the scripts of `pipeline/`: in this process, which spares importing torch and Ray again, or in their own."""

from __future__ import annotations

import io
import os
import runpy
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]

Finished = subprocess.CompletedProcess[str]


def call(script: str, *arguments: str | Path) -> Finished:
    """Run a script's `main` here, as `python pipeline/SCRIPT ...` would; log lines go to pytest, not to stderr."""
    path, command = ROOT / "pipeline" / script, [script, *map(str, arguments)]
    code: object = 0
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err, patch.object(sys, "argv", command):
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as ended:
            code = ended.code or 0
    assert isinstance(code, int)
    return Finished(command, code, out.getvalue(), err.getvalue())


def start(script: str, *arguments: str | Path, cwd: Path | None = None, **options: object) -> subprocess.Popen[str]:
    """Start a script in a process of its own, where no cluster is joined and no core oversubscribed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, str(ROOT / "pipeline" / script), *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=cwd, env=environment, **{**pipes, **options})  # type: ignore[call-overload]


def finish(process: subprocess.Popen[str], timeout: float = 400) -> tuple[int, str, str]:
    """Return a started script's exit code and what it wrote; a script that runs longer is killed."""
    with process:  # closes its pipes
        try:
            out, err = process.communicate(timeout=timeout)
        finally:
            process.kill()
    return process.returncode, out, err


def run(script: str, *arguments: str | Path, cwd: Path | None = None, timeout: float = 500) -> Finished:
    """Run a script in a process of its own."""
    process = start(script, *arguments, cwd=cwd)
    code, out, err = finish(process, timeout)
    return Finished(process.args, code, out, err)
