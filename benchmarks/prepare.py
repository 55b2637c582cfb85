"""Preparation against a straightforward script of the same steps, and its memory at ten times the text.

    python benchmarks/prepare.py [--documents 200] [--memory-documents 100]

Throughput: both sides, each in a process of its own, read the same documents, cut them with the same splitter and
tokenizer, drop duplicates, embed with the same T5 of width 64, fit the same k-means and write the units by cluster. The
script is what one would write first: one process, one document after the other, batches in reading order; its encoder and
k-means use all cores. That both give the same units, and clusters that are equally good, is asserted (k-means starts from
other rows where the rows come in another order, so the clusters are not the same).

Memory: the peak of the whole process tree (proportional set sizes), preparing some documents, and ten copies of them under
other ids without dropping duplicates, with a tiny encoder; both on Ray, also where one process would do.

Text is `../shared/corpus/wikipedia_en.jsonl.gz` where that is there, else made up. The last line is one JSON object:
`speedup` (seconds of the script / of the preparation, Ray's start included) and `memory_ratio` (ten times the text / once).
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.dataset as pds
import torch
from hardware import describe
from plain_preparation import COLUMNS, NUM_CLUSTERS, RESTARTS, prepare_plainly

SHARED = Path(__file__).resolve().parents[2] / "shared"
COPIES = 10
SAME_INERTIA = 0.02
"""By how much, relatively, the clusters' inertia may differ."""
SAMPLE_SECONDS = 0.5


def main() -> None:
    arguments = _parse()
    if arguments.side:
        side = {"script": plain, "pipeline": pipeline}[arguments.side]
        print(json.dumps(side(arguments)))
        return
    print(describe())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"text: {make_inputs(folder, max(arguments.documents, arguments.memory_documents))}")
        speedup = compare(folder, arguments.documents)
        memory_ratio = measure_memory(folder, arguments.memory_documents)
    print(json.dumps({"benchmark": "prepare", "speedup": round(speedup, 2), "memory_ratio": round(memory_ratio, 2)}))


def compare(folder: Path, num_documents: int) -> float:
    """Run both sides on the same documents, check that they agree, and return how much longer the script takes."""
    corpus = write_corpus(folder, num_documents, copies=1)
    ours, _ = run_side("pipeline", corpus, folder / "encoder", "units")
    theirs, _ = run_side("script", corpus, folder / "encoder", "units")
    num_units = check_same(ours["output"], theirs["output"], theirs["inertia"])
    for side, result in (("preparation", ours), ("script", theirs)):
        stages = ", ".join(f"{what} {seconds:.1f} s ({num_units / seconds:.0f}/s)" for what, seconds in result["stages"])
        print(f"{side}: {num_units} units in {result['seconds']:.1f} s: {stages}")
    return float(theirs["seconds"] / ours["seconds"])


def measure_memory(folder: Path, num_documents: int) -> float:
    """Return the peak memory for ten times the text, relative to once."""
    peaks = []
    for copies in (1, COPIES):
        corpus = write_corpus(folder, num_documents, copies)
        result, peak = run_side("pipeline", corpus, folder / "tiny", "none")
        peaks.append(peak)
        print(f"{copies:2} x {num_documents} documents: peak {peak / 1e6:.0f} MB, {result['seconds']:.0f} s")
    return peaks[1] / peaks[0]


def run_side(side: str, corpus: Path, backbone: Path, deduplicate: str) -> tuple[dict[str, Any], int]:
    """Run one side in a process of its own; return what it tells and the peak memory of its process tree in bytes."""
    command = [sys.executable, __file__, "--side", side, "--corpus", str(corpus), "--backbone", str(backbone)]
    with subprocess.Popen([*command, "--deduplicate", deduplicate], stdout=subprocess.PIPE, text=True) as process:
        peak = 0
        while process.poll() is None:
            peak = max(peak, tree_memory(process.pid))
            time.sleep(SAMPLE_SECONDS)
        output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(f"the {side} failed")
    return json.loads(output.splitlines()[-1]), peak


