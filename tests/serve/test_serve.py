"""`supmer serve` as a user runs it, on a real cluster."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from endpoint import TOKEN, Client
from processes import descendants
from safetensors.numpy import load_file, save_file
from scipy.special import softmax
from scripts import call, finish, start

from supmer.config import Config

Rows = dict[str, list[dict[str, Any]]]
QUERY = "encoder.block.0.layer.0.SelfAttention.q.weight"
CELLS = {task: f"{task}.supmer.k4.pattern0.seed0" for task in ("colour", "place")}


def replicas(process: int) -> list[psutil.Process]:
    """Return the processes that hold the backbone."""
    return descendants("ServeReplica", "backbone-", of=process)


@pytest.mark.slow
@pytest.mark.cluster
def test_requests_are_answered_while_replicas_die_and_tasks_come_and_go(
    tuned_run: Config, test_rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUPMER_SERVE_TOKEN", TOKEN)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cells = {task: Path(tuned_run.run_dir) / "fewshot" / cell for task, cell in CELLS.items()}
    arguments = [f"--run={cells['colour']}", f"--run={cells['place']}", f"--port={port}", f"run.dir={tmp_path}"]
    process = start("serve.py", *arguments)
    client, deadline = Client(f"http://127.0.0.1:{port}"), time.monotonic() + 300
    while True:
        try:
            if client.send("GET", "/healthz")[0] == 200:
                break
        except OSError:
            pass
        assert process.poll() is None and time.monotonic() < deadline, "the endpoint does not start"
        time.sleep(0.5)
    expected = {task: json.loads((cell / "details.json").read_text()) for task, cell in cells.items()}

    def ask(task: str, index: int) -> None:
        row = {name: test_rows[task][index][name] for name in ("first", "second")}
        until = time.monotonic() + 200
        while (answer := client.predict(task, [row]))[0] == 503 and time.monotonic() < until:
            time.sleep(0.5)
        assert answer[0] == 200, answer
        found = [answer[1]["scores"][0][word] for word in expected[task]["record"]["label_words"]]
        np.testing.assert_allclose(found, softmax(expected[task]["scores"][index]), atol=1e-5)

    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(ask, task, index) for index in range(200) for task in CELLS]
        for count in (50, 150):
            while sum(future.done() for future in asked) < count:
                time.sleep(0.05)
            for replica in replicas(process.pid):
                replica.kill()
        for future in asked:
            future.result()

    body = {"run": str(cells["place"]), "name": "mine"}
    assert client.send("POST", "/tasks", body, TOKEN)[0] == 201
    assert [task["task"] for task in client.send("GET", "/tasks")[1]["tasks"]] == ["colour", "mine", "place"]
    assert client.send("DELETE", "/tasks/mine", token=TOKEN)[0] == 204

    os.kill(process.pid, signal.SIGTERM)
    code, out, err = finish(process, 120)
    assert code == 0 and "2 tasks at http://127.0.0.1:" in err and TOKEN not in out + err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: --run is needed: there is no task to serve yet"),
        (["--run", "nowhere"], "error: --run nowhere: has no fewshot.jsonl; tune a prompt first"),
        (["--run", "RUN", "--run", "RUN"], "task colour is served from"),
        (["--run", "x=RUN"], "has several tasks (colour, place); name the folder of a cell"),
        (["--run", "RUN", "--port", "0"], "error: serve.port=0: "),
        (["--run", "RUN", "serve.min_replicas=2"], "error: serve.min_replicas=2: must be at most serve.max_replicas=1"),
        (["--run", "RUN", "serve.host=256.0.0.1"], "cannot be listened at on 256.0.0.1"),
    ],
)
def test_a_mistake_is_one_line(tuned_run: Config, tmp_path: Path, arguments: list[str], message: str) -> None:
    named = [argument.replace("RUN", tuned_run.run_dir) for argument in arguments]
    done = call("serve.py", *named, f"run.dir={tmp_path}")
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_a_port_that_is_taken_is_named(tuned_run: Config, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = call("serve.py", "--run", tuned_run.run_dir, f"run.dir={tmp_path}", f"--port={port}")
    assert done.returncode == 2 and f"error: serve.port={port}: cannot be listened at" in done.stderr


def test_damaged_weights_are_one_line_before_ray_starts(tuned_run: Config, tmp_path: Path) -> None:
    cell, backbone = tmp_path / "cell", tmp_path / "backbone"
    shutil.copytree(Path(tuned_run.run_dir) / "fewshot" / CELLS["colour"], cell)
    shutil.copytree(tuned_run.backbone.name, backbone)
    definition = json.loads((cell / "definition.json").read_text())
    definition["backbone"] |= {"name": str(backbone), "tokenizer": str(backbone)}
    (cell / "definition.json").write_text(json.dumps(definition))
    tensors = load_file(backbone / "model.safetensors")
    tensors[QUERY][1, 2] = np.nan
    save_file(tensors, backbone / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "rows.jsonl").write_text('{"first": "a", "second": "b"}\n')
    files = ("--input", tmp_path / "rows.jsonl", "--output", tmp_path / "out.jsonl", "predict.actors=1")
    for script, more in (("serve.py", [f"run.dir={tmp_path}"]), ("predict.py", files)):
        done = call(script, "--run", cell, *more)
        assert done.returncode == 2 and f"{QUERY} holds values that are not finite" in done.stderr, (script, done)
        assert done.stderr.count("\n") == 1
