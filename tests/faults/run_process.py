"""A run of `pipeline/metatrain.py` in processes of its own, seen from outside: its steps, its exit, its processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from processes import descendants

SCRIPT = Path(__file__).resolve().parents[2] / "pipeline" / "metatrain.py"

TAIL_BYTES = 8192


class RunLostError(Exception):
    """The run stood still or ended in a way that no fault asked for."""


class RunProcess:
    """One run, and the command that starts and continues it.

    Args:
        folder: its run directory; the output of all its commands is in `<folder>.log`.
        settings: what the command is given.
        environment: added to this process's own.
    """

    def __init__(self, folder: Path, settings: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.log = folder.with_suffix(".log")
        self._command = [sys.executable, str(SCRIPT), f"run.dir={folder.parent}", f"run.name={folder.name}", *settings]
        self._environment = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Give the command, in a process group of its own as a terminal would."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, env=self._environment, start_new_session=True
            )

    @property
    def exit_code(self) -> int | None:
        """The exit code of the last command, None while it runs."""
        assert self._process is not None
        return self._process.poll()

    @property
    def step(self) -> int:
        """The last meta-step in `metrics.jsonl`."""
        metrics = self.folder / "metrics.jsonl"
        if not metrics.exists():
            return 0
        with metrics.open("rb") as file:
            file.seek(max(0, metrics.stat().st_size - TAIL_BYTES))
            lines = file.read().splitlines(keepends=True)
        whole = [line for line in lines[1:] if line.endswith(b"\n")]
        return int(json.loads(whole[-1])["step"]) if whole else 0

    def count(self, text: str) -> int:
        """Count a text in the output of all commands so far."""
        return self.log.read_text().count(text)

    def processes(self, word: str) -> list[psutil.Process]:
        """Return the run's own processes with this word in the command line."""
        assert self._process is not None
        return descendants(word, of=self._process.pid)

    def signal(self, number: signal.Signals, *, group: bool = False) -> None:
        """Send a signal to the driver alone, or to its process group as a terminal does."""
        assert self._process is not None
        (os.killpg if group else os.kill)(self._process.pid, number)

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> None:
        """Wait for a condition while the command runs.

        Raises:
            RunLostError: the condition did not come true in time, or the command ended before.
        """
        give_up = time.monotonic() + seconds
        while not condition():
            if self.exit_code is not None:
                raise RunLostError(f"{self.folder.name}: ended with exit code {self.exit_code} at step {self.step}")
            if time.monotonic() > give_up:
                raise RunLostError(f"{self.folder.name}: {seconds:g} s passed at step {self.step}")
            time.sleep(0.005)

    def wait_for_exit(self, code: int, seconds: float) -> None:
        """Wait for the command's end; RunLostError if it does not come in time or with another exit code."""
        assert self._process is not None
        try:
            found = self._process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise RunLostError(f"{self.folder.name}: still running after {seconds:g} s at step {self.step}") from error
        if found != code:
            raise RunLostError(f"{self.folder.name}: ended with exit code {found}, not {code}, at step {self.step}")

    def end(self) -> None:
        """Kill what is left of the run."""
        if self._process is not None and self._process.poll() is None:
            for process in self.processes(""):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            self._process.kill()
            self._process.wait()
