"""Start or end an autoscaling Ray cluster on this machine, all of it on 127.0.0.1.

    python cluster/local/local_cluster.py up
    ray job submit --address http://127.0.0.1:8265 --working-dir . -- \\
        python pipeline/metatrain.py --config configs/quickstart.yaml
    python cluster/local/local_cluster.py down
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import NoReturn

import psutil

DEFINITION = Path(__file__).with_name("autoscaling.yaml")
GCS_PORT = 6390
"""Not Ray's 6379, so that another Ray on this machine is not in the way."""
DASHBOARD = "http://127.0.0.1:8265"
MARK = "SUPMER_LOCAL_CLUSTER"
"""Environment variable that every process of the cluster inherits; its value tells ours from any other Ray."""
START_SECONDS = 90
END_SECONDS = 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["up", "down"])
    folder = os.environ.get("SUPMER_LOCAL_CLUSTER_DIR", os.path.join(tempfile.gettempdir(), "supmer-local"))
    parser.add_argument("--dir", type=Path, default=Path(folder), help="logs and state of the cluster (a short path)")
    arguments = parser.parse_args()
    {"up": up, "down": down}[arguments.command](arguments.dir)


def up(folder: Path) -> None:
    """Start the head and wait until it takes jobs."""
    if processes(read_mark(folder)):
        fail(f"a cluster of {folder} is running; end it with: make cluster-down")
    if answers():
        fail(f"something else answers at {DASHBOARD}; end that first")
    folder.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex
    (folder / "state.json").write_text(json.dumps({"mark": mark}))
    head = start_head(folder, mark)
    deadline = time.monotonic() + START_SECONDS
    while not answers():
        if head.poll() is not None or time.monotonic() > deadline:
            down(folder)
            fail(f"the head did not start; its log is {folder / 'head.log'}")
        time.sleep(0.5)
    say(f"cluster is up: head alone, no work on it. Dashboard and jobs: {DASHBOARD}")


def start_head(folder: Path, mark: str) -> subprocess.Popen[bytes]:
    ray = Path(sys.executable).with_name("ray")
    command = [str(ray), "start", "--head", "--block", f"--port={GCS_PORT}", "--num-cpus=0", '--resources={"limit_cpus": 6}']
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--dashboard-port=8265"]
    command += ["--object-store-memory=268435456", f"--temp-dir={folder / 'ray'}", f"--autoscaling-config={DEFINITION}"]
    command += ["--disable-usage-stats"]
    environment = os.environ | {
        MARK: mark,
        "PATH": f"{ray.parent}{os.pathsep}{os.environ['PATH']}",  # a job's `python` is this environment's
        # A plain `ray job submit` sends no token. Where others use this machine, export RAY_AUTH_MODE=token for both.
        "RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "disabled"),
        "RAY_FAKE_CLUSTER": "1",
        # The autoscaler imports node_provider from there.
        "PYTHONPATH": os.pathsep.join(filter(None, [str(DEFINITION.parent), os.environ.get("PYTHONPATH")])),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the nodes that the provider starts stay on 127.0.0.1 too
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_JOB_STOP_WAIT_TIME_S": "60",  # what `ray job stop` leaves a run to write a checkpoint
    }
    with open(folder / "head.log", "wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)


def down(folder: Path) -> None:
    """End every process of the cluster, and no other."""
    mark = read_mark(folder)
    if mark is None:
        say("no cluster to end")
        return
    ended = 0
    while running := processes(mark):  # twice at least: nodes may start while we end them
        ended += len(running)
        for process in running:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        _, alive = psutil.wait_procs(running, timeout=END_SECONDS)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive, timeout=END_SECONDS)
    (folder / "state.json").unlink()
    say(f"cluster is down: {ended} processes ended, none left")


def processes(mark: str | None) -> list[psutil.Process]:
    """Return the processes that carry the cluster's mark, and their descendants: Ray's agents write a title over theirs."""
    found: set[psutil.Process] = set()
    for process in psutil.process_iter() if mark else []:
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found |= {process, *process.children(recursive=True)}
        except psutil.Error:
            continue  # ended meanwhile, or another user's
    return sorted(found, key=lambda process: process.pid)


def read_mark(folder: Path) -> str | None:
    path = folder / "state.json"
    return json.loads(path.read_text())["mark"] if path.is_file() else None


def answers() -> bool:
    try:
        with urllib.request.urlopen(f"{DASHBOARD}/api/version", timeout=2):
            return True
    except urllib.error.HTTPError:
        return True  # it is there, and wants the token
    except OSError:
        return False


def say(text: str) -> None:
    sys.stdout.write(text + "\n")


def fail(text: str) -> NoReturn:
    sys.stderr.write(f"error: {text}\n")
    sys.exit(2)


if __name__ == "__main__":
    main()
