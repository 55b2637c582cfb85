"""Does PERFECT learn? Scores before its first step and after its last, and where its label embeddings lie then.

    python -m experiments.methods.perfect --config experiments/methods/perfect.yaml fewshot.data_dir=TASKS

Runs are `<run.name>-perfect` and `<run.name>-perfect-untrained`. A cosine is that of a class's label embedding and of a
prototype (the mean state of a class's training rows), both less their mean over the classes, because all states have a large
part in common. The table has means over the cells of a task.
"""

from __future__ import annotations

import argparse
from statistics import mean

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load

from supmer import storage
from supmer.cli import job_parser, run_job
from supmer.config import Config
from supmer.config.load import with_settings
from supmer.fewshot.results import Record, cell_of
from supmer.reports.tables import Table

UNTRAINED = {"fewshot.perfect.steps": 1, "fewshot.perfect.rate": 1e-30, "fewshot.perfect.label_rate": 1e-30}
"""One step of no length: prototypes alone decide."""

Array = npt.NDArray[np.float32]


def cosines(labels: Array, prototypes: Array) -> tuple[float, float]:
    """Return the mean cosine of label embeddings and prototypes [C, M, d] of the same class, and of different ones.

    >>> same, other = cosines(np.eye(3)[:, None], 5 + 2 * np.eye(3)[:, None])
    >>> round(same, 6), round(other, 6)
    (1.0, -0.5)
    """
    directions = []
    for vectors in (labels, prototypes):
        vectors = vectors - vectors.mean(axis=0)
        directions.append(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))
    found = np.einsum("cmd,emd->ce", *directions) / labels.shape[1]
    same = np.eye(len(found), dtype=bool)
    return float(found[same].mean()), float(found[~same].mean())


def cosines_of(config: Config, record: Record) -> tuple[float, float]:
    """Return the cosines of a finished cell."""
    file = storage.join(config.run_dir, "fewshot", cell_of(record).name, "perfect.safetensors")
    tensors = load(storage.read_bytes(file))
    return cosines(tensors["labels"], tensors["prototypes"])


def check_perfect(config: Config, _: argparse.Namespace) -> None:
    """Compute the cells that are missing and print the table, in Markdown."""
    from supmer.fewshot.comparison import run_fewshot  # here, so that --help and a misspelt setting answer at once

    trained = with_settings(config, {"run.name": f"{config.run.name}-perfect", "fewshot.methods": ["perfect"]})
    untrained = with_settings(trained, {"run.name": f"{trained.run.name}-untrained", **UNTRAINED})
    before, after = run_fewshot(untrained), run_fewshot(trained)
    rows = []
    for task in dict.fromkeys(record["task"] for record in after):
        scores = [[100 * record["score"] for record in records if record["task"] == task] for records in (before, after)]
        better = sum(new > old for old, new in zip(*scores, strict=True))
        pairs = [cosines_of(trained, record) for record in after if record["task"] == task]
        same, other = (mean(values) for values in zip(*pairs, strict=True))
        figures = [f"{mean(scores[0]):.1f}", f"{mean(scores[1]):.1f}", f"{better} of {len(pairs)}"]
        rows.append([task, *figures, f"{same:.2f}", f"{other:.2f}"])
    heads = ["task", "untrained", "trained", "better in", "cosine, same class", "cosine, other classes"]
    print(Table(heads, rows).markdown())


def main() -> None:
    run_job(check_perfect, job_parser(__doc__ or ""))


if __name__ == "__main__":
    main()
