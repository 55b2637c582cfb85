"""Labelling many rows: rows a second, memory at a tenth of the rows and at all, and a job that is killed in the middle.

    python benchmarks/predict_rows.py [--rows 100000] [predict.actors=1 ...]

`pipeline/predict.py` runs as users run it, on a tiny random T5, with the rows of the quickstart's task over and over. Each
output must hold every row once, in order, with the scores that `Predictor` gives it; a job that was ended by SIGKILL and
started again must write the same bytes. Memory is the peak of the process tree (shared memory counts once). The rate is
that of the rows beyond the first tenth, so that the start of the job plays no part. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.hardware import describe
from benchmarks.prepare import tree_memory
from supmer.config import BackboneConfig, Config
from supmer.corpus.package_docs import task_rows
from supmer.fewshot.definition import DEFINITION_FILE, define
from supmer.fewshot.starting_points import PROMPT_FILE
from supmer.fewshot.task import load_task
from supmer.package_data import data_folder
from supmer.predict.predictor import Predictor

SCRIPT = Path(__file__).resolve().parents[1] / "pipeline" / "predict.py"
WIDTH = 32
TOLERANCE = 1e-5


def make_cell(folder: Path) -> Path:
    """Write a random backbone and the folder of a cell with a random prompt for it."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(data_folder("backbone/embedded"))
    shape = T5Config(vocab_size=len(tokenizer), d_model=WIDTH, d_kv=8, d_ff=64, num_layers=1, num_heads=4)
    shape.decoder_start_token_id = 0
    T5ForConditionalGeneration(shape).save_pretrained(folder / "backbone")
    tokenizer.save_pretrained(folder / "backbone")
    cell = folder / "cell"
    cell.mkdir()
    config = Config(backbone=BackboneConfig(name=str(folder / "backbone")))
    (cell / DEFINITION_FILE).write_text(define(config, load_task("library-docs"), 0).model_dump_json())
    save_file({"prompt": torch.randn(20, WIDTH)}, cell / PROMPT_FILE)
    return cell


def run_job(cell: Path, source: Path, target: Path, settings: list[str], kill_at: int = 0) -> tuple[float, int]:
    """Label a file, or kill the job when so many parts are written; return seconds and the peak memory in bytes."""
    command = [sys.executable, str(SCRIPT), f"--run={cell}", f"--input={source}"]
    started, peak, parts = time.perf_counter(), 0, Path(f"{target}.parts")
    with (target.parent / "job.log").open("a") as log:
        job = subprocess.Popen([*command, f"--output={target}", *settings], start_new_session=True, stdout=log, stderr=log)
        while job.poll() is None:
            peak = max(peak, tree_memory(job.pid))
            if kill_at and len([*parts.glob("*.json")]) >= kill_at:
                os.killpg(job.pid, signal.SIGKILL)
                job.wait()
                break
            time.sleep(0.1)
    assert job.returncode == (-signal.SIGKILL if kill_at else 0), (target.parent / "job.log").read_text()[-2000:]
    return time.perf_counter() - started, peak


def check(target: Path, num_rows: int, expected: np.ndarray) -> None:
    """Compare an output with the probabilities [N, C] of the rows that it repeats."""
    written = [json.loads(line) for line in target.read_text().splitlines()]
    assert [row["id"] for row in written] == [*range(num_rows)], "a row is missing, twice or in another place"
    found = np.array([[*row["scores"].values()] for row in written])
    worst = np.abs(found - expected[np.arange(num_rows) % len(expected)]).max()
    assert worst <= TOLERANCE, f"scores differ by {worst}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("settings", nargs="*", help="settings of the job, such as predict.actors=1")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(describe())
    texts, few = [row["text"] for row in task_rows("test")], arguments.rows // 10
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cell = make_cell(folder)
        expected = Predictor.load(str(cell)).predict([{"text": text} for text in texts]).probabilities
        assert np.std(expected, axis=0).min() > 1e-4, "all rows have the same scores: they would show nothing"
        for rows in (few, arguments.rows):
            lines = (json.dumps({"id": number, "text": texts[number % len(texts)]}) for number in range(rows))
            (folder / f"{rows}.jsonl").write_text("\n".join(lines))
        measured = {}
        for rows in (few, arguments.rows):
            measured[rows] = run_job(cell, folder / f"{rows}.jsonl", folder / f"{rows}-out.jsonl", arguments.settings)
            check(folder / f"{rows}-out.jsonl", rows, expected)
            print(f"{rows:,} rows: {measured[rows][0]:.0f} s, peak {measured[rows][1] / 1e6:.0f} MB")
        again = (cell, folder / f"{arguments.rows}.jsonl", folder / "again.jsonl", arguments.settings)
        run_job(*again, kill_at=arguments.rows // 2000)  # half of the parts, each of 1,000 rows
        kept = len([*(folder / "again.jsonl.parts").glob("*.json")])
        seconds, _ = run_job(*again)
        assert (folder / "again.jsonl").read_bytes() == (folder / f"{arguments.rows}-out.jsonl").read_bytes()
        print(f"killed when {kept} parts were written; the same command wrote the rest in {seconds:.0f} s, the same bytes")
    (first, small), (whole, large) = measured.values()
    rate, growth = (arguments.rows - few) / (whole - first), large / small
    print(json.dumps({"benchmark": "predict-rows", "rows_per_second": round(rate), "memory_ratio": round(growth, 2)}))


if __name__ == "__main__":
    main()
