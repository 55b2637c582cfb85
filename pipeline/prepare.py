"""Prepare a task store from raw text: sentences, embeddings, clusters (section 1).

    python pipeline/prepare.py --config configs/quickstart.yaml [section.key=value ...]

Says what the clusters are about. The same text and settings are prepared once; the same command goes on after a stop.
"""

from __future__ import annotations

import argparse

from supmer.cli import build_parser, run_job
from supmer.config import Config


def run(config: Config, arguments: argparse.Namespace) -> None:
    """Prepare the store and say what is in it, or only what `--inspect` or `--elbow` ask for."""
    # Here, so that --help and a misspelt setting answer at once.
    if arguments.inspect:
        from supmer import storage
        from supmer.corpus.inspection import summary
        from supmer.corpus.manifest import read_manifest

        print(summary(read_manifest(storage.absolute(arguments.inspect))))
        return
    if arguments.elbow:
        from supmer.corpus.elbow import elbow, table
        from supmer.pretrain.warmup import resolve_backbone

        print(table(elbow(resolve_backbone(config), arguments.elbow)))
        return
    from supmer.corpus.inspection import log_clusters
    from supmer.corpus.manifest import read_manifest
    from supmer.corpus.prepare import prepare
    from supmer.pretrain.warmup import resolve_backbone

    log_clusters(read_manifest(prepare(resolve_backbone(config))))


def numbers(text: str) -> list[int]:
    """Read numbers between commas."""
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = build_parser(__doc__ or "")
    parser.add_argument("--inspect", metavar="STORE", help="print what a store holds, and prepare nothing")
    parser.add_argument(
        "--elbow", metavar="K,K,...", type=numbers, help="print inertia and silhouette for these numbers of clusters"
    )
    run_job(run, parser)


if __name__ == "__main__":
    main()
