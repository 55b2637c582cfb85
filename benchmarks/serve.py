"""Many tuned prompts on one frozen model: what batching requests of different tasks gains, and what the endpoint survives.

    python benchmarks/serve.py [--tasks 50] [--clients 32] [--seconds 20] [--faults]

The endpoint runs as users run it (`pipeline/serve.py`), once with batches and once with batches of one, and its answers are
compared with those of one request at a time before anything is timed. `--faults` instead kills the replica three times under
load, breaks connections off, cuts bodies and sends 1,000 damaged ones. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.hardware import describe
from supmer.config import BackboneConfig, Config
from supmer.config.load import with_settings
from supmer.fewshot.definition import define
from supmer.fewshot.starting_points import PROMPT_FILE
from supmer.fewshot.task import load_task
from supmer.model.build import build_model
from supmer.model.prompted import initial_prompt

TOKEN = "benchmark-token"
TEXTS = [
    "a fine film",
    "dull",
    "what a waste of time",
    "warm and funny",
    "the plot is thin",
    "I left early",
    "superb acting",
]
TOLERANCE = 1e-5
UNDER_LOAD, WITHOUT_LOAD = 20, 200
"""Tasks that are added: while clients ask, which must lose no request, and then, to measure the memory of a task."""


@dataclass
class Load:
    """What clients have counted: seconds of each answer, rows answered, and statuses."""

    seconds: list[float] = field(default_factory=list)
    rows: int = 0
    statuses: dict[int, int] = field(default_factory=dict)
    wrong: int = 0
    lost: int = 0


class Endpoint:
    """A served folder of made-up tuned prompts, in processes of its own."""

    def __init__(self, folder: Path, runs: list[Path], *settings: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        script = Path(__file__).resolve().parents[1] / "pipeline" / "serve.py"
        arguments = [f"--run={run}" for run in runs] + [f"--port={self.port}", f"run.dir={folder}", *settings]
        environment = {**os.environ, "SUPMER_SERVE_TOKEN": TOKEN}
        self.process = subprocess.Popen([sys.executable, str(script), *arguments], env=environment)
        deadline = time.monotonic() + 300
        while self.status("GET", "/healthz") != 200:
            assert self.process.poll() is None and time.monotonic() < deadline, "the endpoint does not start"
            time.sleep(0.5)

    def send(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def status(self, method: str, path: str, body: bytes = b"", **headers: str) -> int:
        """Return the status of an answer, 0 where none came."""
        try:
            return self.send(method, path, body, **headers)[0]
        except OSError:
            return 0

    def replica(self) -> psutil.Process:
        """Return the process that holds the backbone; the next one where it was killed."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            for child in psutil.Process(self.process.pid).children(recursive=True):
                if "ServeReplica" in _title(child) and "backbone-" in _title(child):
                    return child
            time.sleep(0.5)
        raise AssertionError("no replica takes the place of the one that was killed")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(120) == 0


def _title(process: psutil.Process) -> str:
    """Return what Ray calls a process, such as `ray::ServeReplica:supmer:front`."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def make_runs(folder: Path, num_tasks: int) -> list[Path]:
    """Write the cells of so many tasks, with prompts of lengths 5 to 20."""
    config = Config(backbone=BackboneConfig(name="embedded"))
    model = build_model(config)
    task = load_task("sst-2")
    runs = []
    for number in range(num_tasks):
        run = folder / f"task-{number:03d}"
        run.mkdir()
        definition = define(config, task.model_copy(update={"name": run.name}), 0)
        (run / "definition.json").write_text(definition.model_dump_json())
        length = 5 + number % 16
        prompt = initial_prompt(with_settings(config.prompt, {"length": length}), model, seed=number)
        save_file({"prompt": prompt.contiguous()}, run / PROMPT_FILE)
        runs.append(run)
    return runs


def make_requests(runs: list[Path], num: int) -> list[bytes]:
    """Return bodies of one row each, of all tasks."""
    draw = random.Random(0)
    field_name = load_task("sst-2").fields[0]
    rows = [f"{draw.choice(TEXTS)}, {draw.choice(TEXTS)} {number}" for number in range(num)]
    return [
        json.dumps({"task": runs[number % len(runs)].name, "rows": [{field_name: row}]}).encode()
        for number, row in enumerate(rows)
    ]


def answers(endpoint: Endpoint, bodies: list[bytes]) -> list[list[float]]:
    """Return the probabilities of requests, sent one at a time."""
    found = []
    for body in bodies:
        status, answer = endpoint.send("POST", "/predict", body)
        assert status == 200, answer
        found.append([*json.loads(answer)["scores"][0].values()])
    return found


def load(endpoint: Endpoint, bodies: list[bytes], expected: list[list[float]], clients: int, stop: threading.Event) -> Load:
    """Let clients send requests, each its next when its last is answered, until `stop`; 503 is to try again."""
    total, lock = Load(), threading.Lock()

    def client(number: int) -> None:
        draw = random.Random(number)
        connection = HTTPConnection("127.0.0.1", endpoint.port, timeout=120)
        while not stop.is_set():
            index = draw.randrange(len(bodies))
            started, status, answer = time.perf_counter(), 0, b""
            while status != 200:
                try:
                    connection.request("POST", "/predict", bodies[index])
                    response = connection.getresponse()
                    status, answer = response.status, response.read()
                except (OSError, ValueError):
                    status = 0
                    connection.close()
                with lock:
                    total.statuses[status] = total.statuses.get(status, 0) + 1
                if status not in (0, 200, 503):
                    break
                if status != 200:
                    time.sleep(0.2)
            with lock:
                if status != 200:
                    total.lost += 1
                    continue
                found = [*json.loads(answer)["scores"][0].values()]
                total.wrong += bool(np.abs(np.subtract(found, expected[index])).max() > TOLERANCE)
                total.seconds.append(time.perf_counter() - started)
                total.rows += 1
        connection.close()

    with ThreadPoolExecutor(clients) as pool:
        for number in range(clients):
            pool.submit(client, number)
    return total


def timed(endpoint: Endpoint, bodies: list[bytes], expected: list[list[float]], clients: int, seconds: float) -> Load:
    stop = threading.Event()
    threading.Timer(seconds, stop.set).start()
    return load(endpoint, bodies, expected, clients, stop)


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Compare batches with batches of one; add a task under load; measure the memory of further tasks."""
    runs = make_runs(folder, arguments.tasks + UNDER_LOAD + WITHOUT_LOAD)
    more, runs = runs[arguments.tasks :], runs[: arguments.tasks]
    bodies = make_requests(runs, 400)
    rates, report = {}, {}
    expected: list[list[float]] = []
    for name, batch in (("alone", 1), ("together", 32)):
        endpoint = Endpoint(folder, runs, f"run.name={name}", f"serve.max_batch={batch}", "log.level=warning")
        try:
            expected = expected or answers(endpoint, bodies)
            timed(endpoint, bodies, expected, arguments.clients, 3)  # warm-up
            counted = timed(endpoint, bodies, expected, arguments.clients, arguments.seconds)
            assert not counted.wrong and not counted.lost, "answers differ from those of one request at a time"
            rates[name] = counted.rows / arguments.seconds
            p50, p99 = np.percentile(1000 * np.asarray(counted.seconds), [50, 99])
            print(f"{name}: {rates[name]:.1f} rows/s, p50 {p50:.0f} ms, p99 {p99:.0f} ms, statuses {counted.statuses}")
            if name == "together":
                report = {"p50_ms": round(p50, 1), "p99_ms": round(p99, 1)} | _added(
                    endpoint, more, bodies, expected, arguments
                )
        finally:
            endpoint.stop()
    return {"rows_per_second": round(rates["together"], 1), "ratio": round(rates["together"] / rates["alone"], 2), **report}


