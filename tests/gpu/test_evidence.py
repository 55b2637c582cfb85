"""`benchmarks/gpu.py --evidence` on a CPU: it trains, tunes, and goes on where it was stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_run import make_documents

from supmer.config.load import load_config
from supmer.corpus.prepare import prepare

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = """
meta: {steps: 2, tasks_per_step: 2}
prompt: {length: 4}
regularizer: {rank: 4}
tasks: {kinds: [nsp, scsp], num_support: 4, num_query: 4, max_length: 96}
train: {validation_episodes: 1}
fewshot: {steps: 2, eval_every: 2, seeds: [1], max_test_rows: 20, methods: [prompt_tuning, supmer]}
"""


@pytest.mark.slow
def test_a_short_lease_yields_cells_and_the_next_one_goes_on(shared: Path, tmp_path: Path) -> None:
    documents = tmp_path / "corpus.jsonl"
    documents.write_text("".join(json.dumps({"text": text}) + "\n" for text in make_documents(60)))
    small = ("corpus.validation_fraction=0.3", "corpus.min_unit_tokens=3", "corpus.max_unknown=1", "clusters.num_clusters=6")
    sizes = ("tasks.kinds=[nsp,scsp]", "tasks.num_support=4", "tasks.num_query=4", "backbone.name=embedded")
    store = prepare(load_config(None, [f"corpus.paths=[{documents}]", f"corpus.store_dir={tmp_path}", *small, *sizes]))
    settings = tmp_path / "settings.yaml"
    settings.write_text(SETTINGS)
    command = [sys.executable, "benchmarks/gpu.py", "--cpu", "--evidence", "embedded", "--store", store]
    command += ["--data-dir", str(shared / "tasks"), "--tasks", "sst-2", "--settings", str(settings)]
    command += ["--run", str(tmp_path / "run"), "--minutes", "5"]
    tables = []
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        tables.append([line for line in done.stdout.splitlines() if line.startswith("| evidence") and "seconds" not in line])
    assert tables[0] == tables[1] and len(tables[0]) == 3, tables
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert max(steps) == 2 and len(steps) == 2 + 2 * 2
    assert len((tmp_path / "run" / "fewshot.jsonl").read_text().splitlines()) == 2
