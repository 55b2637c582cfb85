"""The main job through its command line, from raw text to results."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from scripts import call, run
from tiny_run import tiny_overrides

from supmer.train.metrics import read_rows

OWN_LINE = re.compile(r"^\d\d:\d\d:\d\d (?!warning: |error: )")
RAYS_OWN = re.compile(r"^(\x1b\[\d+m)*(\[[^]]*\] (logging|network_util)\.cc:\d+: |\(raylet\))")
"""What Ray's core says whatever its log level: that level, that there is no network where there is none, and where processes
are slow to start, how many are starting."""


@pytest.mark.cluster
def test_from_raw_text_to_results_with_relative_paths(
    tiny_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Relative names of backbone, corpus, store and run directory mean the same in the workers as here."""
    for name in ("backbone", "corpus.jsonl"):
        (tmp_path / name).symlink_to(tiny_files / name)
    settings = tiny_overrides(Path(), "run.name=first", "meta.steps=6", "train.validate_every=3")
    result = run("metatrain.py", *settings, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert [line for line in lines if not (OWN_LINE.match(line) or RAYS_OWN.match(line))] == []
    assert "step 6/6" in result.stderr
    (command,) = re.findall("next, tune it on labelled tasks: (.*)", result.stderr)
    as_printed = subprocess.run([*shlex.split(command), "--print-config"], cwd=tmp_path, capture_output=True, check=True)
    assert b"name: first" in as_printed.stdout
    folder = tmp_path / "runs" / "first"
    assert len(read_rows(str(folder / "metrics.jsonl"))) == 6 + 3 * 5
    assert (folder / "report.html").stat().st_size > 10_000

    monkeypatch.chdir(tmp_path)
    assert call("metatrain.py", *settings).returncode == 0
    assert "run first is already complete and re-used" in caplog.text
    assert re.search(r"store \S+ re-used", caplog.text)

    conflict = call("metatrain.py", *settings, "run.seed=1")
    assert conflict.returncode == 2
    assert conflict.stderr.count("\n") == 1
    assert "run.seed: 0 -> 1" in conflict.stderr


def test_missing_backbone_folder_is_one_line(tiny_files: Path, tmp_path: Path) -> None:
    result = call("metatrain.py", *tiny_overrides(tiny_files, "backbone.name=/nowhere/t5", f"run.dir={tmp_path}"))
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("error: backbone.name=/nowhere/t5: ")
    assert "Traceback" not in result.stderr
