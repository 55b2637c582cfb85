"""Answer requests by tuned prompts, many of them on one frozen model (Ray Serve).

    supmer serve --run runs/quickstart [--run runs/other ...] [--port 8000]
    curl 127.0.0.1:8000/predict -d '{"task": "library-docs", "rows": [{"text": "Return the shortest path."}]}'

`GET /tasks` lists the tasks, `/` is a page to try them. Tasks are added by `POST /tasks` and removed by `DELETE`, with the
token of SUPMER_SERVE_TOKEN. Of a run with several cells of a task, the best on dev is served.
"""

from __future__ import annotations

import argparse

from supmer.cli import Job
from supmer.config import Config
from supmer.config.load import with_settings


def serve(config: Config, arguments: argparse.Namespace) -> None:
    """Serve until the job is stopped."""
    from supmer.serve.app import serve_until_stopped

    if arguments.port is not None:
        config = with_settings(config, {"serve.port": arguments.port})
    serve_until_stopped(config, arguments.run)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--run", action="append", default=[], metavar="[NAME=]RUN_DIR", help="run directory, or the folder of a cell"
    )
    parser.add_argument("--port", type=int, help="port to listen at (serve.port)")


JOB = Job(__doc__, serve, add_options)
