"""Draws the method from a run: writes method_pictures.md and its pictures into docs/.

    python docs/method_pictures.py runs/quickstart

The run must be complete, and its store at hand.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from supmer import load_config
from supmer.backbone.load import check_backbone, resolve_backbone
from supmer.config import Config
from supmer.corpus.prepare import prepare
from supmer.corpus.store import TaskStore
from supmer.meta.curriculum import draw_lambda
from supmer.reports.drawing import curves, panels, save
from supmer.reports.tables import Table
from supmer.tasks.episode import NO_CENTROID, Episode, Example
from supmer.tasks.sampler import EpisodeSampler
from supmer.tasks.vocabulary import TaskVocabulary
from supmer.train.metrics import read_rows
from supmer.train.report import curves_by_kind
from supmer.train.run_dir import RunDirectory

HERE = Path(__file__).parent
NUM_CLUSTERS_SHOWN, NUM_ROWS_SHOWN, SHOWN_CHARACTERS = 8, 2, 90

MEANING = {
    "nsp": "Do these two sentences follow each other (yes), come from one document (maybe), or from two (no)?",
    "nss": "Which of these sentences stands next to the first one?",
    "scsp": "Are these two sentences of one cluster?",
    "scss": "Which of these sentences shares the cluster of the first one?",
    "scc": "Which cluster is this sentence from? Each option is one position that holds a cluster's centroid.",
}

PAGE = """# The method in pictures

SUPMER makes small tasks from plain text, and learns from them a prompt and how to correct gradients. These pictures
show what one run, the quickstart's, has computed. They are drawn by

```bash {{.needs-setup}}
python docs/method_pictures.py runs/quickstart
```

The equations are in [Method](method.md).

## Clusters stand for domains

The text ({num_sentences:,} sentences of the documentation of installed packages) has no labels. Its sentences are
embedded by the frozen model and grouped by k-means; each group plays the part of a domain. Some of the {num_clusters}
clusters, with the words that set them apart and the sentence nearest to the centre:

{clusters}

![Clusters by size, and their centroids in a plane](method_clusters.svg)

## Episodes are made from the text itself

An episode is a small labelled task that nobody had to label: {num_support} support rows to take a step on,
{num_query} query rows to judge the step, and as many augmentation rows from another domain. There are five kinds.
`<X>` is where the model is to put the label word. These are the first rows of an episode of each kind, as the model
reads them:

{episodes}

## The gate decides how far a gradient is bent

The inner step moves the prompt along the gradient of the support rows. A small network bends that gradient first, and
its gate *z* says how much of the raw gradient is kept: 1 keeps all of it. The gate is trained to follow how much two
domains, and the gradients of support and query rows, agree. In {num_steps} meta-steps it went from {first_gate:.3f}
to {last_gate:.3f}:

![Gate and similarity of gradients over meta-steps](method_gate.svg)

## Mixup grows with agreement

Query rows are mixed with augmentation rows from another domain: *λ* is the weight of the query rows, drawn anew for
each episode from Beta(1, *b*). While inner and outer gradients disagree, *b* is near 0 and *λ* near 1, so nothing is
mixed in. In this run *b* rose to {last_b:.2f}; each dot is an episode:

![Lambda of each episode, and b over meta-steps](method_mixup.svg)

## What comes of it

Losses on held-out episodes, by kind, before the first step and later. The loss of a kind falls when the prompt has
learnt to read its question:

