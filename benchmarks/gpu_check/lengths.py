"""Print the token lengths of a corpus's sentences, as quantiles: the table `SENTENCE_TOKENS` of `material.py`.

PYTHONPATH=benchmarks python -m gpu_check.lengths ../shared/corpus/wikipedia_en.jsonl.gz ../shared/tokenizer
"""

from __future__ import annotations

import gzip
import json
import sys

import numpy as np
from transformers import AutoTokenizer, T5Config

from supmer.corpus.cutting import split_text

NUM_DOCUMENTS = 1000
MIN_TOKENS, MAX_TOKENS = 5, 256
"""Defaults of `corpus.min_unit_tokens`, below which a sentence is left out, and `corpus.max_unit_tokens`, which cuts it."""
QUANTILES = np.linspace(0, 1, 21)


def main() -> None:
    corpus, folder = sys.argv[1:]
    tokenizer = AutoTokenizer.from_pretrained(
        folder, config=T5Config()
    )  # selects the class: the folder holds only spiece.model
    lengths: list[int] = []
    with gzip.open(corpus, "rt", encoding="utf-8") as lines:
        for _, line in zip(range(NUM_DOCUMENTS), lines, strict=False):
            sentences = split_text(json.loads(line)["text"], "sentence", "en")
            encoded = tokenizer(sentences, add_special_tokens=False)["input_ids"]
            lengths += [min(len(ids), MAX_TOKENS) for ids in encoded if len(ids) >= MIN_TOKENS]
    print(f"{len(lengths)} sentences of {NUM_DOCUMENTS} documents, mean {np.mean(lengths):.1f} tokens")
    print(tuple(np.quantile(lengths, QUANTILES, method="nearest").tolist()))


if __name__ == "__main__":
    main()
