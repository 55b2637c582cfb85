"""The experiment: meta-train by SUPMER and by PPT on one corpus, tune on labelled tasks by every method, write the evidence.

    python pipeline/evidence.py --config configs/evidence.yaml [--out docs/results] [section.key=value ...]

Runs are `<run.name>-supmer`, `<run.name>-multitask` and `<run.name>`. The same command goes on after a stop, keeps what
is finished, and ends with the same numbers.
"""

from __future__ import annotations

import argparse
import logging

from supmer.cli import build_parser, run_job
from supmer.config import Config


def evidence(config: Config, arguments: argparse.Namespace) -> int:
    """Do what is missing, write the files of `--out` and print the table; 130 after Ctrl-C, 0 after SIGTERM."""
    from rich.console import Console  # here, so that --help and a misspelt setting answer at once

    from supmer.fewshot.evidence import meta_training_runs, tuning_run, write_evidence
    from supmer.fewshot.run import check_fewshot, run_fewshot
    from supmer.fewshot.tables import summarize, terminal_table
    from supmer.train.run import run

    check_fewshot(config)  # a mistake there must not first show up after the meta-training
    for each in meta_training_runs(config):
        result = run(each)
        if not result.is_complete:
            return result.exit_code
    tuning = tuning_run(config)
    records = run_fewshot(tuning)
    write_evidence(tuning, records, arguments.out)
    Console().print(terminal_table(summarize(records)))
    logging.getLogger(__name__).info("evidence: %s/evidence.json", arguments.out)
    return 0


def main() -> None:
    parser = build_parser(__doc__ or "")
    parser.add_argument("--out", default="docs/results", help="folder of the evidence (default: %(default)s)")
    run_job(evidence, parser)


if __name__ == "__main__":
    main()
