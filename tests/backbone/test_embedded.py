"""The backbone in the package: whole, small, half precision on disk, and able to do what it was taught."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from supmer.backbone.load import FIRST_SENTINEL, SECOND_SENTINEL, backbone_identity, load_backbone, load_tokenizer
from supmer.config import BackboneConfig
from supmer.pretrain.tokenizer import WHOLE_WORDS
from supmer.pretrain.training import label_cue_batch

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
    inputs, targets = label_cue_batch(sequences, np.random.default_rng(0), tokenizer)
    output = model(input_ids=torch.from_numpy(inputs), labels=torch.from_numpy(targets))
    answers = output.logits[:, 1].argmax(dim=-1).tolist()
    named = [answer in row[:6].tolist() for answer, row in zip(answers, inputs, strict=True)]
    assert np.mean(named) > 0.9
