"""How much a backbone's encoder knows of labelled tasks, beside a random one of the same shape: linear probes on few rows.

    python -m experiments.embedded_backbone.probe backbone.name=FOLDER fewshot.tasks='[subj,trec]' fewshot.data_dir=TASKS

The probe is a logistic regression on the mean-pooled last states of `fewshot.k` rows a class (one number), without a pattern
or prompt; accuracy is a mean over `fewshot.seeds`, given with its standard error, beside the share of the largest class.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from supmer.backbone.load import load_tokenizer
from supmer.cli import job_parser, run_job
from supmer.config import BackboneConfig, Config
from supmer.corpus.embedding import Encoder
from supmer.errors import setting_error
from supmer.fewshot.cells import cap_test_rows
from supmer.fewshot.data import Row, draw_split, load_rows
from supmer.fewshot.task import load_task

BATCH_TOKENS = 4096
MAX_TOKENS = 128

Features = npt.NDArray[np.float32]


def features(config: BackboneConfig, rows: Sequence[Row]) -> Features:
    """Return the mean-pooled encoder states [N, d] of rows, their fields one after the other."""
    texts = [" ".join(row.fields.values()) for row in rows]
    tokens = load_tokenizer(config)(texts, truncation=True, max_length=MAX_TOKENS)["input_ids"]
    return Encoder.of_backbone(config, BATCH_TOKENS).embed([np.array(ids, dtype=np.int32) for ids in tokens])


def accuracies(config: Config, name: str, backbone: BackboneConfig) -> list[float]:
    """Return the test accuracy of the probe on a task for each data seed."""
    settings, task = config.fewshot, load_task(name)
    (k,) = settings.k
    rows = cap_test_rows(load_rows(task, settings.data_dir), settings.max_test_rows)
    splits = [draw_split(task, rows.train, k, seed).train for seed in settings.seeds]
    used = sorted({index for split in splits for index in split})
    train = dict(zip(used, features(backbone, [rows.train[index] for index in used]), strict=True))
    test, labels = features(backbone, rows.test), [row.label for row in rows.test]
    found = []
    for split in splits:
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        probe.fit(np.stack([train[index] for index in split]), [rows.train[index].label for index in split])
        found.append(float(probe.score(test, labels)))
    return found


def largest_class(config: Config, name: str) -> float:
    rows = cap_test_rows(load_rows(load_task(name), config.fewshot.data_dir), config.fewshot.max_test_rows)
    return max(Counter(row.label for row in rows.test).values()) / len(rows.test)


def describe(scores: Sequence[float]) -> dict[str, float]:
    """Return mean and standard error over seeds."""
    error = np.std(scores, ddof=1) / np.sqrt(len(scores)) if len(scores) > 1 else float("nan")
    return {"accuracy": round(float(np.mean(scores)), 4), "standard_error": round(float(error), 4)}


def probe(config: Config, arguments: argparse.Namespace) -> None:
    """Probe the backbone and its random twin on every task and print one JSON object."""
    if len(config.fewshot.k) > 1:
        raise setting_error("fewshot.k", config.fewshot.k, "one number of rows at a time")
    random = config.backbone.model_copy(update={"weights": "random"})
    tasks: dict[str, dict[str, Any]] = {}
    for name in config.fewshot.tasks or ["library-docs"]:
        ours, theirs = (describe(accuracies(config, name, backbone)) for backbone in (config.backbone, random))
        tasks[name] = {"backbone": ours, "random": theirs, "largest_class": round(largest_class(config, name), 4)}
    result = {"benchmark": "backbone_probe", "backbone": config.backbone.name, "k": config.fewshot.k[0], "tasks": tasks}
    print(json.dumps(result))


def main() -> None:
    parser = job_parser(__doc__ or "")
    run_job(probe, parser)


if __name__ == "__main__":
    main()
