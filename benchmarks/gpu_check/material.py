"""What the sections work on: random weights of real shapes, made on the device, and rows as long as a real corpus's."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import LlamaConfig, T5Config

from supmer.backbone.kinds import model_class
from supmer.backbone.load import finish_backbone, load_tokenizer
from supmer.config import TASK_KINDS, BackboneConfig, Config, TaskKind
from supmer.config.values import validate
from supmer.corpus.unit import TokenIds, Unit
from supmer.meta.learner import Learner
from supmer.model.causal import PromptedCausal
from supmer.model.prompted import PromptedModel, initial_prompt
from supmer.model.seq2seq import PromptedSeq2Seq
from supmer.planning.shapes import Shape, resolve_shape
from supmer.tasks.episode import Episode
from supmer.tasks.sampler import EpisodeSampler
from supmer.tasks.vocabulary import TaskVocabulary

XL = "google/flan-t5-xl"
SENTENCE_TOKENS = (5, 14, 17, 19, 21, 23, 25, 27, 29, 31, 32, 34, 36, 39, 41, 44, 47, 52, 57, 67, 256)
"""Every twentieth quantile of the tokens of wikipedia_en's sentences under T5's tokenizer, by `gpu_check/lengths.py`."""
NUM_CLUSTERS, UNITS_PER_CLUSTER = 24, 400
KINDS: tuple[TaskKind, ...] = tuple(kind for kind in TASK_KINDS if kind != "ctw")
RANDOM_IDS = range(300, 8000)
"""Ids of made-up text: tokens of the embedded tokenizer, without its special ones."""


@dataclass(frozen=True)
class Scale:
    """How large the sections work: the real shape on a GPU, a tiny one on a CPU.

    Attributes:
        device: where.
        shape: of the backbone whose speed is measured.
        dtype: of its weights.
        budgets: values of `train.max_tokens_per_microbatch` to compare, the middle one for all else.
        settings: sizes of prompt, episodes and regularizer, as configuration.
        repeats: timed meta-steps of a kind.
        num_rows: rows that are predicted.
        tuning_steps: steps of few-shot tuning.
    """

    device: torch.device
    shape: Shape
    dtype: str
    budgets: tuple[int, int, int]
    settings: dict[str, Any]
    repeats: int
    num_rows: int
    tuning_steps: int

    @property
    def is_real(self) -> bool:
        """Whether figures say anything about a GPU."""
        return self.device.type == "cuda"

    @property
    def middle(self) -> int:
        """The budget in the middle."""
        return self.budgets[1]

    def config(self, budget: int | None = None, fewshot: dict[str, Any] | None = None, **backbone: Any) -> Config:
        """Return the configuration: micro-batches of `budget` tokens, few-shot settings, settings of the backbone."""
        own = {"name": "embedded", "dtype": self.dtype, "dropout": 0.0, **backbone}
        train = {"max_tokens_per_microbatch": budget or self.middle}
        return validate({**self.settings, "train": train, "fewshot": fewshot or {}, "backbone": own})


def scale_of(device: torch.device) -> Scale:
    """Return flan-t5-xl and the published sizes for a GPU, and a tiny T5 for a CPU."""
    if device.type == "cuda":
        shape = resolve_shape(BackboneConfig(), XL)
        return Scale(device, shape, "bfloat16", (8_192, 16_384, 32_768), {}, repeats=2, num_rows=2048, tuning_steps=30)
    sizes = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "feed_forward_proj": "gated-gelu"}
    shape = Shape("a tiny T5", "this program", T5Config(vocab_size=8192, **sizes), own_head=True)
    settings = {
        "prompt": {"length": 8},
        "tasks": {"num_support": 4, "num_query": 4, "max_length": 120, "max_option_tokens": 20, "num_options_nss": 4},
        "regularizer": {"rank": 16},
        "meta": {"tasks_per_step": 2},
    }
    return Scale(device, shape, "float32", (512, 1024, 2048), settings, repeats=1, num_rows=48, tuning_steps=4)


def random_t5(shape: Shape, config: BackboneConfig, device: torch.device) -> PromptedSeq2Seq:
    """Return a T5 with random weights, which are made on the device: there is never a copy on the CPU."""
    torch.manual_seed(0)
    model_config = type(shape.config)(**{**shape.config.to_dict(), "dropout_rate": config.dropout})
    model_config.decoder_start_token_id = 0
    with device:
        model = model_class(model_config).from_config(
            model_config, dtype=getattr(torch, config.dtype), attn_implementation=config.attention
        )
        if shape.own_head:
            model.lm_head.weight = nn.Parameter(torch.randn_like(model.lm_head.weight) / shape.config.d_model**0.5)
        centroids = torch.randn(NUM_CLUSTERS, shape.config.d_model)
    return PromptedSeq2Seq(finish_backbone(model, config), centroids)


def random_causal(config: BackboneConfig, device: torch.device) -> PromptedCausal:
    """Return a tiny Llama with random weights, made on the device."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    model_config = LlamaConfig(vocab_size=8192, num_key_value_heads=2, **sizes)
    with device:
        model = model_class(model_config).from_config(
            model_config, dtype=getattr(torch, config.dtype), attn_implementation=config.attention
        )
        centroids = torch.randn(NUM_CLUSTERS, 64)
    return PromptedCausal(finish_backbone(model, config), centroids)


def learner_of(scale: Scale, config: Config, model: PromptedModel | None = None) -> Learner:
    """Return a learner as a run begins with it, on `model` or on a new one of the scale's shape."""
    model = model or random_t5(scale.shape, config.backbone, scale.device)
    return Learner(config, model, initial_prompt(config.prompt, model, seed=0))


class MadeUpUnits:
    """Units of random tokens, as long as a real corpus's sentences; each is of a document of its own."""

    def __init__(self) -> None:
        self._documents = itertools.count()

    def clusters(self, split: str) -> list[int]:
        """Return the clusters."""
        return list(range(NUM_CLUSTERS))

    def size(self, split: str, cluster: int) -> int:
        """Return the units that the cluster is said to have."""
        return UNITS_PER_CLUSTER

    def topic_words(self, cluster: int) -> list[Any]:
        """Return none: `ctw` is no published kind."""
        return []

    def sample_units(self, split: str, cluster: int, rng: np.random.Generator, count: int) -> list[Unit]:
        """Make units."""
        return [
            Unit(str(next(self._documents)), 1, cluster, *(random_text(rng) for _ in range(4)), elsewhere_position=9)
            for _ in range(count)
        ]


def random_text(rng: np.random.Generator) -> TokenIds:
    """Return a sentence of random tokens."""
    length = int(np.interp(rng.random(), np.linspace(0, 1, len(SENTENCE_TOKENS)), SENTENCE_TOKENS))
    return rng.integers(RANDOM_IDS.start, RANDOM_IDS.stop, length).astype(np.int32)


def draw_episodes(
    config: Config, kinds: Sequence[TaskKind] = KINDS, *, causal: bool = False
) -> dict[TaskKind, list[Episode]]:
    """Draw a meta-batch of each kind by the project's own generators."""
    vocabulary = TaskVocabulary.from_tokenizer(load_tokenizer(BackboneConfig(name="embedded")), causal=causal)
    sampler = EpisodeSampler(MadeUpUnits(), vocabulary, config)
    slots = range(config.meta.tasks_per_step)
    return {kind: [sampler.validation_episode(kind, slot) for slot in slots] for kind in kinds}
