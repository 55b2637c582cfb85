"""Reading speed of corpus files, beside another checkout of this repository: equal rows first, then rows a second.

    python benchmarks/read_rows.py BEFORE [--rows 100000]

Both checkouts read the same files in processes of their own, in turns, 24 times each; the fastest of each counts (of six,
on a virtual machine, one and the same checkout differed by half).
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROUNDS, READINGS = 8, 3
"""Processes for each file and checkout, and readings in each of them."""
NAMES = ("a.jsonl", "a.csv", "a.parquet", "a.txt")


def write(folder: Path, num_rows: int) -> None:
    """Write the same sentences as JSON lines, CSV, Parquet and text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    random.seed(0)
    words = ["river", "hill", "café", "stone", "of", "the", "north", "sees", '"so-called"', "and,", "then", "it"]
    rows = [{"id": number, "text": " ".join(random.choices(words, k=30)), "label": number % 2} for number in range(num_rows)]
    (folder / NAMES[0]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    with open(folder / NAMES[1], "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    pq.write_table(pa.Table.from_pylist(rows), folder / NAMES[2])
    (folder / NAMES[3]).write_text("".join(row["text"] + "\n" for row in rows))


def read(file: Path) -> tuple[float, str]:
    """Return the processor's seconds that reading took, which other work hardly changes, and a hash of the rows."""
    from supmer.config import CorpusConfig
    from supmer.corpus.reading import find_files
    from supmer.corpus.records import read_records

    try:
        from supmer.readers.skipped import Skipped as Counts
    except ImportError:
        Counts = Counter  # type: ignore[misc,assignment]  # noqa: N806
    config = CorpusConfig(paths=[str(file)], text_document="line")
    [found] = find_files(config).files
    seconds = []
    for _ in range(READINGS):
        started = time.process_time()
        rows = list(read_records(found, config, Counts()))
        seconds.append(time.process_time() - started)
    return min(seconds), hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def measure(checkout: Path, file: Path) -> tuple[float, str]:
    command = [sys.executable, __file__, str(checkout), "--read", str(file)]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(command, env=environment, cwd=checkout, capture_output=True, text=True, check=True)
    seconds, rows = json.loads(done.stdout.splitlines()[-1])
    return seconds, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="another checkout")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        print(json.dumps(read(arguments.read)))
        return
    result: dict[str, object] = {"benchmark": "read_rows", "rows": arguments.rows}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), arguments.rows)
        for name in NAMES:
            seconds: dict[Path, float] = {}
            rows = set()
            for _ in range(ROUNDS):
                for checkout in (arguments.before.resolve(), ROOT):
                    taken, found = measure(checkout, Path(folder, name))
                    seconds[checkout] = min(taken, seconds.get(checkout, taken))
                    rows.add(found)
            assert len(rows) == 1, f"{name}: the checkouts read other rows"
            before, now = (arguments.rows / one for one in seconds.values())
            kind = name.split(".")[1]
            result |= {f"{kind}_before": round(before), f"{kind}_now": round(now), f"{kind}_ratio": round(now / before, 3)}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
