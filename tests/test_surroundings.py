"""Surroundings that containers and clusters give a job: long folders, no home, a user without a name, proxies."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from supmer.cli import give_home
from supmer.errors import UserError
from supmer.runtime import LONGEST_SOCKET, LONGEST_SOCKET_PATH, session_folder

STARTS = "import ray; from supmer.runtime import connect_ray; connect_ray(); print(ray.get(ray.put(7)))"


@pytest.fixture
def long_folder() -> str:
    """A folder whose path leaves no room for Ray's sockets."""
    return tempfile.mkdtemp(suffix="x" * 60)


@pytest.mark.parametrize("excess", [0, 1])
def test_a_folder_is_replaced_where_a_socket_would_not_fit(excess: int, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = "/" + "x" * (LONGEST_SOCKET_PATH - len(LONGEST_SOCKET) - 1 + excess)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", folder)
    assert session_folder() == ({"RAY_TMPDIR": "/tmp"} if excess else {})
    monkeypatch.setenv("RAY_TMPDIR", folder)
    if excess:
        with pytest.raises(UserError, match=rf"^RAY_TMPDIR={folder}: must have at most 39 bytes"):
            session_folder()
    else:
        assert session_folder() == {}


@pytest.mark.parametrize("home", ["/nowhere", "~"])
def test_a_user_without_a_home_gets_a_folder(home: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", home)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    give_home()
    assert os.environ["HOME"] == str(tmp_path / f"supmer-home-{os.getuid()}")
    assert Path(os.environ["HOME"]).stat().st_mode & 0o777 == 0o700


def test_a_home_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    give_home()
    assert os.environ["HOME"] == str(tmp_path)


@pytest.mark.cluster
def test_a_cluster_starts_with_a_long_folder_and_without_a_home(long_folder: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "RAY_TMPDIR", "RAY_ADDRESS")}
    done = subprocess.run(
        [sys.executable, "-c", STARTS],
        env={**environment, "TMPDIR": long_folder, "ALL_PROXY": "socks5://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr
