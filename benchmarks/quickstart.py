"""How long the quickstart takes, beside another checkout of this repository: time by the clock and of all processors.

    python benchmarks/quickstart.py BEFORE [--rounds 2]

Meta-training and tuning run as `make quickstart` runs them, in this Python environment and in new folders, in turns. The
processors' seconds are those of the whole process tree, Ray's processes too. What is drawn and what is embedded may differ
between two checkouts, and with them the scores: the last lines of each job show them, none are compared. Linux only.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
JOBS = ("metatrain", "prompt_tune")
PR_SET_CHILD_SUBREAPER = 36


def spent(command: list[str], checkout: Path, log: Path) -> tuple[float, float]:
    """Run a command; return its seconds, and the processors' seconds of all processes that it started.

    Ray does not wait for its processes, so their times are looked at while they run; what one does after the last look is
    lost.
    """
    started = time.perf_counter()
    times: dict[tuple[int, float], float] = {}
    with log.open("w") as file:
        job = subprocess.Popen(
            command, cwd=checkout, stdout=file, stderr=subprocess.STDOUT, env=os.environ | {"PYTHONPATH": str(checkout)}
        )
        while job.poll() is None:
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    used = process.cpu_times()
                    times[process.pid, process.create_time()] = used.user + used.system
            time.sleep(0.25)
    seconds = time.perf_counter() - started
    assert job.returncode == 0, log.read_text()[-3000:]
    return seconds, sum(times.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, nargs="?", help="the other checkout; without one, only this one is measured")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from benchmarks.hardware import describe

    print(describe())
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    checkouts = {"now": ROOT} | ({"before": arguments.before.resolve()} if arguments.before else {})
    for checkout in checkouts.values():
        compileall.compile_dir(checkout / "supmer", quiet=1)
    totals: dict[str, list[tuple[float, float]]] = {name: [] for name in checkouts}
    for _ in range(arguments.rounds):
        for name, checkout in checkouts.items():
            with tempfile.TemporaryDirectory() as folder:
                total = (0.0, 0.0)
                for job in JOBS:
                    log = Path(folder) / f"{job}.log"
                    settings = [
                        "--config",
                        "configs/quickstart.yaml",
                        f"run.dir={folder}/runs",
                        f"corpus.store_dir={folder}/stores",
                    ]
                    figures = spent([sys.executable, f"pipeline/{job}.py", *settings], checkout, log)
                    print(f"{name}: {job} {figures[0]:.1f} s, processors {figures[1]:.1f} s", flush=True)
                    total = (total[0] + figures[0], total[1] + figures[1])
                print("\n".join(log.read_text().splitlines()[-8:]))
                totals[name].append(total)
    wall, processors = ({name: min(figures[i] for figures in found) for name, found in totals.items()} for i in (0, 1))
    result = {"benchmark": "quickstart", "seconds": round(wall["now"], 1), "processor_seconds": round(processors["now"], 1)}
    if arguments.before:
        result |= {"ratio": round(wall["now"] / wall["before"], 2)}
        result |= {"processor_ratio": round(processors["now"] / processors["before"], 2)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
