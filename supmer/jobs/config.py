"""Print a JSON schema of all settings, by which editors complete and check a configuration.

supmer config schema > configs/schema.json
"""

from __future__ import annotations

import argparse
import json

from supmer.cli import Job
from supmer.config import Config
from supmer.config.schema import json_schema


def print_schema(_: Config, arguments: argparse.Namespace) -> None:
    print(json.dumps(json_schema(), indent=2))


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=["schema"], help="print the schema")


JOB = Job(__doc__, print_schema, add_options, has_settings=False)
