"""A tiny backbone with its tokenizer, and documents of made-up topics."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from transformers import T5Config, T5ForConditionalGeneration

from experiments.embedded_backbone.tokenizer import train_tokenizer
from supmer.config import Config
from supmer.config.load import load_config
from supmer.runtime import connect_ray

NUM_TOPICS, SENTENCES, WIDTH = 4, 20, 16


def make_documents(num_documents: int) -> list[str]:
    """Return documents of `SENTENCES` sentences in two paragraphs, each from the words of one topic."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abdefgiklmnoprstuvw"), 5)) for _ in range(40 * NUM_TOPICS)]
    documents = []
    for number in range(num_documents):
        topic = words[number % NUM_TOPICS :: NUM_TOPICS]
        sentences = [" ".join(rng.choice(topic, 7)).capitalize() + "." for _ in range(SENTENCES)]
        documents.append(" ".join(sentences[:8]) + "\n\n" + " ".join(sentences[8:]))
    return documents


@pytest.fixture(scope="session")
def documents() -> list[str]:
    return make_documents(40)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, documents: list[str]) -> Path:
    """A folder with the documents in two JSONL files."""
    folder = tmp_path_factory.mktemp("corpus")
    for name, texts in (("a.jsonl", documents[:25]), ("b.jsonl", documents[25:])):
        (folder / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return folder


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory, documents: list[str]) -> Path:
    """A folder with a random two-layer T5 and a tokenizer trained on the documents."""
    folder = tmp_path_factory.mktemp("backbone")
    tokenizer = train_tokenizer(documents, 300)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = T5Config(vocab_size=len(tokenizer), d_model=WIDTH, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
        sizes.decoder_start_token_id = 0
        T5ForConditionalGeneration(sizes).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def make_config(backbone: Path, corpus: Path) -> Callable[..., Config]:
    """Return a function of a store folder and overrides that gives the configuration for the corpus above."""

    def make(stores: Path, *overrides: str) -> Config:
        settings = ["clusters.num_clusters=6", "tasks.num_support=4", "tasks.num_query=4", "tasks.num_options=2"]
        paths = [f"backbone.name={backbone}", f"corpus.paths=[{corpus}]", f"corpus.store_dir={stores}"]
        return load_config(None, [*settings, "corpus.validation_fraction=0.3", *paths, *overrides])

    return make


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray cluster on this machine."""
    connect_ray()
    yield
    ray.shutdown()
