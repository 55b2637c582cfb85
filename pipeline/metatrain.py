"""The main job: meta-train the prompt and the gradient regularizer on self-supervised episodes, under Ray Train.

    python pipeline/metatrain.py --config configs/quickstart.yaml [section.key=value ...]

Prepares the task store first if it is missing. The same command continues a run that was interrupted; with --replay STEP
it recomputes one step of it alone, in this process, and changes nothing.
"""

from __future__ import annotations

import argparse

from supmer.cli import build_parser, run_job
from supmer.config import Config


def metatrain(config: Config, arguments: argparse.Namespace) -> int:
    """Run the job and return the exit code: 0, or 130 if Ctrl-C stopped it after saving."""
    # Imports are here, so that --help and a misspelt setting answer at once.
    if arguments.replay is not None:
        from supmer.train.replay import replay

        for line in replay(config, arguments.replay):
            print(line)
        return 0
    from supmer.train.run import run

    return run(config).exit_code


def main() -> None:
    parser = build_parser(__doc__ or "")
    parser.add_argument("--replay", type=int, metavar="STEP", help="recompute this step of the run, as metrics.jsonl counts")
    run_job(metatrain, parser)


if __name__ == "__main__":
    main()