def tree_memory(pid: int) -> int:
    """Return the proportional set sizes of a process and all below it; shared memory counts once."""
    total = 0
    for process in (root := psutil.Process(pid), *root.children(recursive=True)):
        try:
            total += process.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def pipeline(arguments: argparse.Namespace) -> dict[str, Any]:
    """Prepare a store as `pipeline/prepare.py` does; the stages' seconds are those it logs."""
    from supmer.config.load import validate
    from supmer.corpus.prepare import prepare

    stages: list[tuple[str, float]] = []

    def note(record: logging.LogRecord) -> bool:
        if record.msg.startswith("%s took") and isinstance(record.args, tuple):
            step, seconds, *_ = record.args
            stages.append((str(step), float(str(seconds))))
        return True

    logging.getLogger("supmer.progress").setLevel(logging.INFO)
    logging.getLogger("supmer.progress").addFilter(note)
    folder = Path(arguments.corpus).parent
    started = time.perf_counter()
    output = prepare(
        validate(
            {
                "backbone": {"name": arguments.backbone},
                "corpus": {
                    "paths": [arguments.corpus],
                    "id_column": "id",
                    "store_dir": str(folder / "stores"),
                    "deduplicate": arguments.deduplicate,
                }
                | ({"embedders": os.cpu_count()} if arguments.deduplicate == "none" else {}),
                "clusters": {"num_clusters": NUM_CLUSTERS, "restarts": RESTARTS}
                | ({"sample_size": 20_000} if arguments.deduplicate == "none" else {}),
                "tasks": {"num_support": 2, "num_query": 2},
            }
        )
    )
    return {"output": output, "seconds": time.perf_counter() - started, "stages": stages}


def plain(arguments: argparse.Namespace) -> dict[str, Any]:
    """Prepare the same units by the straightforward script."""
    return prepare_plainly(Path(arguments.corpus), arguments.backbone)


def check_same(store_uri: str, script_folder: str, inertia: float) -> int:
    """Assert that store and script hold the same units in clusters as good; return the number of units."""
    from supmer.corpus.manifest import read_manifest

    manifest = read_manifest(store_uri)
    files = [f"{store_uri}/{file.path}" for file in manifest.files]
    ours = pds.dataset(files, partitioning=pds.HivePartitioning.discover(), partition_base_dir=store_uri).to_table()
    theirs = pds.dataset(script_folder, partitioning="hive").to_table()
    by_place = [("document", "ascending"), ("position", "ascending")]
    ours, theirs = ours.sort_by(by_place), theirs.sort_by(by_place)
    for column in COLUMNS:
        assert ours[column].to_pylist() == theirs[column].to_pylist(), f"different {column}"
    ratio = manifest.inertia / inertia
    assert abs(ratio - 1) < SAME_INERTIA, f"inertia differs by a factor of {ratio:.3f}"
    print(f"same {len(ours)} units, inertia {ratio:.4f} of the script's")
    return len(ours)


def make_inputs(folder: Path, num_documents: int) -> str:
    """Write `documents.json` and two random T5 encoders with a tokenizer to a folder; say what the text is."""
    from transformers import T5Config, T5ForConditionalGeneration, T5Tokenizer

    from supmer.package_data import data_folder

    real = SHARED / "corpus" / "wikipedia_en.jsonl.gz"
    texts = list(islice(_wikipedia(real) if real.exists() else _made_up(), num_documents))
    (folder / "documents.json").write_text(json.dumps(texts))
    known = SHARED / "tokenizer"
    tokenizer = T5Tokenizer.from_pretrained(known if known.exists() else data_folder("backbone/embedded"))
    for name, width, layers in (("encoder", 64, 2), ("tiny", 16, 1)):
        torch.manual_seed(0)
        shape = T5Config(
            vocab_size=len(tokenizer) + 28, d_model=width, d_kv=16, d_ff=4 * width, num_layers=layers, num_heads=4
        )
        shape.decoder_start_token_id = 0
        T5ForConditionalGeneration(shape).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return f"{len(texts)} documents of {real.name if real.exists() else 'made-up words'}"


def write_corpus(folder: Path, num_documents: int, copies: int) -> Path:
    """Write documents, several times under other ids, as one compressed JSONL file."""
    texts = json.loads((folder / "documents.json").read_text())[:num_documents]
    path = folder / f"corpus-{num_documents}-{copies}" / "corpus.jsonl.gz"
    path.parent.mkdir(exist_ok=True)
    with gzip.open(path, "wt", compresslevel=1) as file:
        for copy in range(copies):
            file.writelines(
                json.dumps({"id": f"{copy}-{number:06d}", "text": text}) + "\n" for number, text in enumerate(texts)
            )
    return path


def _wikipedia(path: Path) -> Iterator[str]:
    with gzip.open(path, "rt") as file:
        yield from (json.loads(line)["text"] for line in file)


def _made_up() -> Iterator[str]:
    rng = np.random.default_rng(0)
    words = np.array(["".join(rng.choice(list("abdefgiklmnoprstuvw"), 6)) for _ in range(5000)])
    while True:
        sentences = [" ".join(rng.choice(words, rng.integers(6, 40))).capitalize() + "." for _ in range(250)]
        yield "\n\n".join(" ".join(sentences[start : start + 5]) for start in range(0, 250, 5))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--documents", type=int, default=200, help="documents that both sides prepare")
    parser.add_argument("--memory-documents", type=int, default=100, help="documents prepared once, and ten times")
    for name in ("--side", "--corpus", "--backbone", "--deduplicate"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
