"""The main job: meta-train the prompt and the gradient regularizer on self-supervised episodes, under Ray Train.

    python pipeline/metatrain.py --config configs/quickstart.yaml [section.key=value ...]

Prepares the task store first if it is missing. The same command continues a run that was interrupted.
"""

from __future__ import annotations

import argparse

from supmer.cli import build_parser, run_job
from supmer.config import Config


def metatrain(config: Config, arguments: argparse.Namespace) -> int:
    """Run the job and return the exit code: 0, or 130 if Ctrl-C stopped it after saving."""
    from supmer.train.run import run  # here, so that --help and a misspelt setting answer at once

    return run(config).exit_code


def main() -> None:
    run_job(metatrain, build_parser(__doc__ or ""))


if __name__ == "__main__":
    main()
