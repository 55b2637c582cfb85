"""Make a small T5 backbone from a corpus and a sentence encoder as teacher; the same command goes on after a stop.

python pipeline/pretrain_backbone.py --config configs/backbone.yaml corpus.paths='[text/*.jsonl.gz]'
"""

from __future__ import annotations

import argparse

from supmer.cli import build_parser, run_job
from supmer.config import Config


def pretrain(config: Config, arguments: argparse.Namespace) -> int:
    """Train, and say where the backbone lies; 0 too after SIGTERM, 130 after Ctrl-C."""
    from supmer.pretrain.recipe import pretrain_backbone  # here, so that --help answers at once
    from supmer.train.stop import StopSignals

    with StopSignals() as stop:
        folder = pretrain_backbone(config, lambda: stop.received is not None)
    print(f"backbone.name={folder}" if folder else "stopped; the same command goes on")
    return stop.exit_code


def main() -> None:
    run_job(pretrain, build_parser(__doc__ or ""))


if __name__ == "__main__":
    main()
