"""The experiment: meta-train by SUPMER and by PPT on one corpus, tune on labelled tasks by every method, write the evidence.

    python -m experiments.evidence --config experiments/evidence/evidence.yaml [--out FOLDER] [section.key=value ...]

Runs are `<run.name>-supmer`, `<run.name>-multitask` and `<run.name>`; each leaves its report, tables and figures in its own
directory. The same command goes on after a stop, keeps what is finished, and ends with the same numbers.
"""

from __future__ import annotations

import argparse
import logging

from supmer.cli import job_parser, run_job
from supmer.config import Config


def evidence(config: Config, arguments: argparse.Namespace) -> int:
    """Do what is missing, write `evidence.json` and print the table; return 130 after Ctrl-C, 0 after SIGTERM."""
    from rich.console import Console  # here, so that --help and a misspelt setting answer at once

    from experiments.evidence.evidence import meta_training_runs, tuning_run, write_evidence
    from supmer.fewshot.comparison import check_fewshot, run_fewshot
    from supmer.fewshot.summaries import TITLE, outcome, summarize
    from supmer.train.run import run

    check_fewshot(config)  # a mistake there must not first show up after the meta-training
    for each in meta_training_runs(config):
        result = run(each)
        if not result.is_complete:
            return result.exit_code
    tuning = tuning_run(config)
    records = run_fewshot(tuning)
    Console().print(summarize(records).table(title=TITLE).terminal())
    Console().print(outcome(records), highlight=False)
    written = write_evidence(tuning, records, arguments.out or tuning.run_dir)
    logging.getLogger("supmer.experiments").info("evidence: %s", written)
    return 0


def main() -> None:
    parser = job_parser(__doc__ or "")
    parser.add_argument("--out", metavar="FOLDER", help="where evidence.json goes (default: the run directory)")
    run_job(evidence, parser)


if __name__ == "__main__":
    main()
