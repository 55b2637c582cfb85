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
COLOURS = {"head": "tab:gray", "data": "tab:orange", "trainer": "tab:blue"}


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
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = [json.loads(line) for line in file.read_text().splitlines()]
    seconds = [row["seconds"] for row in rows]
    counts = [[row["nodes"].get(role, 0) for row in rows] for role in COLOURS]
    figure, axes = plt.subplots(figsize=(7, 2.5), layout="constrained")
    axes.stackplot(seconds, counts, labels=list(COLOURS), colors=list(COLOURS.values()), step="post", alpha=0.8)
    axes.set(xlabel="seconds", ylabel="nodes", xlim=(0, seconds[-1]))
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="upper left", ncols=len(COLOURS), frameon=False)
    axes.set_ylim(0, max(sum(column) for column in zip(*counts, strict=True)) + 1.5)
    figure.savefig(image, dpi=150)


if __name__ == "__main__":
    main()
