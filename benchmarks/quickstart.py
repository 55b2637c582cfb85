"""How long the quickstart takes, beside another checkout of this repository: time by the clock and of all processors.

    python benchmarks/quickstart.py BEFORE [--rounds 2]

Meta-training and tuning run as `make quickstart` runs them, in this Python environment and in new folders, in turns. The
processors' seconds are those of the whole process tree, Ray's processes too. What is drawn and what is embedded may differ
between two checkouts, and with them the scores: the last lines of each job show them, none are compared. Linux only.
"""

from __future__ import annotations

import argparse
import compileall
import ctypes
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
JOBS = ("metatrain", "prompt_tune")
PR_SET_CHILD_SUBREAPER = 36


def spent(command: list[str], checkout: Path, log: Path) -> tuple[float, float]:
    """Run a command; return its seconds, and the processors' seconds of all processes that it started."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with log.open("w") as file:
        job = subprocess.run(
            command, cwd=checkout, stdout=file, stderr=subprocess.STDOUT, env=os.environ | {"PYTHONPATH": str(checkout)}
        )
    seconds = time.perf_counter() - started
    assert job.returncode == 0, log.read_text()[-3000:]
    while True:  # Ray's processes outlive the job by moments, and are this process's to wait for then
        try:
            os.wait()
        except ChildProcessError:
            break
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


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
