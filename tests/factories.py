"""Tiny models and random episodes that several test modules build on."""

from __future__ import annotations

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5LayerNorm

from supmer.model.causal import PromptedCausal
from supmer.model.seq2seq import PromptedSeq2Seq
from supmer.tasks.episode import NO_CENTROID, Episode, Example

VOCABULARY = 96
FIRST_SENTINEL, SECOND_SENTINEL = 95, 94
LABEL_TOKENS = (10, 11, 12)
WIDTH = 16
NUM_CENTROIDS = 8


def tiny_backbone(
    *, tied: bool = True, dropout: float = 0.0, seed: int = 0, attention: str = "eager"
) -> T5ForConditionalGeneration:
    """Build a random two-layer T5 of width 16; `tied=False` gives it a head of its own, as a flan-t5 checkpoint has.

    Eager attention, unlike the fused one, can be differentiated twice.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = T5Config(
            vocab_size=VOCABULARY,
            d_model=WIDTH,
            d_kv=4,
            d_ff=24,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="gated-gelu",
            dropout_rate=dropout,
            decoder_start_token_id=0,
            attn_implementation=attention,
        )
        model = T5ForConditionalGeneration(config)
        if not tied:
            model.lm_head.weight = torch.nn.Parameter(torch.randn(VOCABULARY, WIDTH) / WIDTH**0.5)
            model.config.tie_word_embeddings = False
    model.config.use_cache = False
    return model.requires_grad_(False).eval()


def tiny_model(
    *, tied: bool = True, pooling: str = "masked", dropout: float = 0.0, seed: int = 0, attention: str = "eager"
) -> PromptedSeq2Seq:
    """Wrap a tiny backbone with random centroids."""
    generator = torch.Generator().manual_seed(seed)
    centroids = torch.randn(NUM_CENTROIDS, WIDTH, generator=generator)
    return PromptedSeq2Seq(tiny_backbone(tied=tied, dropout=dropout, seed=seed, attention=attention), centroids, pooling)


def tiny_causal(*, tied: bool = False) -> PromptedCausal:
    """Wrap a random two-layer llama of width 16 with random centroids; its weights are large enough for logits to differ."""
    sizes = {"hidden_size": WIDTH, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        num_key_value_heads=2,
        use_cache=False,
        tie_word_embeddings=tied,
        initializer_range=0.3,
        **sizes,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = LlamaForCausalLM(config).requires_grad_(False).eval()
        return PromptedCausal(backbone, torch.randn(NUM_CENTROIDS, WIDTH))


class Words:
    """Label words of one token each, as `supmer.fewshot.labels.LabelWords` gives them.

    Args:
        opening: what stands before the word: the first sentinel for an encoder-decoder.
    """

    def __init__(self, opening: list[int]) -> None:
        self.tokens = [(token,) for token in LABEL_TOKENS]
        self.first_tokens, self.first_position, self.single_position = [*LABEL_TOKENS], len(opening), True
        self.opening = opening

    def scored_target(self, label: int) -> np.ndarray:
        return np.asarray([*self.opening, LABEL_TOKENS[label]], np.int32)

    def by_class(self, scores: np.ndarray) -> np.ndarray:
        return scores


def exact(model: PromptedSeq2Seq) -> PromptedSeq2Seq:
    """Turn a tiny model into one that computes wholly in float64 (T5's own layer norm steps down to float32)."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, T5LayerNorm):
                norm = torch.nn.RMSNorm(child.weight.shape, eps=child.variance_epsilon)
                norm.weight = child.weight
                setattr(module, name, norm)
    return model.double()


def random_prompt(length: int = 5, seed: int = 0) -> torch.Tensor:
    """Return a random prompt [length, WIDTH]."""
    return torch.randn(length, WIDTH, generator=torch.Generator().manual_seed(seed))


def random_example(rng: np.random.Generator, *, longest: int = 12) -> Example:
    """Return a row of random length; now and then a position shows a centroid."""
    length = int(rng.integers(3, longest + 1))
    input_ids = rng.integers(2, 90, length).astype(np.int32)
    centroid_ids = np.full(length, NO_CENTROID, np.int32)
    if rng.random() < 0.5:
        centroid_ids[rng.integers(length)] = rng.integers(NUM_CENTROIDS)
    label = int(rng.integers(len(LABEL_TOKENS)))
    target_ids = np.array([FIRST_SENTINEL, LABEL_TOKENS[label], SECOND_SENTINEL], np.int32)
    return Example(input_ids, centroid_ids, target_ids, label)


def random_episode(seed: int, *, step: int = 0, slot: int = 0, num_rows: int = 4, longest: int = 12) -> Episode:
    """Return an episode of random rows."""
    rng = np.random.default_rng([seed, step, slot])
    support, query, augmentation = (tuple(random_example(rng, longest=longest) for _ in range(num_rows)) for _ in range(3))
    first, second = rng.permutation(NUM_CENTROIDS)[:2].tolist()
    return Episode("nsp", step, slot, (first,), (second,), support, query, augmentation)


def random_episodes(seed: int = 0, num_tasks: int = 3, **settings: int) -> list[Episode]:
    """Return the episodes of one meta-step."""
    return [random_episode(seed, slot=slot, **settings) for slot in range(num_tasks)]
