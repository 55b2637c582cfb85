"""Loading a backbone from a local folder: what cannot be one is refused in one line, and what is one is recognized again."""

from __future__ import annotations

import shutil
from pathlib import Path
from string import ascii_lowercase

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import BertConfig, PreTrainedTokenizerFast

from supmer.backbone.identity import backbone_identity
from supmer.backbone.load import load_backbone, load_tokenizer
from supmer.config import BackboneConfig
from supmer.errors import UserError


@pytest.fixture
def folder(tiny_files: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_files / "backbone", tmp_path / "backbone"))


def config(folder: Path, **settings: object) -> BackboneConfig:
    return BackboneConfig.model_validate({"name": str(folder), **settings})


def test_tokenizer_without_sentinels_is_refused(folder: Path, tmp_path: Path) -> None:
    words = Tokenizer(
        WordLevel({"<unk>": 0, **{letter: 1 + index for index, letter in enumerate(ascii_lowercase)}}, unk_token="<unk>")
    )
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(tmp_path / "words")
    with pytest.raises(
        UserError, match=r"^backbone\.tokenizer=.*/words: must have the sentinels <extra_id_0> and <extra_id_1>$"
    ):
        load_tokenizer(config(folder, tokenizer=str(tmp_path / "words")))


def test_folder_without_tokenizer_is_refused(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(UserError, match=rf"^backbone\.tokenizer={folder}: no tokenizer found there$"):
        load_tokenizer(config(folder))


def test_other_architectures_are_refused(tmp_path: Path) -> None:
    BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r": must be a T5-family or a decoder-only language model, this one is 'bert'$"):
        load_backbone(config(tmp_path))


def test_weights_that_are_no_safetensors_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0not json at all")
    with pytest.raises(UserError, match=rf"^backbone\.name={folder}: no readable safetensors weights"):
        load_backbone(config(folder))


def test_backbone_is_frozen_in_evaluation_mode_and_read_as_saved(folder: Path) -> None:
    model = load_backbone(config(folder, dropout=0.2))
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.config.dropout_rate == 0.2
    again = load_backbone(config(folder))
    assert all(torch.equal(left, right) for left, right in zip(model.parameters(), again.parameters(), strict=True))


def test_random_weights_are_the_same_each_time_and_leave_the_generator_alone(folder: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first, second = (load_backbone(config(folder, weights="random")) for _ in range(2))
    assert torch.equal(torch.rand(2), expected)
    assert torch.equal(first.get_input_embeddings().weight, second.get_input_embeddings().weight)


def test_identity_follows_the_content_of_a_folder(folder: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(folder, tmp_path / "moved"))
    assert backbone_identity(config(folder))["content"] == backbone_identity(config(moved))["content"]
    content = bytearray((moved / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (moved / "model.safetensors").write_bytes(content)
    assert backbone_identity(config(folder))["content"] != backbone_identity(config(moved))["content"]
