"""Record which nodes a cluster has, moment by moment, and draw it.

python cluster/local/watch_nodes.py record nodes.jsonl [--seconds 300]     # or until Ctrl-C
python cluster/local/watch_nodes.py plot nodes.jsonl nodes.png
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections import Counter
from pathlib import Path

from ray.util.state import list_nodes

DASHBOARD = "http://127.0.0.1:8265"
SECONDS_BETWEEN = 1.0
ROLES = ("head", "data", "trainer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recorder = commands.add_parser("record")
    recorder.add_argument("file", type=Path)
    recorder.add_argument("--seconds", type=float, default=float("inf"))
    plotter = commands.add_parser("plot")
    plotter.add_argument("file", type=Path)
    plotter.add_argument("image", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "record":
        with contextlib.suppress(KeyboardInterrupt):
            record(arguments.file, arguments.seconds)
    else:
        plot(arguments.file, arguments.image)


def record(file: Path, seconds: float) -> None:
    """Append one line a second: seconds since the start, and the number of live nodes by role."""
    start = time.monotonic()
    with file.open("a") as lines:
        while (elapsed := time.monotonic() - start) < seconds:
            lines.write(json.dumps({"seconds": round(elapsed, 1), "nodes": count_nodes()}) + "\n")
            lines.flush()
            time.sleep(SECONDS_BETWEEN)


def count_nodes() -> dict[str, int]:
    # Nodes that come or go meanwhile would otherwise count as missing output.
    nodes = list_nodes(address=DASHBOARD, filters=[("state", "=", "ALIVE")], detail=True, raise_on_missing_output=False)
    return dict(Counter("head" if node.is_head_node else (node.labels or {}).get("role", "other") for node in nodes))


def plot(file: Path, image: Path) -> None:
    """Draw the numbers of nodes as steps over time, stacked."""
    from supmer.reports import drawing  # here: recording needs Ray only

    rows = [json.loads(line) for line in file.read_text().splitlines()]
    counts = {role: [row["nodes"].get(role, 0) for row in rows] for role in ROLES}
    drawing.save(drawing.stacked_steps([row["seconds"] for row in rows], counts, "seconds", "nodes"), image)


if __name__ == "__main__":
    main()
