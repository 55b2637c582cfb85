"""All that a GPU has to prove, in one command: equal numbers, no waiting, speed, memory as planned, few-shot tuning.

    python benchmarks/gpu.py

Needs torch, transformers, numpy, safetensors, pydantic and this repository; neither Ray, nor a network, nor weights: shapes
are real, weights random. The sections have 440 seconds in all. Where there is no GPU it runs whole on tiny shapes, which
proves the program and measures nothing. A section that fails, or uses up its seconds, does not keep the others from running.
Before the last line stands a Markdown table for docs/gpu.md; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.util
import json
import os
import sys
import time
import traceback
from pathlib import Path

NEEDED = ("torch", "transformers", "numpy", "safetensors", "pydantic")
SECONDS = {"equality": 90, "syncs": 20, "speed": 200, "planner": 80, "tuning": 50}
"""Sections in their order, and the seconds that each has on a GPU: 440 in all."""
CPU_SECONDS = 240
"""Of each section on a CPU, however slow."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=SECONDS, nargs="+", help="sections to run; default: all, with --evidence none")
    parser.add_argument("--cpu", action="store_true", help="tiny shapes on the CPU, also where there is a GPU")
    parser.add_argument(
        "--evidence", metavar="MODEL", help="meta-train this model (a folder, or `embedded`), then tune cells"
    )
    parser.add_argument("--store", help="of --evidence: the task store that `supmer prepare` has made with the model")
    parser.add_argument("--data-dir", help="of --evidence: the folder of the tasks' files, as fewshot.data_dir")
    parser.add_argument("--tasks", nargs="+", default=["sst-2", "subj", "trec"], help="of --evidence")
    parser.add_argument("--minutes", type=float, default=6.0, help="of --evidence, training and cells together")
    parser.add_argument("--run", default="runs/gpu-evidence", help="of --evidence: the run directory, in which it goes on")
    parser.add_argument("--settings", help="of --evidence: a YAML file of settings that differ from the published ones")
    arguments = parser.parse_args()
    if arguments.evidence and not (arguments.store and arguments.data_dir):
        parser.error("--evidence needs --store and --data-dir")
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        sys.exit(f"error: not installed: {', '.join(missing)}; pip install {' '.join(missing)}")
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what deterministic matrix products ask for
    os.environ.setdefault("HF_HUB_OFFLINE", "1")

    import torch  # after what it reads from the environment
    import transformers
    from gpu_check.material import scale_of
    from gpu_check.report import Report, device_name, free, time_limit

    has_gpu = torch.cuda.is_available() and not arguments.cpu
    device = torch.device("cuda", 0) if has_gpu else torch.device("cpu")
    if not has_gpu:
        torch.set_num_threads(1)
    scale, report = scale_of(device), Report()
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, Python {sys.version.split()[0]}"
    print(f"{device_name(device)}, {versions}; {scale.shape.name}, {scale.dtype}", flush=True)
    started = time.perf_counter()
    sections = {name: SECONDS[name] if has_gpu else CPU_SECONDS for name in arguments.only or SECONDS}
    if arguments.evidence:
        # The cell in progress when the minutes are over is finished, and its result kept.
        sections = {name: sections[name] for name in arguments.only or ()} | {"evidence": int(60 * arguments.minutes) + 600}
    for name, limit in sections.items():
        print(f"== {name}", flush=True)
        began = time.perf_counter()
        try:
            with time_limit(limit):
                section = importlib.import_module(f"gpu_check.{name}")
                if name == "evidence":
                    section.run(section.Evidence.of(arguments), device, report)
                else:
                    section.run(scale, report)
        except Exception as error:  # the next section may tell all the same
            traceback.print_exc(file=sys.stdout)
            report.failures.append(f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
        gc.collect()
        free(device)
        report.line(name, "seconds of the section", f"{time.perf_counter() - began:.0f}")
    print(f"\n{report.markdown()}\n")
    for failure in report.failures:
        print(f"FAILED {failure}")
    summary = {"device": device_name(device), "seconds": round(time.perf_counter() - started, 1), **report.figures}
    print(json.dumps({"benchmark": "gpu", **summary, "failures": report.failures}))
    sys.exit(bool(report.failures))


if __name__ == "__main__":
    main()
