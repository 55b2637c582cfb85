"""From a corpus to a backbone folder: tokenizer, teacher, training. Every stage is kept, and done once."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import ray
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from supmer.config import Config
from supmer.corpus.cutting import split_text
from supmer.corpus.fingerprint import describe_sources, fingerprint
from supmer.corpus.reading import read_documents
from supmer.errors import UserError
from supmer.pretrain.distillation import Pretraining, PretrainingData
from supmer.pretrain.span_corruption import pack_sequences
from supmer.pretrain.teacher import embed_sentences, teacher_folder
from supmer.pretrain.tokenizer import train_tokenizer
from supmer.pretrain.training import SEED
from supmer.pretrain.warmup import MAX_CHARACTERS, choose_texts
from supmer.runtime import connect_ray

log = logging.getLogger(__name__)

MIN_CHARACTERS = 20


def pretrain_backbone(config: Config, should_stop: Callable[[], bool]) -> Path | None:
    """Make `<run.dir>/<run.name>/backbone` and return it, or None if it was stopped; the same call goes on.

    Raises:
        UserError: the corpus or the teacher cannot be used, or the run directory holds a run with other settings.
    """
    folder = config.run_dir.resolve() / "backbone"
    if folder.is_dir():
        log.info("%s is there already", folder)
        return folder
    work = folder.with_name("pretraining")
    teacher = teacher_folder(config.backbone.distill.teacher)
    _claim(work, config)
    texts, tokenizer = _texts_and_tokenizer(work, config)
    settings, shape = config.backbone.distill, config.backbone.warmup
    sentences = choose_sentences(texts, config.corpus.language, settings.max_sentences)
    embeddings = embed_sentences(teacher, sentences, settings.max_sentence_tokens, work / "teacher", should_stop)
    if embeddings is None:
        return None
    tokens = tokenizer(sentences, add_special_tokens=False)["input_ids"]
    documents = tokenizer(texts, add_special_tokens=False)["input_ids"]
    sequences = pack_sequences(documents, shape.sequence_length, tokenizer.eos_token_id)
    data = PretrainingData([ids[: settings.max_sentence_tokens] for ids in tokens], embeddings, sequences)
    training = Pretraining(tokenizer, data, shape, settings)
    checkpoint = work / "checkpoint.pt"
    if checkpoint.exists():
        training.load(checkpoint)
        log.info("goes on after step %d", training.step)
    return _write(training, folder) if training.run(checkpoint, should_stop) else None


def choose_sentences(texts: Sequence[str], language: str, max_sentences: int) -> list[str]:
    """Return at most so many sentences of at least 20 characters, drawn from all texts by a fixed seed."""
    found = [piece for text in texts for piece in split_text(text, "sentence", language) if len(piece) >= MIN_CHARACTERS]
    if len(found) < 2:
        raise UserError(f"corpus.paths: only {len(found)} sentences of at least {MIN_CHARACTERS} characters")
    order = np.random.default_rng(SEED).permutation(len(found))[:max_sentences]
    return [found[index] for index in order]


def _claim(work: Path, config: Config) -> None:
    """Begin a run directory, or make sure that it was begun with the same settings and corpus."""
    backbone = config.backbone.model_dump(include={"warmup", "distill"})
    backbone["distill"].pop("checkpoint_every")
    mark = fingerprint({"backbone": backbone, "corpus": describe_sources(config)})
    file = work / "fingerprint"
    if file.exists() and file.read_text() != mark:
        raise UserError(f"run.name={config.run.name}: {work} was begun with other settings; choose another name")
    work.mkdir(parents=True, exist_ok=True)
    file.write_text(mark)


def _texts_and_tokenizer(work: Path, config: Config) -> tuple[list[str], PreTrainedTokenizerBase]:
    """Read the corpus through Ray Data and train the tokenizer, or take both from an earlier call."""
    file, tokenizer_folder = work / "texts.json", work / "tokenizer"
    if not file.exists():
        connect_ray()
        rows = read_documents(config).iter_rows()
        texts = choose_texts(((row["document"], row["text"]) for row in rows), MAX_CHARACTERS)
        ray.shutdown()  # the training that follows takes hours and needs none of it
        train_tokenizer(texts, config.backbone.warmup.vocab_size).save_pretrained(tokenizer_folder)
        temporary = file.with_suffix(".tmp")
        temporary.write_text(json.dumps(texts))
        temporary.rename(file)
    return json.loads(file.read_text()), AutoTokenizer.from_pretrained(tokenizer_folder)


def _write(training: Pretraining, folder: Path) -> Path:
    temporary = folder.with_suffix(".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    training.model.save_pretrained(temporary)
    training.tokenizer.save_pretrained(temporary)
    temporary.rename(folder)
    return folder
