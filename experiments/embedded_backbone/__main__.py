"""Make a small T5 backbone from a corpus and a sentence encoder as teacher; the same command goes on after a stop.

    python -m experiments.embedded_backbone run.name=backbone corpus.paths='[text/*.jsonl.gz]' [--recipe FILE]

Of the configuration, the sections `run` and `corpus` count.
"""

from __future__ import annotations

import argparse

from experiments.embedded_backbone.settings import RECIPE, read_recipe
from supmer.cli import job_parser, run_job
from supmer.config import Config


def make(config: Config, arguments: argparse.Namespace) -> int:
    """Train, and print where the backbone lies; return 0 after SIGTERM too, 130 after Ctrl-C."""
    from experiments.embedded_backbone.stages import make_backbone  # here, so that --help answers at once
    from supmer.train.stop import StopSignals

    with StopSignals() as stop:
        folder = make_backbone(config, read_recipe(arguments.recipe), lambda: stop.received is not None)
    print(f"backbone.name={folder}" if folder else "stopped; the same command goes on")
    return stop.exit_code


def main() -> None:
    parser = job_parser(__doc__ or "")
    parser.add_argument("--recipe", default=RECIPE, metavar="FILE", help="settings of the student and its training")
    run_job(make, parser)


if __name__ == "__main__":
    main()
