"""How well the backbone answers each kind of episode: without a prompt, and under the prompts of runs.

    python -m experiments.smollm2.kinds --config experiments/smollm2/smollm2.yaml --store STORE [--run RUN ...]

An answer is the most likely of the labels of its episode's set. `calibrated` takes each label's mean logit off first.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from supmer.backbone.load import resolve_backbone
from supmer.cli import job_parser, run_job
from supmer.config import TASK_KINDS, Config
from supmer.config.load import with_settings
from supmer.corpus.store import TaskStore
from supmer.fewshot.starting_points import read_prompt
from supmer.model.build import build_model
from supmer.model.prompted import PromptedModel
from supmer.model.rows import collate
from supmer.tasks.episode import Example
from supmer.tasks.sampler import EpisodeSampler
from supmer.tasks.vocabulary import TaskVocabulary

NUM_EPISODES = 8


def look(config: Config, arguments: argparse.Namespace) -> None:
    """Print a line for each kind and prompt."""
    torch.set_num_threads(config.train.threads_per_worker or 1)
    config = resolve_backbone(with_settings(config, {"tasks.kinds": list(TASK_KINDS)}))
    store = TaskStore.open(arguments.store)
    model = build_model(config, store.centroids).eval()
    sampler = EpisodeSampler(store, TaskVocabulary.of_backbone(config.backbone), config)
    prompts = {"no prompt": torch.empty(0, model.width)}
    prompts |= {run: read_prompt(run, "--run") for run in arguments.run or ()}
    for kind in reversed(TASK_KINDS):
        sets = [sampler.validation_episode(kind, number).query for number in range(NUM_EPISODES)]
        for name, prompt in prompts.items():
            print(f"{kind} {name}: {_describe([_answers(model, prompt, rows) for rows in sets])}", flush=True)


def _answers(model: PromptedModel, prompt: Tensor, rows: Sequence[Example]) -> tuple[float, float, float]:
    """Return the share of right answers, the same calibrated, and that of an even guess."""
    first = model.outer_positions - 1
    tokens = {row.label: int(row.target_ids[first]) for row in rows}
    labels = sorted(tokens)
    with torch.no_grad():
        logits = model(prompt.unsqueeze(0), collate(rows, [0] * len(rows))).logits[:, first, [tokens[x] for x in labels]]
    right = torch.tensor([labels.index(row.label) for row in rows])
    shares = [float((found.argmax(dim=1) == right).float().mean()) for found in (logits, logits - logits.mean(dim=0))]
    return shares[0], shares[1], 1 / len(labels)


def _describe(found: Sequence[tuple[float, float, float]]) -> str:
    plain, calibrated, guess = np.mean(found, axis=0)
    return f"{plain:.2f}, calibrated {calibrated:.2f} (even guess {guess:.2f})"


def main() -> None:
    parser = job_parser(__doc__ or "")
    parser.add_argument("--store", required=True, help="folder of the task store")
    parser.add_argument("--run", action="append", help="directory of a meta-trained run, whose prompt is looked at too")
    run_job(look, parser)


if __name__ == "__main__":
    main()
