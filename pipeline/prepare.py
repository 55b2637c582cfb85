"""Prepare a task store from raw text: sentences, embeddings, clusters (section 1)."""

from __future__ import annotations

import logging
from argparse import Namespace

import numpy as np

from supmer import storage
from supmer.cli import build_parser, run_job
from supmer.config import Config
from supmer.corpus.inspection import summary
from supmer.corpus.manifest import Manifest, read_manifest
from supmer.corpus.prepare import prepare
from supmer.corpus.store import TaskStore
from supmer.pretrain.warmup import resolve_backbone

logger = logging.getLogger("prepare")


def main() -> None:
    parser = build_parser(__doc__ or "")
    parser.add_argument("--inspect", metavar="STORE", help="print what a store holds, and prepare nothing")
    run_job(run, parser)


def run(config: Config, arguments: Namespace) -> None:
    """Prepare the store and say what is in it."""
    if arguments.inspect:
        print(summary(read_manifest(storage.absolute(arguments.inspect))))
        return
    store = TaskStore.open(prepare(resolve_backbone(config)))
    describe(store.manifest)


def describe(manifest: Manifest) -> None:
    """Log the sizes of the clusters and a few of each cluster's units."""
    for cluster, texts in enumerate(manifest.samples):
        sizes = f"{manifest.size('train', cluster)} + {manifest.size('validation', cluster)}"
        logger.info("cluster %d (%s units): %s", cluster, sizes, " | ".join(text[:100] for text in texts))
    for split in ("train", "validation"):
        sizes = [manifest.size(split, cluster) for cluster in range(manifest.num_clusters)]
        low, middle, high = min(sizes), int(np.median(sizes)), max(sizes)
        logger.info("%s: %d units; clusters hold min %d, median %d, max %d", split, sum(sizes), low, middle, high)


if __name__ == "__main__":
    main()
