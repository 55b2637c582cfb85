"""`supmer predict` as a user runs it: files in, files out, through a real cluster."""

from __future__ import annotations

import csv
import gzip
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import softmax
from scripts import call, finish, start
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from supmer.config import Config
from supmer.predict.batch import Outcome

CELL = "colour.supmer.k4.pattern0.seed0"
Rows = dict[str, list[dict[str, Any]]]


def predict(tuned_run: Config, *arguments: str | Path) -> str:
    done = call("predict.py", "--run", tuned_run.run_dir, "--cell", CELL, "predict.part_rows=30", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("actors", [0, pytest.param(2, marks=pytest.mark.cluster)])
def test_files_of_each_format_come_back_with_answers(
    tuned_run: Config, test_rows: Rows, tmp_path: Path, actors: int
) -> None:
    rows = [{"id": index, **row} for index, row in enumerate(test_rows["colour"])]
    del rows[3]["second"]
    rows[5]["first"], rows[7]["second"] = ["a"], " "
    source = tmp_path / "in"
    source.mkdir()
    with gzip.open(source / "a.jsonl.gz", "wt") as stream:
        stream.write("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    names = ["id", "first", "second", "label", "kind"]
    with (source / "b.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(row | {"first": str(row["first"])} for row in rows)
    whole = [row for index, row in enumerate(rows) if index not in (3, 5)]
    typed = pa.Table.from_pylist(whole).append_column("day", pa.array([7] * len(whole), pa.date32()))
    pq.write_table(typed, source / "c.parquet", row_group_size=41)

    printed = predict(tuned_run, "--input", source, "--output", tmp_path / "out", f"predict.actors={actors}")

    details = json.loads((Path(tuned_run.run_dir) / "fewshot" / CELL / "details.json").read_text())
    expected, truth = softmax(np.asarray(details["scores"]), axis=1), np.asarray(details["labels"])
    words = details["record"]["label_words"]
    bad = {3: "field 'second' is missing", 5: "field 'first' must be text, not list", 7: "field 'second' is empty"}

    json_out = lines(tmp_path / "out" / "a.jsonl")
    assert [row["id"] for row in json_out] == list(range(200))
    for index, (row, given) in enumerate(zip(json_out, rows, strict=True)):
        kept = {name: value for name, value in given.items() if name != "label"}
        added = {name: value for name, value in row.items() if name not in kept}
        assert kept.items() <= row.items()
        if index in bad:
            assert added == {"given_label": given["label"], "error": bad[index]}
            continue
        assert added.keys() == {"given_label", "label", "scores"}
        assert added["label"] == words[expected[index].argmax()]
        np.testing.assert_allclose([row["scores"][word] for word in words], expected[index], atol=1e-5)

    with (tmp_path / "out" / "b.csv").open(newline="") as stream:
        csv_out = list(csv.DictReader(stream))
    assert list(csv_out[0]) == ["id", "first", "second", "given_label", "kind", "label", "scores", "error"]
    assert [int(row["id"]) for row in csv_out] == list(range(200))
    assert csv_out[7]["error"] == bad[7] and csv_out[7]["label"] == csv_out[7]["scores"] == ""
    assert json.loads(csv_out[10]["scores"]) == pytest.approx(json_out[10]["scores"], abs=1e-5)

    table = pq.read_table(tmp_path / "out" / "c.parquet")
    assert table.drop_columns(["given_label", "label", "scores", "error"]) == typed.drop_columns("label")
    assert table["given_label"].to_pylist() == [row["label"] for row in whole]
    by_id = {row["id"]: row for row in json_out}
    for row in table.to_pylist():
        assert row["label"] == by_id[row["id"]].get("label") and row["error"] == by_id[row["id"]].get("error")

    assert "592 of 598 rows labelled" in printed
    assert "4 rows have an error: field 'second' is empty" in printed
    assert "left out: 1 rows that are not JSON objects" in printed
    assert not (tmp_path / "out.parts").exists()
    # In the CSV file rows 3 and 7 lack a text, in the Parquet file row 3 and 5 are not there.
    kept = np.concatenate([np.delete(np.arange(200), gone) for gone in ([3, 5, 7], [3, 7], [3, 5, 7])])
    predicted = expected[kept].argmax(axis=1)
    accuracy, macro_f1 = accuracy_score(truth[kept], predicted), f1_score(truth[kept], predicted, average="macro")
    assert f"accuracy {accuracy:.4f}, macro-F1 {macro_f1:.4f} on 592 rows with a class" in printed
    if actors:  # the cluster has 3 CPUs
        arguments = ["--input", source, "--output", tmp_path / "again", "predict.actors=9"]
        done = call("predict.py", "--run", tuned_run.run_dir, "--cell", CELL, *arguments)
        assert done.returncode == 2 and "error: predict.actors=9: needs 9.25 CPUs" in done.stderr


def test_measures_are_those_of_the_rows() -> None:
    generator = np.random.default_rng(0)
    truth, predicted = generator.integers(0, 3, 500), generator.integers(0, 3, 500)
    outcome = Outcome(["a", "b", "c", "d"], 500, {}, {}, confusion_matrix(truth, predicted, labels=range(4)))
    assert outcome.accuracy == pytest.approx(accuracy_score(truth, predicted))
    assert outcome.macro_f1 == pytest.approx(f1_score(truth, predicted, average="macro"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "nowhere.jsonl", "--output", "out"], "error: --input=nowhere.jsonl: no such file or folder"),
        (["--input", "note.txt", "--output", "out"], "must be JSONL, CSV or Parquet files"),
        (["--input", "a.jsonl", "--output", "out.csv"], "error: --output=out.csv: must be a folder, or of one input file's"),
        (["--input", "a.jsonl", "--output", "a.jsonl"], "error: --output=a.jsonl: must not be where the input"),
        (["--input", "a.jsonl", "a.ndjson", "--output", "out"], "another file would be written to"),
        (["--input", "a.jsonl"], "error: the following arguments are required: --output"),
    ],
)
def test_a_mistake_is_one_line(
    tuned_run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl", "a.ndjson", "note.txt"):
        write(Path(name), [{"first": "a", "second": "b"}])
    done = call("predict.py", "--run", tuned_run.run_dir, "--cell", CELL, *arguments)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_killed_job_goes_on_and_writes_each_row_once(tuned_run: Config, test_rows: Rows, tmp_path: Path) -> None:
    rows = [{"id": index, **test_rows["colour"][index % 200]} for index in range(6000)]
    source, target = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    parts = tmp_path / "out.jsonl.parts"
    command = [
        "--run",
        tuned_run.run_dir,
        "--cell",
        CELL,
        "predict.part_rows=50",
        "--input",
        source,
        "--output",
        target,
    ]
    job = start("predict.py", *command, start_new_session=True)
    deadline = time.monotonic() + 300
    while len(list(parts.glob("*.json"))) < 10:
        assert job.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(job.pid, signal.SIGKILL)
    job.communicate()
    assert not target.exists()
    before = {path.name: path.stat().st_mtime_ns for path in parts.glob("*.json")}
    assert len(before) < 120
    again = start("predict.py", *command)
    code, out, err = finish(again)
    assert code == 0 and "6,000 of 6,000 rows labelled" in out and "going on with what" in err
    found = lines(target)
    assert [row["id"] for row in found] == list(range(6000))
    assert [row["label"] for row in found] == [found[index % 200]["label"] for index in range(6000)]
