"""The backbone in the package: whole, small, half precision on disk, and able to do what it was taught."""

from __future__ import annotations

import hashlib
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from experiments.embedded_backbone.text_batches import cue_batch
from experiments.embedded_backbone.tokenizer import WHOLE_WORDS
from supmer.backbone.identity import backbone_identity
from supmer.backbone.load import FIRST_SENTINEL, SECOND_SENTINEL, load_backbone, load_tokenizer
from supmer.config import BackboneConfig

CONFIG = BackboneConfig(name="embedded", dropout=0.0)
FOLDER = Path(CONFIG.location)
WEIGHTS = FOLDER / "model.safetensors"
MAX_BYTES = 24_000_000
MAX_PARAMETERS = 12_000_000


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return load_backbone(CONFIG)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer(CONFIG)


def test_the_files_are_small_and_half_precision() -> None:
    assert WEIGHTS.stat().st_size < MAX_BYTES
    with safe_open(WEIGHTS, "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118


def test_the_card_names_these_weights() -> None:
    card = (FOLDER / "README.md").read_text()
    (named,) = re.findall(r"\b[0-9a-f]{64}\b", card)
    assert named == hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_loads_in_the_dtype_asked_for(dtype: str) -> None:
    loaded = load_backbone(CONFIG.model_copy(update={"dtype": dtype}))
    assert {parameter.dtype for parameter in loaded.parameters()} == {getattr(torch, dtype)}
    assert loaded.lm_head.weight is loaded.shared.weight
    assert loaded.num_parameters() < MAX_PARAMETERS and not any(p.requires_grad for p in loaded.parameters())


def test_its_weights_are_its_identity() -> None:
    identity = backbone_identity(CONFIG)
    assert identity["name"] == "embedded" and identity["content"]
    assert backbone_identity(CONFIG.model_copy(update={"name": str(FOLDER)}))["content"] == identity["content"]


def test_sentinels_and_label_words_are_single_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    for word in (FIRST_SENTINEL, SECOND_SENTINEL, *WHOLE_WORDS):
        assert len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1, word
    assert tokenizer.convert_tokens_to_ids(FIRST_SENTINEL) == len(tokenizer) - 1


@torch.no_grad()
def test_it_answers_with_a_word_that_its_input_names(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    text = "The harbour was quiet in the morning , and the boats of the village lay on the sand until the wind came back ."
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    sequences = np.resize(np.asarray(ids, dtype=np.int32), (64, 24))
    inputs, targets = cue_batch(sequences, np.random.default_rng(0), tokenizer)
    output = model(input_ids=torch.from_numpy(inputs), labels=torch.from_numpy(targets))
    answers = output.logits[:, 1].argmax(dim=-1).tolist()
    named = [answer in row[:6].tolist() for answer, row in zip(answers, inputs, strict=True)]
    assert np.mean(named) > 0.9


SENTENCES = (
    ("The old house stood on a hill above the river .", "A small cottage near the water had been empty for years ."),
    ("The orchestra played a symphony by a German composer .", "He wrote songs and music for the piano ."),
    ("The army lost the battle and retreated to the south .", "Soldiers attacked the fort during the war ."),
    ("The species lives in tropical forests and feeds on insects .", "These birds build nests in trees and eat fruit ."),
    ("The president signed the law after a vote in the senate .", "Congress passed the bill on taxes ."),
    ("The team won the championship in the last game of the season .", "The player scored two goals in the match ."),
)
"""Pairs of sentences on one topic each."""


@torch.no_grad()
def test_it_labels_a_sentence_as_positions_that_hold_a_vector_and_a_word_say(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """A prompt of two positions, each the sum of a sentence's pooled states and a label word, labels the other sentence."""
    table = model.get_input_embeddings()
    words = tokenizer.convert_tokens_to_ids(["▁great", "▁number"])
    end = tokenizer(": <extra_id_0>", return_tensors="pt")["input_ids"]
    vectors = []
    for prototype, _ in SENTENCES:
        ids = tokenizer(prototype, add_special_tokens=False, return_tensors="pt")["input_ids"]
        vectors.append(model.get_encoder()(input_ids=ids).last_hidden_state.mean(dim=1))
    right = []
    for one, other in itertools.permutations(range(len(SENTENCES)), 2):
        prompt = torch.stack([vectors[one] + table.weight[words[0]], vectors[other] + table.weight[words[1]]], dim=1)
        asked = tokenizer(SENTENCES[one][1], add_special_tokens=False, return_tensors="pt")["input_ids"]
        inputs = torch.cat([prompt, table(asked), table(end)], dim=1)
        decoder = torch.tensor([[model.config.decoder_start_token_id, tokenizer.convert_tokens_to_ids(FIRST_SENTINEL)]])
        logits = model(inputs_embeds=inputs, decoder_input_ids=decoder).logits[0, 1, words]
        right.append(bool(logits[0] > logits[1]))
    assert np.mean(right) > 0.75
