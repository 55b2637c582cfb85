"""Sentence splitters on English: accuracy on sentences cut by hand, speed on real text.

    pip install pysbd syntok blingfire
    python experiments/splitters/compare.py

`splitter_gold.txt` holds short passages made up for this, one sentence a line, with what splitters trip over:
abbreviations, initials, numbers, quotations, lists. A boundary is where one sentence ends within a passage; precision and
recall are over boundaries. Speed is on paragraphs of `../shared/corpus/wikipedia_en.jsonl.gz` where that is there, else on
the passages, over and over. Splitters that are not installed are left out. The last line is one JSON object.
"""

from __future__ import annotations

import gzip
import json
import re
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import sentencex

Splitter = Callable[[str], list[str]]

GOLD = Path(__file__).with_name("splitter_gold.txt")
WIKIPEDIA = Path(__file__).resolve().parents[3] / "shared" / "corpus" / "wikipedia_en.jsonl.gz"
SPEED_CHARACTERS = 300_000


def main() -> None:
    passages = [block.splitlines() for block in GOLD.read_text().strip().split("\n\n")]
    paragraphs = list(real_paragraphs(SPEED_CHARACTERS)) or [" ".join(passage) for passage in passages] * 100
    print(f"{len(passages)} passages, {sum(map(len, passages))} sentences; speed on {sum(map(len, paragraphs))} characters")
    scores = {name: measure(split, passages, paragraphs) for name, split in splitters().items()}
    print(f"{'splitter':10} {'precision':>9} {'recall':>7} {'F1':>6} {'whole passages':>15} {'Mchar/s':>8}")
    for name, one in scores.items():
        accuracy = f"{one['precision']:9.3f} {one['recall']:7.3f} {one['f1']:6.3f} {one['whole']:15.3f}"
        print(f"{name:10} {accuracy} {one['rate']:8.2f}")
    best = {name: round(one["f1"], 3) for name, one in scores.items()}
    print(json.dumps({"benchmark": "splitters", "f1": best}))


def splitters() -> dict[str, Splitter]:
    """Return the splitters that are installed, and a regular expression as the floor."""
    found: dict[str, Splitter] = {
        "regex": lambda text: re.split(r"(?<=[.!?])\s+(?=[A-Z\"(])", text),
        "sentencex": lambda text: list(sentencex.segment("en", text)),
    }
    if find_spec("pysbd"):
        from pysbd import Segmenter

        found["pysbd"] = Segmenter(language="en", clean=False).segment
    if find_spec("syntok"):
        from syntok.segmenter import split
        from syntok.tokenizer import Tokenizer

        tokenizer = Tokenizer()
        found["syntok"] = lambda text: [
            "".join(token.spacing + token.value for token in sentence) for sentence in split(tokenizer.tokenize(text))
        ]
    if find_spec("blingfire"):
        from blingfire import text_to_sentences

        found["blingfire"] = lambda text: text_to_sentences(text).split("\n")
    return found


def measure(split: Splitter, passages: list[list[str]], paragraphs: list[str]) -> dict[str, float]:
    """Return precision, recall and F1 of boundaries, the share of faultless passages, and 10^6 characters a second."""
    hits = found = expected = whole = 0
    for passage in passages:
        right, ours = boundaries(passage), boundaries(split(" ".join(passage)))
        hits, found, expected = hits + len(right & ours), found + len(ours), expected + len(right)
        whole += right == ours
    started = time.process_time()
    for paragraph in paragraphs:
        split(paragraph)
    rate = sum(map(len, paragraphs)) / (time.process_time() - started) / 1e6
    precision, recall = hits / found, hits / expected
    f1 = 2 * precision * recall / (precision + recall)
    return {"precision": precision, "recall": recall, "f1": f1, "whole": whole / len(passages), "rate": rate}


def boundaries(sentences: list[str]) -> set[int]:
    """Return after how many characters other than white space a sentence ends, without the last."""
    ends, position = [], 0
    for sentence in sentences:
        position += len("".join(sentence.split()))
        ends.append(position)
    return set(ends[:-1]) - {0, position}


def real_paragraphs(num_characters: int) -> Iterator[str]:
    """Yield paragraphs of Wikipedia up to about so many characters; nothing where there is no Wikipedia."""
    if not WIKIPEDIA.exists():
        return
    with gzip.open(WIKIPEDIA, "rt") as file:
        for line in islice(file, 1000):
            for paragraph in json.loads(line)["text"].split("\n\n"):
                yield " ".join(paragraph.split())
                num_characters -= len(paragraph)
                if num_characters < 0:
                    return


if __name__ == "__main__":
    main()
