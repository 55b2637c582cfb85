"""From a corpus to a backbone folder: text, tokenizer, teacher, training. Each stage is kept in the run directory."""

from __future__ import annotations

import hashlib
import heapq
import json
import logging
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import ray
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from experiments.embedded_backbone.initial_weights import piece_texts
from experiments.embedded_backbone.pretraining import Pretraining, PretrainingData
from experiments.embedded_backbone.settings import Recipe
from experiments.embedded_backbone.teacher import embed_sentences, teacher_folder
from experiments.embedded_backbone.text_batches import pack_sequences
from experiments.embedded_backbone.texts import choose_sentences, excerpt
from experiments.embedded_backbone.tokenizer import train_tokenizer
from supmer import storage
from supmer.config import Config
from supmer.corpus.reading import read_shards
from supmer.errors import UserError
from supmer.runtime import connect_ray

log = logging.getLogger("supmer.experiments")

MAX_CHARACTERS = 16_000_000
"""Text used at most; a larger corpus is sampled by document."""


def make_backbone(config: Config, recipe: Recipe, should_stop: Callable[[], bool]) -> Path | None:
    """Make `<run.dir>/<run.name>/backbone` and return it, or None if it was stopped; the same call goes on.

    Raises:
        UserError: the corpus or the teacher cannot be used, or the run directory holds a run with other settings.
    """
    storage.check_local("run.dir", config.run.dir, "a backbone in the making")
    teacher_folder(recipe.teacher)  # a mistake in the name must not first show up after the reading
    run = _claim(Path(config.run_dir), config, recipe)
    folder, checkpoint = run / "backbone", run / "checkpoint.pt"
    if folder.is_dir():
        log.info("%s is there already", folder)
        return folder
    training = prepare_training(config, recipe, should_stop)
    if training is None:
        return None
    if checkpoint.exists():
        training.load(checkpoint)
        log.info("goes on after step %d", training.step)
    if not training.run(checkpoint, should_stop):
        return None
    temporary = folder.with_suffix(".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    training.model.save_pretrained(temporary)
    training.tokenizer.save_pretrained(temporary)
    return temporary.rename(folder)


def prepare_training(config: Config, recipe: Recipe, should_stop: Callable[[], bool]) -> Pretraining | None:
    """Return an untrained student with all that it learns from, or None if it was stopped; finished stages are re-used."""
    run, max_tokens = Path(config.run_dir), recipe.max_sentence_tokens
    texts, tokenizer = _texts_and_tokenizer(config, recipe, run)
    sentences = choose_sentences(texts, config.corpus.language, recipe.max_sentences)
    teacher = teacher_folder(recipe.teacher)
    pieces = embed_sentences(teacher, piece_texts(tokenizer, recipe.vocab_size), max_tokens, run / "pieces", should_stop)
    embeddings = embed_sentences(teacher, sentences, max_tokens, run / "sentences", should_stop)
    if pieces is None or embeddings is None:
        return None
    tokens = tokenizer(sentences, add_special_tokens=False)["input_ids"]
    documents = tokenizer(texts, add_special_tokens=False)["input_ids"]
    sequences = pack_sequences(documents, recipe.sequence_length, tokenizer.eos_token_id)
    data = PretrainingData([ids[:max_tokens] for ids in tokens], embeddings, sequences, pieces)
    return Pretraining(tokenizer, data, recipe)


def choose_texts(documents: Iterable[tuple[str, str]], max_characters: int) -> list[str]:
    """Return at most `max_characters` of text in the order of document ids, the same for any order of `documents`.

    Of more text, the documents whose ids have the smallest hashes are taken.
    """
    chosen: list[tuple[int, str, str]] = []
    size = 0
    for document, text in documents:
        digest = hashlib.blake2b(document.encode(), digest_size=8).digest()
        heapq.heappush(chosen, (-int.from_bytes(digest, "big"), document, text))
        size += len(text)
        while size > max_characters and len(chosen) > 1:
            size -= len(heapq.heappop(chosen)[2])
    return [text for _, text in sorted((document, text) for _, document, text in chosen)]


def _claim(run: Path, config: Config, recipe: Recipe) -> Path:
    """Begin a run directory, or make sure that it was begun with the same recipe and corpus; return it."""
    wanted = {"recipe": recipe.model_dump(exclude={"checkpoint_every"}), "corpus": config.corpus.model_dump(mode="json")}
    text, file = json.dumps(wanted, indent=1), run / "recipe.json"
    if file.exists() and file.read_text() != text:
        raise UserError(f"run.name={config.run.name}: {run} was begun with other settings; choose another name")
    run.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return run


def _texts_and_tokenizer(config: Config, recipe: Recipe, run: Path) -> tuple[list[str], PreTrainedTokenizerBase]:
    file = run / "texts.json"
    if not file.exists():
        connect_ray()
        shards, _, _ = read_shards(config.corpus)
        size = recipe.max_document_characters
        excerpts = (
            (name, excerpt(name, text, size))
            for shard in shards.iter_rows()
            for name, text in zip(shard["documents"], shard["texts"], strict=True)
        )
        texts = choose_texts(excerpts, MAX_CHARACTERS)
        ray.shutdown()  # the training that follows takes long and needs none of it
        train_tokenizer(texts, recipe.vocab_size).save_pretrained(run / "tokenizer")
        storage.write_bytes(file, json.dumps(texts).encode())
    return json.loads(file.read_text()), AutoTokenizer.from_pretrained(run / "tokenizer")
