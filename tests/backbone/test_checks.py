"""What cannot be used as a backbone or tokenizer is refused in one line, before any work."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from fewshot_material import make_backbone
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from scripts import call
from transformers import BertConfig, BertModel, ByT5Tokenizer

from supmer.backbone import hub
from supmer.backbone.load import check_backbone, load_backbone, load_model_config, load_tokenizer
from supmer.config import BackboneConfig, ClustersConfig
from supmer.corpus.embedding import check_embedding_model
from supmer.errors import UserError

QUERY = "encoder.block.0.layer.0.SelfAttention.q.weight"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(make_backbone(tmp_path_factory.mktemp("made") / "t5"))


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "t5"))


def config(folder: Path | str, **settings: object) -> BackboneConfig:
    return BackboneConfig.model_validate({"name": str(folder), **settings})


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder: Path, **values: object) -> None:
    settings = json.loads((folder / "config.json").read_text()) | values
    settings = {name: value for name, value in settings.items() if value != "left out"}
    (folder / "config.json").write_text(json.dumps(settings))


def refused(call: Callable[[], object]) -> str:
    """Return the one line with which something is refused."""
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def nan_in(tensors: dict[str, torch.Tensor]) -> None:
    tensors[QUERY][1, 2] = torch.nan


def inf_in(tensors: dict[str, torch.Tensor]) -> None:
    tensors[QUERY][1, 2] = -torch.inf


WEIGHTS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "nan": (nan_in, f"{QUERY} holds values that are not finite"),
    "infinity": (inf_in, f"{QUERY} holds values that are not finite"),
    "missing": (lambda tensors: tensors.pop(QUERY), f"lack tensors of this architecture: {QUERY}"),
    "shape": (
        lambda tensors: tensors.update({QUERY: torch.zeros(3, 3)}),
        f"have tensors of another shape than config.json asks for: {QUERY} (3, 3), not (32, 32)",
    ),
    "more blocks": (
        lambda tensors: tensors.update({QUERY.replace("0", "9", 1): torch.zeros(32, 32)}),
        f"have blocks that config.json does not name: {QUERY.replace('0', '9', 1)}",
    ),
    "two heads": (
        lambda tensors: tensors.update({"lm_head.weight": torch.ones(300, 32)}),
        "have an output head of their own (lm_head.weight), but config.json ties it to the embeddings",
    ),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_unusable_weights_are_refused_before_work_and_on_loading(folder: Path, case: str) -> None:
    change, expected = WEIGHTS[case]
    change_weights(folder, change)
    for check in (check_backbone, load_backbone):
        message = refused(partial(check, config(folder)))
        assert message.startswith(f"backbone.name={folder}: ") and expected in message


def test_an_untied_head_that_is_not_there_is_refused(folder: Path) -> None:
    change_config(folder, tie_word_embeddings=False)
    assert "lack tensors of this architecture: lm_head.weight" in refused(lambda: load_backbone(config(folder)))


@pytest.mark.parametrize("tied", [True, False])
def test_sound_backbones_pass(tmp_path: Path, tied: bool) -> None:
    settings = config(make_backbone(tmp_path, tied=tied))
    check_backbone(settings)
    model = load_backbone(settings)
    assert (model.lm_head.weight is model.shared.weight) == tied


def truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def pickled_only(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def missing_shard(folder: Path) -> None:
    names = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (truncate, "no readable safetensors weights"),
        (pickled_only, "only pickled weights (pytorch_model.bin), which can hide code; save them as safetensors"),
        (missing_shard, "model-00001-of-00001.safetensors"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no readable safetensors weights"),
    ],
)
def test_unreadable_weights_are_refused(folder: Path, spoil: Callable[[Path], object], expected: str) -> None:
    spoil(folder)
    for check in (check_backbone, load_backbone):
        assert expected in refused(partial(check, config(folder)))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"num_layers": "two"}, "num_layers"),
        ({"num_layers": -1}, "num_layers=-1: must be at least 1"),
        ({"d_model": 0}, "d_model=0: must be at least 1"),
        ({"feed_forward_proj": "a-b-c"}, "feed_forward_proj"),
        ({"decoder_start_token_id": "left out"}, "has no decoder_start_token_id"),
        ({"decoder_start_token_id": 5000}, "decoder_start_token_id=5000: must be"),
        ({"model_type": "left out"}, "model_type"),
    ],
)
def test_a_broken_configuration_is_refused(folder: Path, values: dict[str, object], expected: str) -> None:
    change_config(folder, **values)
    message = refused(lambda: load_model_config(config(folder)))
    assert message.startswith(f"backbone.name={folder}: config.json") and expected in message


@pytest.mark.parametrize("content", ["{a", "[1]", "", "\ufeff{}", "3"])
def test_a_configuration_that_is_no_json_object_is_refused(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    assert f"backbone.name={folder}: config.json" in refused(lambda: load_model_config(config(folder)))


@pytest.mark.parametrize("content", ["{}", "", "[]", '{"version": "1.0", "model": {}}'])
def test_a_broken_tokenizer_file_is_refused(folder: Path, content: str) -> None:
    (folder / "tokenizer.json").write_text(content)
    assert f"backbone.tokenizer={folder}: " in refused(lambda: load_tokenizer(config(folder)))


def test_a_tokenizer_that_knows_no_offsets_is_refused(folder: Path, tmp_path: Path) -> None:
    ByT5Tokenizer().save_pretrained(tmp_path / "bytes")
    message = refused(lambda: load_tokenizer(config(folder, tokenizer=str(tmp_path / "bytes"))))
    assert "ByT5Tokenizer has no fast version" in message


def test_a_tokenizer_beyond_the_embedding_table_is_refused(folder: Path) -> None:
    change_config(folder, vocab_size=200)
    message = refused(lambda: load_tokenizer(config(folder)))
    assert message.startswith(f"backbone.tokenizer={folder}: has token ids up to 299, backbone.name={folder} ")


def test_jobs_refuse_a_backbone_before_ray_starts(folder: Path, tmp_path: Path) -> None:
    change_weights(folder, nan_in)
    (tmp_path / "corpus.txt").write_text("One sentence. Another one.\n")
    settings = [f"backbone.name={folder}", f"corpus.paths=[{tmp_path}/corpus.txt]", f"corpus.store_dir={tmp_path}/stores"]
    settings += [f"run.dir={tmp_path}/runs"]
    for script in ("prepare.py", "metatrain.py", "prompt_tune.py"):
        finished = call(script, *settings, "fewshot.tasks=[sst-2]")
        assert finished.returncode == 2 and QUERY in finished.stderr, (script, finished)
        assert finished.stderr.count("\n") == 1
    assert not ray.is_initialized()


def make_encoder(folder: Path) -> Path:
    shape: dict[str, Any] = {"vocab_size": 300, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    BertModel(BertConfig(**shape, intermediate_size=8)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda tensors: tensors["embeddings.word_embeddings.weight"].fill_(torch.nan), "not finite"),
        (lambda tensors: tensors.pop("encoder.layer.0.output.dense.weight"), "lack tensors of this architecture"),
        (lambda tensors: tensors.update({"encoder.layer.0.output.dense.weight": torch.ones(2)}), "of another shape"),
    ],
)
def test_the_weights_of_another_encoder_are_checked(
    folder: Path, tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object], expected: str
) -> None:
    encoder = make_encoder(tmp_path / "bert")
    for file in folder.glob("*token*"):
        shutil.copy(file, encoder)
    settings = ClustersConfig(embedding_model=str(encoder))
    check_embedding_model(settings)
    change_weights(encoder, change)
    message = refused(lambda: check_embedding_model(settings))
    assert message.startswith(f"clusters.embedding_model={encoder}: ") and expected in message


def test_another_encoder_has_an_embedding_for_each_token(folder: Path, tmp_path: Path) -> None:
    encoder = make_encoder(tmp_path / "bert")
    for file in folder.glob("*token*"):
        shutil.copy(file, encoder)
    change_config(encoder, vocab_size=50)
    change_weights(encoder, lambda tensors: tensors.update({"embeddings.word_embeddings.weight": torch.ones(50, 8)}))
    message = refused(lambda: check_embedding_model(ClustersConfig(embedding_model=str(encoder))))
    assert "has token ids up to" in message


@pytest.mark.parametrize("listens", [True, False])
def test_a_hub_that_is_silent_or_away_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listens: bool) -> None:
    with socket.socket() as server:  # takes connections and never answers, or refuses them
        server.bind(("127.0.0.1", 0))
        if listens:
            server.listen()
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(hub, "ANSWER_SECONDS", 0.5)
        message = refused(lambda: load_model_config(config(f"someone/away-{listens}")))
    assert message.startswith("backbone.name=someone/away")
    assert "neither a local model folder nor a reachable hub model (" in message
    assert ("no answer" in message) == listens
