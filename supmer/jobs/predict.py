"""Label new rows by a tuned prompt: JSONL, CSV or Parquet in, the same out, with the columns `label` and `scores` added.

    supmer predict --run runs/quickstart --input rows.jsonl --output labelled.jsonl [predict.actors=4]

A row that cannot be labelled gets the column `error` instead. Where rows have their class, accuracy, macro-F1 and a
confusion table are printed. The same command goes on after a stop.
"""

from __future__ import annotations

import argparse

from supmer.cli import Job
from supmer.config import Config


def predict(config: Config, arguments: argparse.Namespace) -> None:
    """Label the rows, and print what became of them."""
    from rich.console import Console  # here, so that --help and a misspelt setting answer at once

    from supmer.predict.batch import predict_files

    outcome = predict_files(config, arguments.run, arguments.cell, arguments.input, arguments.output)
    num_unusable = sum(outcome.unusable.values())
    print(f"{outcome.num_rows - num_unusable:,} of {outcome.num_rows:,} rows labelled, written to {arguments.output}")
    for reason, count in outcome.unusable.items():
        print(f"  {count:,} rows have an error: {reason}")
    for reason, count in outcome.skipped.items():
        print(f"  left out: {count:,} {reason}")
    if outcome.num_labelled:
        measured = f"accuracy {outcome.accuracy:.4f}, macro-F1 {outcome.macro_f1:.4f}"
        print(f"{measured} on {outcome.num_labelled:,} rows with a class")
        Console().print(outcome.table().terminal())


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", required=True, metavar="RUN_DIR", help="run directory, or the folder of a cell")
    parser.add_argument("--cell", metavar="NAME", help="a folder's name in RUN_DIR/fewshot; default: the best on dev")
    parser.add_argument("--input", required=True, nargs="+", metavar="FILES", help="files, folders or globs")
    parser.add_argument("--output", required=True, metavar="FOLDER_OR_FILE", help="folder, or a file for one input file")


JOB = Job(__doc__, predict, add_options)
