"""The experiment on SmolLM2-135M-Instruct: one process, without Ray, that may be stopped at any time.

    python -m experiments.smollm2 --config experiments/smollm2/smollm2.yaml [section.key=value ...]

Every finished cell, and the meta-training's state after every few steps, is kept; the same command goes on.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator

from supmer.cli import job_parser, run_job
from supmer.config import Config
from supmer.config.load import with_settings

STAGES = (("supmer", "prompt_tuning", "supmer"), ("multitask", "ppt"), ("supmer", "supmer_no_regularizer"))
"""A meta-training, and the methods whose cells follow it."""


def experiment(config: Config, arguments: argparse.Namespace) -> Iterator[str]:
    """Do what is missing and yield a line for each part of it."""
    from experiments.evidence.evidence import meta_training_runs, tuning_run
    from experiments.smollm2.stages import best_rate, early_run, meta_train, table, with_rates, write_results

    trainings: dict[str, Config] = {run.meta.algorithm: run for run in meta_training_runs(config)}
    config = tuning_run(config)
    yield from table(with_settings(config, {"fewshot.methods": ["zero_shot"], "fewshot.seeds": config.fewshot.seeds[:1]}))
    done: list[str] = []
    for algorithm, *methods in STAGES:
        yield from meta_train(trainings[algorithm], arguments.store)
        for method in methods:
            yield from best_rate(config, method)
        done = [*methods, *done]  # SUPMER last, which the others are compared with
        tuned = with_rates(config, methods)
        for seed in config.fewshot.seeds:
            of_seed = with_settings(tuned, {"fewshot.seeds": [seed]})
            yield from table(of_seed, early_run(of_seed))
            write_results(with_rates(config, done))


def job(config: Config, arguments: argparse.Namespace) -> None:
    for line in experiment(config, arguments):
        logging.getLogger("supmer.experiments").info("%s", line)


def main() -> None:
    parser = job_parser(__doc__ or "")
    parser.add_argument("--store", required=True, help="folder of the task store that experiments.smollm2.topics makes")
    run_job(job, parser)


if __name__ == "__main__":
    main()
