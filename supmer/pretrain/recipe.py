"""From a corpus to a backbone folder: text and tokenizer, teacher, training. Every stage is kept, and done once.

What does not depend on shape and objectives (text, tokenizer, the teacher's embeddings) lies in `backbone.cache_dir` and is
shared by all runs that ask for the same; the training's state lies in the run directory.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import ray
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from supmer import storage
from supmer.config import Config
from supmer.corpus.fingerprint import describe_sources, fingerprint
from supmer.corpus.reading import read_documents
from supmer.errors import UserError
from supmer.pretrain.pretraining import Pretraining, PretrainingData
from supmer.pretrain.sentences import choose_sentences, excerpt
from supmer.pretrain.span_corruption import pack_sequences
from supmer.pretrain.teacher import embed_sentences, teacher_folder
from supmer.pretrain.tokenizer import train_tokenizer
from supmer.pretrain.warmup import MAX_CHARACTERS, choose_texts
from supmer.pretrain.word_vectors import piece_texts
from supmer.runtime import connect_ray

log = logging.getLogger(__name__)

TEACHING = {"teacher", "max_document_characters", "max_sentences", "max_sentence_tokens"}
"""Settings of `backbone.distill` that the teacher's embeddings depend on."""


def pretrain_backbone(config: Config, should_stop: Callable[[], bool]) -> Path | None:
    """Make `<run.dir>/<run.name>/backbone` and return it, or None if it was stopped; the same call goes on.

    Raises:
        UserError: the corpus or the teacher cannot be used, or the run directory holds a run with other settings.
    """
    storage.check_local("run.dir", config.run.dir, "a backbone in the making")
    teacher_folder(config.backbone.distill.teacher)  # a mistake in the name must not first show up after the reading
    folder = Path(config.run_dir) / "backbone"
    checkpoint = _claim(folder.with_name("pretraining"), config) / "checkpoint.pt"
    if folder.is_dir():
        log.info("%s is there already", folder)
        return folder
    training = prepare_training(config, should_stop)
    if training is None:
        return None
    if checkpoint.exists():
        training.load(checkpoint)
        log.info("goes on after step %d", training.step)
    return _write(training, folder) if training.run(checkpoint, should_stop) else None


def prepare_training(config: Config, should_stop: Callable[[], bool]) -> Pretraining | None:
    """Return an untrained student with all that it learns from, or None if it was stopped; what is there is taken."""
    texts, tokenizer = _texts_and_tokenizer(config)
    data = _teach(config, texts, tokenizer, should_stop)
    return Pretraining(tokenizer, data, config.backbone.warmup, config.backbone.distill) if data else None


def prepared_folder(config: Config) -> Path:
    """Return the folder of text, tokenizer and teacher's embeddings, named by what they depend on."""
    mark = fingerprint(
        {
            "corpus": describe_sources(config) | config.corpus.model_dump(include={"language", "max_documents"}),
            "vocab_size": config.backbone.warmup.vocab_size,
            "distill": config.backbone.distill.model_dump(include=TEACHING),
        }
    )
    return Path(config.backbone.cache_dir).expanduser().resolve() / f"teacher-{mark[:16]}"


def _claim(work: Path, config: Config) -> Path:
    """Begin a run directory, or make sure that it was begun with the same settings and corpus; return it."""
    backbone = config.backbone.model_dump(include={"warmup", "distill"})
    backbone["distill"].pop("checkpoint_every")
    mark = fingerprint({"backbone": backbone, "corpus": describe_sources(config)})
    file = work / "fingerprint"
    if file.exists() and file.read_text() != mark:
        raise UserError(f"run.name={config.run.name}: {work} was begun with other settings; choose another name")
    work.mkdir(parents=True, exist_ok=True)
    file.write_text(mark)
    return work


def _texts_and_tokenizer(config: Config) -> tuple[list[str], PreTrainedTokenizerBase]:
    """Read the corpus through Ray Data and train the tokenizer, or take both from an earlier call."""
    folder = prepared_folder(config)
    file = folder / "texts.json"
    if not file.exists():
        connect_ray()
        size = config.backbone.distill.max_document_characters
        rows = read_documents(config).iter_rows()
        excerpts = ((row["document"], excerpt(row["document"], row["text"], size)) for row in rows)
        texts = choose_texts(excerpts, MAX_CHARACTERS)
        ray.shutdown()  # the training that follows takes hours and needs none of it
        train_tokenizer(texts, config.backbone.warmup.vocab_size).save_pretrained(folder / "tokenizer")
        temporary = file.with_suffix(".tmp")
        temporary.write_text(json.dumps(texts))
        temporary.rename(file)
    return json.loads(file.read_text()), AutoTokenizer.from_pretrained(folder / "tokenizer")


def _teach(
    config: Config, texts: list[str], tokenizer: PreTrainedTokenizerBase, should_stop: Callable[[], bool]
) -> PretrainingData | None:
    """Let the teacher embed sentences and pieces; return what the student learns from, or None if it was stopped."""
    settings, shape = config.backbone.distill, config.backbone.warmup
    folder, teacher, max_tokens = prepared_folder(config), teacher_folder(settings.teacher), settings.max_sentence_tokens
    sentences = choose_sentences(texts, config.corpus.language, settings.max_sentences)
    pieces = embed_sentences(teacher, piece_texts(tokenizer, shape.vocab_size), max_tokens, folder / "pieces", should_stop)
    embeddings = embed_sentences(teacher, sentences, max_tokens, folder / "sentences", should_stop)
    if pieces is None or embeddings is None:
        return None
    tokens = tokenizer(sentences, add_special_tokens=False)["input_ids"]
    documents = tokenizer(texts, add_special_tokens=False)["input_ids"]
    sequences = pack_sequences(documents, shape.sequence_length, tokenizer.eos_token_id)
    return PretrainingData([ids[:max_tokens] for ids in tokens], embeddings, sequences, pieces)


def _write(training: Pretraining, folder: Path) -> Path:
    temporary = folder.with_suffix(".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    training.model.save_pretrained(temporary)
    training.tokenizer.save_pretrained(temporary)
    temporary.rename(folder)
    return folder
