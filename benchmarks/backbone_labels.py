"""How often a backbone labels a held-out sentence as its input says, by the form in which the input shows its prototypes.

    python benchmarks/backbone_labels.py --config configs/backbone.yaml backbone.name=embedded corpus.paths='[TEXT/*.gz]'

Corpus and settings are those that the backbone was made from; what the teacher found is taken from `backbone.cache_dir`.
Right is the answer whose word has the highest logit of those that the row shows.
"""

from __future__ import annotations

import argparse
import json
from typing import get_args

import hardware
import numpy as np
import torch

from supmer.backbone.load import load_backbone
from supmer.cli import build_parser, run_job
from supmer.config import Config
from supmer.errors import UserError
from supmer.pretrain.exemplars import Difficulty, ExemplarRows, Form
from supmer.pretrain.pairs import PairRows
from supmer.pretrain.pretraining import Pretraining
from supmer.pretrain.recipe import prepare_training

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
    training = prepare_training(config, lambda: False)
    assert training is not None
    try:
        training.model.load_state_dict(load_backbone(config.backbone).state_dict())
    except RuntimeError as error:
        raise UserError(f"backbone.name={config.backbone.name}: not of the shape in backbone.warmup") from error
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
    print(json.dumps(result | {"hardware": hardware.describe()}))
    return 0


if __name__ == "__main__":
    run_job(measure, build_parser(__doc__ or ""))