def _added(
    endpoint: Endpoint, more: list[Path], bodies: list[bytes], expected: list[list[float]], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Add tasks under load, and count what was lost; then others without load, and measure the memory that they take."""
    headers = {"Authorization": f"Bearer {TOKEN}"}

    def add(runs: list[Path]) -> set[int]:
        return {endpoint.status("POST", "/tasks", json.dumps({"run": str(run)}).encode(), **headers) for run in runs}

    stop, counted = threading.Event(), []
    thread = threading.Thread(target=lambda: counted.append(load(endpoint, bodies, expected, arguments.clients, stop)))
    thread.start()
    statuses = add(more[:UNDER_LOAD])
    stop.set()
    thread.join()
    before = endpoint.replica().memory_info().rss
    statuses |= add(more[UNDER_LOAD:])
    grown = (endpoint.replica().memory_info().rss - before) / WITHOUT_LOAD
    sizes = sum((run / PROMPT_FILE).stat().st_size for run in more) / len(more)
    [during] = counted
    print(f"{UNDER_LOAD} tasks added under load: {statuses}, {during.rows} rows answered meanwhile, {during.lost} lost")
    print(
        f"a task takes {sizes / 1000:.1f} KB as a file; {WITHOUT_LOAD} tasks grew the replica by {grown / 1000:.1f} KB each"
    )
    return {"lost": during.lost + during.wrong, "kb_per_task": round(grown / 1000, 1)}


def faults(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Kill the replica three times under load, break off, cut and damage bodies; count answers that are wrong or lost."""
    runs = make_runs(folder, arguments.tasks)
    bodies = make_requests(runs, 200)
    endpoint = Endpoint(folder, runs, "run.name=faults", "log.level=warning")
    draw, damaged = random.Random(0), {}
    try:
        expected = answers(endpoint, bodies)
        stop, counted = threading.Event(), []
        thread = threading.Thread(target=lambda: counted.append(load(endpoint, bodies, expected, arguments.clients, stop)))
        thread.start()
        for _ in range(3):
            time.sleep(arguments.seconds / 2)
            victim = endpoint.replica()
            victim.kill()
            print(f"killed the replica, process {victim.pid}")
            for body in bodies[:20]:  # clients that go away, before and after the whole body
                head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                with socket.create_connection(("127.0.0.1", endpoint.port)) as connection:
                    connection.sendall(head + body[: draw.choice([0, 10, len(body)])])
        for _ in range(1000):
            body = bytearray(draw.choice(bodies))
            for _ in range(draw.randrange(1, 6)):
                body[draw.randrange(len(body))] = draw.randrange(256)
            status = endpoint.status("POST", "/predict", bytes(body[: draw.choice([len(body), draw.randrange(len(body))])]))
            damaged[status] = damaged.get(status, 0) + 1
        stop.set()
        thread.join()
        [during] = counted
        assert endpoint.status("GET", "/healthz") == 200
    finally:
        endpoint.stop()
    print(f"{during.rows} rows answered, statuses {during.statuses}; damaged bodies {damaged}")
    unexpected = sum(count for status, count in damaged.items() if status not in (200, 400, 404, 413, 422, 503))
    return {"rows": during.rows, "lost": during.lost, "wrong": during.wrong, "unexpected": unexpected}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--faults", action="store_true", help="inject faults instead of measuring")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(describe())
    with tempfile.TemporaryDirectory() as folder:
        found = (faults if arguments.faults else measure)(arguments, Path(folder))
    print(json.dumps({"benchmark": "serve-faults" if arguments.faults else "serve", **found}))


if __name__ == "__main__":
    main()
