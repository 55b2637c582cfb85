"""A small backbone's shape and plans of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from supmer.config import Config
from supmer.config.load import validate
from supmer.planning.estimate import Planner
from supmer.planning.hardware import Hardware
from supmer.planning.shapes import resolve_shape

SMALL = {
    "model_type": "t5",
    "vocab_size": 512,
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 128,
    "num_layers": 6,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "decoder_start_token_id": 0,
}
Build = Callable[..., Planner]


@pytest.fixture(scope="session")
def shape_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `config.json` of six layers with a head of its own."""
    file = tmp_path_factory.mktemp("shape") / "config.json"
    file.write_text(json.dumps(SMALL))
    return file


@pytest.fixture(scope="session")
def small_config(shape_file: Path) -> Config:
    return validate(
        {
            "backbone": {"name": str(shape_file.parent), "dropout": 0.1},
            "prompt": {"length": 20},
            "tasks": {"max_length": 128},
            "train": {"max_tokens_per_microbatch": 1024},
        }
    )


@pytest.fixture(scope="session")
def build(small_config: Config) -> Build:
    """Return a planner for nodes of 4 small GPUs on a slow network."""

    def build(memory: int = 100 * 2**20) -> Planner:
        hardware = Hardware(memory, 2**20, flops=1e12, bandwidth=1e9, network=1e8, gpus_per_node=4, latency=1e-5)
        return Planner(small_config, resolve_shape(small_config.backbone), hardware)

    return build
