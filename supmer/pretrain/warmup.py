"""The backbone of `backbone.name=warmup`: a tokenizer and a small T5 made from the corpus itself, once, and then re-used.

It stands in where no pretrained model can be had: big enough to tell topics apart, too small to be a language model.
"""

from __future__ import annotations

import hashlib
import heapq
import logging
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import torch

from supmer.backbone.load import pin_revision
from supmer.config import Config
from supmer.corpus.fingerprint import describe_sources, fingerprint
from supmer.corpus.reading import read_documents
from supmer.errors import UserError
from supmer.pretrain.span_corruption import pack_sequences
from supmer.pretrain.tokenizer import train_tokenizer
from supmer.runtime import connect_ray

log = logging.getLogger(__name__)

NAME = "warmup"
RECIPE = 4
"""Counts changes of this recipe that change the resulting weights."""
MAX_CHARACTERS = 16_000_000
"""Text used at most; a larger corpus is sampled by document."""
MIN_SEQUENCES = 8


def resolve_backbone(config: Config) -> Config:
    """Return `config` with `backbone.name` set to a model folder if it is `warmup`, and a hub name's commit pinned.

    The folder lies in `backbone.cache_dir` under a fingerprint of recipe, settings and corpus. It is made if it is missing,
    and appears there whole or not at all.

    Raises:
        UserError: the corpus cannot be read, or is too small for the settings, or there is no such model.
    """
    if config.backbone.name != NAME:
        pinned = pin_revision(config.backbone)
        return config if pinned is config.backbone else config.model_copy(update={"backbone": pinned})
    folder = Path(config.backbone.cache_dir).expanduser().resolve() / f"{NAME}-{_fingerprint(config)}"
    if folder.is_dir():
        log.info("backbone %s: re-used", folder)
    else:
        _make(config, folder)
    return config.model_copy(update={"backbone": config.backbone.model_copy(update={"name": str(folder)})})


def choose_texts(documents: Iterable[tuple[str, str]], max_characters: int) -> list[str]:
    """Return at most `max_characters` of text in the order of document ids, the same for any order of `documents`.

    Of more text, the documents whose ids have the smallest hashes are taken.
    """
    chosen: list[tuple[int, str, str]] = []
    size = 0
    for document, text in documents:
        heapq.heappush(chosen, (-_hash(document), document, text))
        size += len(text)
        while size > max_characters and len(chosen) > 1:
            size -= len(heapq.heappop(chosen)[2])
    return [text for _, text in sorted((document, text) for _, document, text in chosen)]


def _make(config: Config, folder: Path) -> None:
    """Train tokenizer and model, and move them into place in one step."""
    log.info("backbone %s: made from the corpus by a short warm-up", folder)
    connect_ray()
    rows = read_documents(config).iter_rows()
    texts = choose_texts(((row["document"], row["text"]) for row in rows), MAX_CHARACTERS)
    settings = config.backbone.warmup
    from supmer.pretrain.training import build_model, train  # here: every job resolves its backbone, and few make one

    tokenizer = train_tokenizer(texts, settings.vocab_size)
    documents = tokenizer(texts, add_special_tokens=False)["input_ids"]
    sequences = pack_sequences(documents, settings.sequence_length, tokenizer.eos_token_id)
    if len(sequences) < MIN_SEQUENCES:
        raise UserError(
            f"backbone.warmup.sequence_length={settings.sequence_length}: the corpus has only {len(sequences)} sequences of "
            f"so many tokens, at least {MIN_SEQUENCES} are needed"
        )
    model = build_model(settings, tokenizer)
    log.info("backbone: %d documents, %d tokens, %d parameters", len(texts), sequences.size, model.num_parameters())
    # One thread: the weights, and so every number after them, must not depend on how many cores there are. Matrices of this
    # size gain little from more.
    with _one_thread():
        before, after = train(model, tokenizer, sequences, settings)
    log.info("backbone: held-out span-corruption loss %.3f before, %.3f after %d steps", before, after, settings.steps)
    temporary = folder.with_name(f"{folder.name}.{uuid4().hex}.tmp")
    try:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        _publish(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def _publish(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was faster, with the same result
            raise


def _fingerprint(config: Config) -> str:
    """Return what the weights depend on: the recipe, its settings, and the text that is read."""
    read_by = config.corpus.model_dump(include={"format", "text_document", "text_column", "id_column", "max_documents"})
    return fingerprint(
        {
            "recipe": RECIPE,
            "warmup": config.backbone.warmup.model_dump(),
            "corpus": read_by | describe_sources(config),
        }
    )[:16]


def _hash(document: str) -> int:
    return int.from_bytes(hashlib.blake2b(document.encode(), digest_size=8).digest(), "big")
