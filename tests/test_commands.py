"""Commands that jobs print: the shell finds what they name, from the folder where the job was started."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from supmer.commands import job_command, this_command

ENVIRONMENT = Path(sys.executable).parent


@pytest.mark.parametrize(
    ("argv", "this", "other"),
    [
        (["pipeline/tune.py", "a=[1, 2]"], ["pipeline/tune.py", "a=[1, 2]"], ["pipeline/prompt_tune.py", "b=1 2"]),
        (["/a b/pipeline/tune.py"], ["/a b/pipeline/tune.py"], ["/a b/pipeline/prompt_tune.py", "b=1 2"]),
        (["supmer tune", "a=1"], ["tune", "a=1"], ["prompt-tune", "b=1 2"]),
    ],
)
def test_printed_commands_start_this_installation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, argv: list[str], this: list[str], other: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", argv)
    program = "supmer" if argv[0].startswith("supmer ") else "python"
    for path, shown in ((f"{ENVIRONMENT}{os.pathsep}/bin", program), ("/bin", str(ENVIRONMENT / program))):
        monkeypatch.setenv("PATH", path)
        if shown == "supmer" and not (ENVIRONMENT / "supmer").exists():
            continue  # the package is not installed here
        assert shlex.split(this_command()) == [shown, *this]
        assert shlex.split(job_command("prompt_tune", "b=1 2")) == [shown, *other]


def test_an_environment_below_this_folder_is_named_from_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ENVIRONMENT.parent)
    monkeypatch.setattr(sys, "argv", ["pipeline/tune.py"])
    monkeypatch.setenv("PATH", "/bin")
    assert this_command() == f"{ENVIRONMENT.name}/python pipeline/tune.py"
