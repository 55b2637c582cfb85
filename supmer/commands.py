"""Commands that a job prints for the user, so that they run as printed, where this job was started."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path


def this_command() -> str:
    """Return the command that started this process."""
    return shlex.join([*_start(), *sys.argv[1:]])


def job_command(job: str, *arguments: str) -> str:
    """Return a command for another job, whose script lies beside this one.

    >>> job_command("metatrain", "--config", "my runs/best.yaml")  # doctest: +SKIP
    "python pipeline/metatrain.py --config 'my runs/best.yaml'"
    """
    return shlex.join([*_start(job), *arguments])


def _start(job: str | None = None) -> list[str]:
    """Return what starts a job, by default the one that this process does."""
    program, *command = sys.argv[0].split(" ", 1)
    if program == "supmer" and command:  # as `supmer.jobs.command` leaves it
        return [_path_of("supmer"), job.replace("_", "-") if job else command[0]]
    script = Path(sys.argv[0])
    if job is not None:
        script = script.with_name(f"{job}.py") if script.parent.name == "pipeline" else Path("pipeline", f"{job}.py")
    return [_path_of("python"), str(script)]


def _path_of(program: str) -> str:
    """Return a program of this environment as the shell finds it: by its name, or by its path from this folder."""
    here, found = Path(sys.executable).with_name(program), shutil.which(program)
    if found is not None and Path(found).parent == here.parent:
        return program
    return str(here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here)
