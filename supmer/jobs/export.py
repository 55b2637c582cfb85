"""Prompts in and out: to and from a PEFT adapter, and from published .pt files.

supmer export peft --run RUN_DIR --out FOLDER
supmer export from-peft --adapter FOLDER --out FOLDER
supmer export from-published --prompt FILE [--regularizer FILE] --out FOLDER
"""

from __future__ import annotations

import argparse

from supmer.cli import Job
from supmer.config import Config


def export(_: Config, arguments: argparse.Namespace) -> None:
    print(arguments.command(arguments))


def peft(arguments: argparse.Namespace) -> str:
    """Write the adapter, and upload it if asked to."""
    from supmer.fewshot.peft_adapter import export_peft, push_to_hub

    export_peft(arguments.run, arguments.out, arguments.cell, arguments.base_model)
    if arguments.push:
        return f"adapter written to {arguments.out} and uploaded to {push_to_hub(arguments.out, arguments.push)}"
    return f"adapter written to {arguments.out}"


def from_published(arguments: argparse.Namespace) -> str:
    """Convert published files."""
    from supmer.fewshot.published import convert_published

    convert_published(arguments.prompt, arguments.regularizer, arguments.out)
    return f"written to {arguments.out}; tune from it with fewshot.from_run={arguments.out} meta.pooling=all"


def from_peft(arguments: argparse.Namespace) -> str:
    from supmer.fewshot.peft_adapter import import_peft

    what = import_peft(arguments.adapter, arguments.out)
    return f"{what}, written to {arguments.out}; tune from it with fewshot.from_run={arguments.out}"


def add_options(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(required=True)
    adapter = commands.add_parser("peft", help="write a PEFT prompt-tuning adapter with a model card")
    adapter.add_argument("--run", required=True, metavar="RUN_DIR", help="run directory")
    adapter.add_argument("--out", required=True, metavar="FOLDER", help="folder to write")
    adapter.add_argument("--cell", metavar="NAME", help="take a tuned prompt: a folder's name in RUN_DIR/fewshot")
    adapter.add_argument("--base-model", metavar="NAME", help="backbone that the adapter names; default: the run's")
    adapter.add_argument("--push", metavar="REPO", help="also upload the folder to this repository of the hub")
    adapter.set_defaults(command=peft)
    imported = commands.add_parser("from-peft", help="read a PEFT prompt-tuning adapter")
    imported.add_argument("--adapter", required=True, metavar="FOLDER", help="its folder, or hf://user/repo")
    imported.add_argument("--out", required=True, metavar="FOLDER", help="folder to write")
    imported.set_defaults(command=from_peft)
    published = commands.add_parser("from-published", help="convert published prompt_*.pt and gradient_edit_*.pt")
    published.add_argument("--prompt", required=True, metavar="FILE", help="prompt_<model>.pt")
    published.add_argument("--regularizer", metavar="FILE", help="gradient_edit_<model>.pt")
    published.add_argument("--out", required=True, metavar="FOLDER", help="folder to write")
    published.set_defaults(command=from_published)


JOB = Job(__doc__, export, add_options, has_settings=False)
