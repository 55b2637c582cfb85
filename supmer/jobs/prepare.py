"""Prepare a task store from raw text: sentences, embeddings, clusters (section 1).

    supmer prepare --config quickstart [section.key=value ...]

Says what the clusters are about. The same text and settings are prepared once; the same command goes on after a stop. Text
and embeddings are kept: another number of clusters, or another size of episodes, embeds nothing again.
"""

from __future__ import annotations

import argparse

from supmer.cli import Job
from supmer.config import Config


def run(config: Config, arguments: argparse.Namespace) -> None:
    """Prepare the store and print what is in it, or do only what one of the options asks for."""
    # Here, so that --help and a misspelt setting answer at once.
    if arguments.inspect:
        from supmer import storage
        from supmer.corpus.inspection import summary
        from supmer.corpus.manifest import read_manifest

        print(summary(read_manifest(storage.absolute(arguments.inspect))))
        return
    if arguments.list_stores or arguments.remove:
        from supmer import storage
        from supmer.corpus.stores import list_stores, remove_stores, table

        store_dir = storage.absolute(config.corpus.store_dir)
        print("\n".join(remove_stores(store_dir, arguments.remove)) if arguments.remove else table(list_stores(store_dir)))
        return
    from supmer.backbone.load import resolve_backbone
    from supmer.corpus.inspection import log_clusters
    from supmer.corpus.manifest import read_manifest
    from supmer.corpus.prepare import prepare

    log_clusters(read_manifest(prepare(resolve_backbone(config), arguments.strict)))


def names(text: str) -> list[str]:
    """Read names between commas; a slash at the end of a folder's name may stay."""
    return [part.strip().rstrip("/") for part in text.split(",")]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--inspect", metavar="STORE", help="print what a store holds, and prepare nothing")
    parser.add_argument(
        "--list-stores", action="store_true", help="print what lies in corpus.store_dir, with sizes and last use"
    )
    parser.add_argument(
        "--remove", metavar="NAME,NAME,...", type=names, help="delete stores, texts or embeddings that --list-stores names"
    )
    parser.add_argument(
        "--strict", action="store_true", help="a corpus of which more than 1%% cannot be used is an error, not a warning"
    )


JOB = Job(__doc__, run, add_options)
