"""Progress as a user sees it: on a terminal, and in a log."""

from __future__ import annotations

import logging
import os
import pty
import re
import subprocess
import sys
import time
from datetime import datetime, timedelta

import pytest

from supmer import progress as progress_module
from supmer.progress import Progress, time_left

PROGRAM = """
import logging, time
from supmer.cli import _configure_logging
from supmer.progress import Progress
_configure_logging("info")
with Progress("loading") as loading:
    time.sleep(0.3)
with Progress("embedding", 4000, "sentences") as shown:
    for _ in range(4):
        time.sleep(0.3)
        shown.add(1000)
        shown.note = "loss 1.5"
    shown.say("a line that is longer than the terminal " + "x" * 100)
    time.sleep(0.5)
"""


def test_a_terminal_has_a_bar_and_whole_lines_above_it() -> None:
    end, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stderr=terminal, env=environment) as process:
        os.close(terminal)
        written = b""
        try:
            while part := os.read(end, 4096):
                written += part
        except OSError:  # how the other end of a pseudo-terminal is closed
            pass
    os.close(end)
    assert process.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode())
    assert "2,000/4,000 sentences, " in text
    assert "loss 1.5" in text
    assert re.search(r"a line that is longer than the terminal x{100}\r\n", text)
    assert re.search(r"embedding: 4,000 sentences done after \d\.\d s; loss 1\.5\r\n", text)
    assert b"\x1b[?25h" in written  # the cursor is shown again


def test_a_log_has_a_line_after_each_silence(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(progress_module, "SECONDS_BETWEEN_LINES", 0.5)
    caplog.set_level(logging.INFO, "supmer")
    with Progress("labelling", 10, "rows") as progress:
        progress.add(5)
        for _ in range(4):  # these are news enough
            time.sleep(0.3)
            progress.say("news")
        assert set(caplog.messages) == {"news"}
        time.sleep(0.8)
    assert [message for message in caplog.messages if message.startswith("labelling: 5 of 10 rows (50%), ")]


def test_a_failed_step_does_not_say_that_it_took_its_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "supmer")
    with pytest.raises(ValueError, match="broken"), Progress("labelling", 10, "rows"):
        raise ValueError("broken")
    assert caplog.messages == []


def test_long_jobs_say_when_they_will_be_done() -> None:
    for hours, form in ((0.5, "%H:%M"), (48, "%a %d %b %H:%M")):
        text = time_left(3600 * hours)
        end = datetime.now() + timedelta(hours=hours)
        if hours == 0.5 and end.date() != datetime.now().date():
            form = "%a %d %b %H:%M"
        assert text.endswith((f"(until {end.strftime(form)})", f"(until {(end - timedelta(minutes=1)).strftime(form)})"))
