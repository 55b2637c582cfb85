"""Preparation as one would write it first: one process, one document after the other, batches in reading order."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

NUM_CLUSTERS, RESTARTS, MAX_ITERATIONS = 50, 3, 100
MIN_TOKENS, MAX_TOKENS, MIN_UNITS = 5, 256, 5
BATCH = 64
COLUMNS = ["document", "position", "text", "tokens", "before", "after"]

Row = tuple[str, int, str, list[int], list[int] | None, list[int] | None]


def prepare_plainly(corpus: Path, backbone: str) -> dict[str, Any]:
    """Prepare a corpus in one process; return the folder written, the seconds in all and of each stage, the inertia."""
    import sentencex  # noqa: F401  # all that the steps import, before the clock starts
    from datasets import load_dataset
    from sklearn.cluster import KMeans  # noqa: F401
    from transformers import AutoTokenizer, T5EncoderModel  # noqa: F401

    folder = corpus.parent
    ends = [time.perf_counter()]
    documents = load_dataset("json", data_files=str(corpus), split="train", cache_dir=str(folder / "cache"))
    ends.append(time.perf_counter())
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    rows = cut(documents, tokenizer)
    ends.append(time.perf_counter())
    embeddings = embed(rows, tokenizer, backbone)
    ends.append(time.perf_counter())
    labels, inertia = assign_clusters(embeddings)
    ends.append(time.perf_counter())
    pd.DataFrame(rows, columns=COLUMNS).assign(cluster=labels).to_parquet(folder / "script", partition_cols=["cluster"])
    ends.append(time.perf_counter())
    names = ["read", "cut", "embedded", "clustered", "written"]
    stages = [(name, stop - start) for name, (start, stop) in zip(names, pairwise(ends), strict=True)]
    return {"output": str(folder / "script"), "seconds": ends[-1] - ends[0], "stages": stages, "inertia": inertia}


def cut(documents: Iterable[dict[str, str]], tokenizer: Any) -> list[Row]:
    """Cut documents into sentences that are new, each with its neighbours."""
    import sentencex

    seen: set[str] = set()
    rows: list[Row] = []
    for document in documents:
        texts = [
            " ".join(sentence.split())
            for paragraph in re.split(r"\n\s*\n", document["text"].strip())
            for sentence in sentencex.segment("en", " ".join(paragraph.split()))
            if sentence.strip()
        ]
        ids = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        units = [(text, tokens[:MAX_TOKENS]) for text, tokens in zip(texts, ids, strict=True) if len(tokens) >= MIN_TOKENS]
        if len(units) < MIN_UNITS:
            continue
        new = [unit for unit in dict(units).items() if unit[0] not in seen]
        seen.update(text for text, _ in new)
        if len(new) < MIN_UNITS:
            continue
        for position, (text, tokens) in enumerate(new):
            before = new[position - 1][1] if position else None
            after = new[position + 1][1] if position + 1 < len(new) else None
            rows.append((document["id"], position, text, tokens, before, after))
    return rows


def embed(rows: Sequence[Row], tokenizer: Any, backbone: str) -> npt.NDArray[np.float32]:
    """Return the masked means [n, d] of the encoder's states, in batches of the rows as they come."""
    from transformers import T5EncoderModel

    encoder = T5EncoderModel.from_pretrained(backbone).eval()
    embeddings = []
    with torch.inference_mode():
        for start in range(0, len(rows), BATCH):
            batch = tokenizer.pad({"input_ids": [row[3] for row in rows[start : start + BATCH]]}, return_tensors="pt")
            mask = batch["attention_mask"]
            states = encoder(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
            embeddings.append((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
    return torch.cat(embeddings).numpy()


def assign_clusters(embeddings: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.int32], float]:
    """Return the clusters [n] of the best of several fits on all rows, and its inertia."""
    from sklearn.cluster import KMeans

    states = [np.random.RandomState([0, restart]) for restart in range(RESTARTS)]
    fits = [KMeans(NUM_CLUSTERS, n_init=1, max_iter=MAX_ITERATIONS, random_state=state).fit(embeddings) for state in states]
    best = min(fits, key=lambda fit: fit.inertia_)
    return best.labels_, float(best.inertia_)
