"""A tiny T5 with a tokenizer of its own, a small task and a made-up run, for the few-shot tests."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import T5Config, T5ForConditionalGeneration

from experiments.embedded_backbone.tokenizer import train_tokenizer
from supmer.config import Config, RegularizerConfig
from supmer.fewshot.cell_runner import CellResult, TransferScore
from supmer.fewshot.cells import Cell
from supmer.fewshot.definition import define
from supmer.fewshot.task import load_task
from supmer.fewshot.tuning import CurvePoint
from supmer.model.regularizer import GradientRegularizer

WIDTH = 32
PROMPT_LENGTH = 4

DEFINITION = define(Config(), load_task("sst-2"), pattern=0)
"""Of prompts in made-up results."""

COLOURS = ["red", "green", "blue", "grey", "ochre", "violet"]
THINGS = ["river", "stone", "tower", "garden", "window", "letter", "bridge", "orchard"]
VERBS = ["crosses", "watches", "remembers", "carries", "follows", "answers"]


def sentences(number: int, seed: int = 0) -> list[str]:
    """Make simple English sentences, all different."""
    draw = random.Random(seed)
    made: dict[str, None] = {}
    while len(made) < number:
        subject, thing = draw.choices(THINGS, k=2)
        colours = draw.choices(COLOURS, k=2)
        made[f"the {colours[0]} {subject} {draw.choice(VERBS)} the {colours[1]} {thing} at {draw.randrange(1000)} ."] = None
    return list(made)


def make_backbone(folder: Path, *, tied: bool = True) -> str:
    """Write a T5 with random weights and a trained tokenizer, as a user's local folder would hold it."""
    tokenizer = train_tokenizer(sentences(2000), vocab_size=200)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=WIDTH,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=0,
        initializer_factor=1.5,  # logits of distinct rows must differ visibly
    )
    model = T5ForConditionalGeneration(config)
    if not tied:
        untie(model)
    model.save_pretrained(folder)
    return str(folder)


def untie(model: T5ForConditionalGeneration) -> None:
    """Give the model a head of its own, as flan-t5 has."""
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight) * 0.1)


def make_task(folder: Path) -> Path:
    """Write a two-class task (is the first thing red or blue?) in the folder format and its YAML; return the YAML."""
    rows = [
        {"text": text, "label": int(text.startswith("the blue"))}
        for text in sentences(1200, seed=1)
        if text.startswith(("the red", "the blue"))
    ]
    for name, part in (("train", rows[:120]), ("test", rows[120:220])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    file = folder / "colour.yaml"
    file.write_text("name: colour\npatterns: ['{text} It was <X> .']\nlabel_words: [bad, good]\nfolder: {path: .}\n")
    return file


def make_run(folder: Path) -> Path:
    """Write a run directory with a random prompt and regularizer; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(3)
    regularizer = GradientRegularizer(WIDTH, RegularizerConfig(init="xavier", rank=8), generator)
    save_file({"prompt": torch.randn(PROMPT_LENGTH, WIDTH, generator=generator)}, folder / "prompt.safetensors")
    save_file(regularizer.state_dict(), folder / "regularizer.safetensors")
    return folder


def job_settings(backbone: str, task: Path, runs: Path) -> dict[str, Any]:
    """Return the settings of a small few-shot job."""
    return {
        "run": {"name": "test", "dir": str(runs)},
        "backbone": {"name": backbone, "dropout": 0.0},
        "prompt": {"length": PROMPT_LENGTH},
        "tasks": {"max_length": 100},
        "train": {"max_tokens_per_microbatch": 600},
        "fewshot": {"tasks": [str(task)], "k": 4, "steps": 6, "eval_every": 2, "seeds": [0]},
    }


def result_of(cell: Cell, score: float = 0.5) -> CellResult:
    """Return a made-up result of a cell."""
    return CellResult(
        cell=cell,
        pattern_text="{text} It was <X> .",
        label_words=["bad", "good"],
        metrics={"accuracy": score},
        dev_score=0.75,
        best_step=4,
        num_train=8,
        num_dev=8,
        seconds=1.0,
        scores=np.asarray([[0.1, 0.2], [0.3, 0.1]], dtype=np.float32),
        labels=[0, 0],
        curve=[CurvePoint(4, 2.0, 0.75)],
        prompt=np.ones((3, 2), dtype=np.float32),
        transfer=[TransferScore("other", "accuracy", 0.4, 10)],
        definition=DEFINITION,
    )
