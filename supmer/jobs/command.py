"""Self-supervised meta-prompt learning on Ray: prepare text, meta-train a prompt, tune it on few rows, use it.

Shells complete commands, options, shipped configurations and settings after

    eval "$(register-python-argcomplete supmer)"
"""

from __future__ import annotations

import argparse
import sys

import argcomplete

from supmer.cli import JobParser, users_mistakes_in_one_line
from supmer.jobs import compare, config, doctor, export, metatrain, plan, predict, prepare, prompt_tune, serve, tune

COMMANDS = {
    "prepare": prepare.JOB,
    "metatrain": metatrain.JOB,
    "tune": tune.JOB,
    "prompt-tune": prompt_tune.JOB,
    "predict": predict.JOB,
    "serve": serve.JOB,
    "export": export.JOB,
    "plan": plan.JOB,
    "compare": compare.JOB,
    "doctor": doctor.JOB,
    "config": config.JOB,
}


def build_parser() -> JobParser:
    """Return the parser of all commands, as help and completion need it."""
    parser = JobParser(
        prog="supmer",
        description=__doc__,
        epilog="`supmer COMMAND --help` lists a command's options and all settings.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, job in COMMANDS.items():
        summary = (job.about or "").splitlines()[0]
        commands.add_parser(name, parents=[job.build_parser()], add_help=False, help=summary)
    return parser


def main() -> None:
    parser = build_parser()
    argcomplete.autocomplete(parser)
    with users_mistakes_in_one_line():
        name = sys.argv[1] if len(sys.argv) > 1 else "--help"
        if name not in COMMANDS:
            parser.parse_args([name])
    # Each command parses what is meant for it, settings between options included, which subparsers would refuse.
    sys.argv[:2] = [f"supmer {name}"]
    COMMANDS[name].main()