![Query loss on held-out episodes by kind](method_validation.svg)
"""


def main(run_dir: str) -> None:
    directory = RunDirectory(run_dir)
    config = resolve_backbone(load_config(directory.config, []))
    store_uri = prepare(config)
    store = TaskStore.open(store_uri)
    tokenizer = check_backbone(config.backbone)
    sampler = EpisodeSampler(store, TaskVocabulary.of_backbone(config.backbone), config)
    rows = read_rows(directory.metrics)
    train = [row for row in rows if row["split"] == "train"]
    steps = [row["step"] for row in train]

    Path(HERE, "method_clusters.svg").write_bytes(Path(store_uri, "clusters.svg").read_bytes())
    shown = {"gate z": (steps, [row["gate"] for row in train]), "similarity": (steps, [row["similarity"] for row in train])}
    save(curves(shown, "meta-step"), HERE / "method_gate.svg")
    save(_mixup(config, train), HERE / "method_mixup.svg")
    validation = [row for row in rows if row["split"] == "validation"]
    by_kind = {kind: {"query loss": curve} for kind, curve in curves_by_kind(validation, "query_loss").items()}
    save(panels(by_kind, "meta-step", "query loss"), HERE / "method_validation.svg")

    manifest = store.manifest
    largest = sorted(range(manifest.num_clusters), key=lambda cluster: -manifest.size("train", cluster))
    clusters = Table(
        ["cluster", "words", "nearest sentence", "sentences"],
        [
            [
                str(cluster),
                ", ".join(manifest.typical_words[cluster][:5]),
                _code(_short(manifest.nearest[cluster][0])),
                str(manifest.size("train", cluster)),
            ]
            for cluster in largest[:NUM_CLUSTERS_SHOWN]
        ],
        num_labels=3,
    )
    episodes = [_episode(sampler.validation_episode(kind, 0), tokenizer) for kind in config.tasks.kinds if kind in MEANING]
    page = PAGE.format(
        num_sentences=sum(
            manifest.size(split, c) for split in ("train", "validation") for c in range(manifest.num_clusters)
        ),
        num_clusters=manifest.num_clusters,
        clusters=clusters.markdown(),
        num_support=config.tasks.num_support,
        num_query=config.tasks.num_query,
        episodes="\n\n".join(episodes),
        num_steps=len(train),
        first_gate=train[0]["gate"],
        last_gate=train[-1]["gate"],
        last_b=train[-1]["mixup_b"],
    )
    Path(HERE, "method_pictures.md").write_text(page)


def _episode(episode: Episode, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the first support rows of an episode, with their label words, in Markdown."""
    domains = f"cluster {_list(episode.clusters)}, augmented from {_list(episode.augmentation_clusters)}"
    rows = [
        [_code(_text(row, tokenizer)), _code(tokenizer.decode(row.target_ids[1:-1]))]
        for row in episode.support[:NUM_ROWS_SHOWN]
    ]
    table = Table(["row", "label word"], rows, num_labels=2)
    return f"**{episode.kind}** ({domains}). {MEANING[episode.kind]}\n\n{table.markdown()}"


def _text(row: Example, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a row as text; a position that holds a centroid is written as the cluster in brackets."""
    text, tokens = "", []
    for token, cluster in zip(row.input_ids.tolist(), row.centroid_ids.tolist(), strict=True):
        if cluster == NO_CENTROID:
            tokens.append(token)
        else:
            text, tokens = f"{text}{tokenizer.decode(tokens)} [centroid {cluster}] ", []
    return (text + tokenizer.decode(tokens)).replace("<extra_id_0>", "<X>")


def _mixup(config: Config, train: list[dict]) -> object:
    """Draw lambda of each episode of the run, which is a function of seed, step and slot, over b."""
    drawn = [
        (row["step"], draw_lambda(row["mixup_b"], config.curriculum, config.run.seed, row["step"] - 1, slot))
        for row in train
        for slot in range(config.meta.tasks_per_step)
    ]
    figure = curves({"b": ([row["step"] for row in train], [row["mixup_b"] for row in train])}, "meta-step")
    axes = figure.axes[0]
    axes.plot(*np.transpose(drawn), "o", markersize=3, label="λ of an episode")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return figure


def _list(clusters: tuple[int, ...]) -> str:
    return ", ".join(map(str, clusters))


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[: text.rindex(" ", 0, SHOWN_CHARACTERS)] + " ..."


def _code(text: str) -> str:
    return f"`{' '.join(text.replace('`', ' ').split())}`"


if __name__ == "__main__":
    main(*sys.argv[1:])
