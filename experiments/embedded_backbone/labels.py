"""How often a backbone labels a held-out sentence as its input says, by the form in which the input shows its prototypes.

    python -m experiments.embedded_backbone.labels run.name=backbone backbone.name=embedded corpus.paths='[TEXT/*.gz]'

Corpus and recipe are those that the backbone was made from; text and the teacher's embeddings are those of
the run directory. Right is the answer whose word has the highest logit of those that the row shows.
"""

from __future__ import annotations

import argparse
import json
from typing import get_args

import numpy as np
import torch

from experiments.embedded_backbone.label_rows import Difficulty, ExemplarRows, Form, PairRows
from experiments.embedded_backbone.pretraining import Pretraining
from experiments.embedded_backbone.settings import RECIPE, read_recipe
from experiments.embedded_backbone.stages import prepare_training
from supmer.backbone.load import load_backbone
from supmer.cli import job_parser, run_job
from supmer.config import Config
from supmer.errors import setting_error

BATCHES, BATCH = 12, 32
NUM_CLASSES = (2, 4)


@torch.no_grad()
def share_right(training: Pretraining, rows: ExemplarRows | PairRows) -> float:
    """Return the share of right answers on rows of held-out sentences."""
    words, right = torch.from_numpy(rows.filler.words), []
    for number in range(BATCHES):
        batch = rows.draw(BATCH, np.random.default_rng([2, number]))
        logits = training.answer(training.held_out, batch).logits[:, 1, words]
        is_shown = torch.from_numpy((batch.tokens[:, :, None] == rows.filler.words).any(axis=1))
        answers = words[logits.masked_fill(~is_shown, -torch.inf).argmax(dim=1)]
        right += (answers == torch.from_numpy(batch.targets[:, 1])).tolist()
    return float(np.mean(right))


def exemplars(training: Pretraining, form: Form, num_classes: int, is_lookup: bool) -> ExemplarRows:
    shares = [float(form == other) for other in get_args(Form)]
    difficulty = Difficulty(num_classes, num_classes, (shares[0], shares[1], shares[2]), is_lookup)
    held_out = training.held_out
    return ExemplarRows(held_out.sentences, held_out.embeddings, training.tokenizer, difficulty)


def measure(config: Config, arguments: argparse.Namespace) -> int:
    """Print a table and one line of JSON."""
    training = prepare_training(config, read_recipe(RECIPE), lambda: False)
    assert training is not None
    try:
        training.model.load_state_dict(load_backbone(config.backbone).state_dict())
    except RuntimeError as error:
        raise setting_error("backbone.name", config.backbone.name, f"not of the shape in {RECIPE}") from error
    training.model.eval()
    found = {"pair": share_right(training, training.labelled["pair", id(training.held_out)])}
    for form in get_args(Form):
        for num_classes in NUM_CLASSES:
            for is_lookup in (True, False):
                name = f"{form}, {num_classes} classes{', looked up' if is_lookup else ''}"
                found[name] = share_right(training, exemplars(training, form, num_classes, is_lookup))
    for name, share in found.items():
        print(f"{name:32} {100 * share:5.1f}%")
    result = {"benchmark": "backbone_labels", "backbone": config.backbone.name, "rows": BATCHES * BATCH, "right": found}
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    run_job(measure, job_parser(__doc__ or ""))
