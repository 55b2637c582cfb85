"""Print a JSON schema of all settings, by which editors complete and check a configuration.

supmer config schema > configs/schema.json
"""

from __future__ import annotations

import argparse
import json

from supmer.cli import JobParser, users_mistakes_in_one_line
from supmer.config.schema import json_schema


def build_parser() -> JobParser:
    parser = JobParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["schema"], help="print the schema")
    return parser


def main() -> None:
    with users_mistakes_in_one_line():
        build_parser().parse_args()
        print(json.dumps(json_schema(), indent=2))
