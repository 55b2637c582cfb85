"""How fast a prompt is tuned on few rows, and how fast rows are labelled."""

from __future__ import annotations

import time

import numpy as np

from gpu_check.material import RANDOM_IDS, Scale, learner_of, random_text
from gpu_check.report import Report, seconds_of
from supmer.backbone.load import load_tokenizer
from supmer.config import BackboneConfig
from supmer.fewshot.labels import LabelWords
from supmer.fewshot.methods import METHODS
from supmer.fewshot.scoring import score_labels
from supmer.fewshot.tuning import Context, FewShotRows
from supmer.tasks.episode import NO_CENTROID, Example

SECTION = "few-shot"
WORDS = ["no", "yes"]
ROWS_PER_CLASS = 16


def run(scale: Scale, report: Report) -> None:
    """Tune by SUPMER without looking at dev, then score rows as `supmer predict` does."""
    steps = scale.tuning_steps
    config = scale.config(fewshot={"steps": steps, "eval_every": steps, "learning_rate": 0.1})
    learner = learner_of(scale, config)
    words = LabelWords(WORDS, load_tokenizer(BackboneConfig(name="embedded")), "yes or no")
    rng = np.random.default_rng(0)
    train, dev = ([_row(rng, words, number % 2) for number in range(2 * ROWS_PER_CLASS)] for _ in range(2))
    context = Context(config, learner.model, learner.prompt.detach(), learner.regularizer)
    seconds = []
    for _ in range(2):  # the first warms up
        started = time.perf_counter()
        METHODS["supmer"].tune(context, FewShotRows(words, train, dev, ["accuracy"], seed=0))
        seconds.append(seconds_of(scale.device, started))
    report.line(SECTION, f"tuning in batches of {config.fewshot.batch_size}", f"{seconds[-1] / steps:.3g} s a step")
    rows = [_row(rng, words, 0) for _ in range(scale.num_rows)]
    for _ in range(2):
        started = time.perf_counter()
        scores = score_labels(learner.model, learner.prompt.detach(), rows, words, scale.middle)
        taken = seconds_of(scale.device, started)
    report.require(SECTION, "predicting", f"{len(rows) / taken:,.0f} rows/s", holds=bool(np.isfinite(scores).all()))
    report.figures["rows_per_second"] = round(len(rows) / taken, 1)


def _row(rng: np.random.Generator, words: LabelWords, label: int) -> Example:
    """Return a made-up sentence with a place for its label."""
    text = random_text(rng)[:80]
    ids = np.append(text, words.target(label)[0]).astype(np.int32)
    assert text.min() >= RANDOM_IDS.start
    return Example(ids, np.full(len(ids), NO_CENTROID, np.int32), words.target(label), label)
