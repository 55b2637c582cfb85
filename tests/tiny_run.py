"""Files and settings of a tiny run: a random backbone with its tokenizer, and a corpus of made-up topics."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from experiments.embedded_backbone.tokenizer import train_tokenizer
from supmer.config import Config
from supmer.config.load import load_config

NUM_TOPICS, WORDS_PER_TOPIC = 6, 25
SYLLABLES = "ba de fi go lu ma ne pi ro su ta ve wi zo ka le".split()  # noqa: SIM905

TINY = (
    "corpus.validation_fraction=0.3",
    "corpus.min_unit_tokens=3",
    "clusters.num_clusters=6",
    "tasks.num_support=4",
    "tasks.num_query=4",
    "tasks.num_options=2",
    "tasks.num_options_nss=3",
    "tasks.max_length=96",
    "prompt.length=8",
    "regularizer.rank=4",
    "backbone.dropout=0",
    "meta.tasks_per_step=2",
    "train.max_tokens_per_microbatch=2048",
    "train.validation_episodes=2",
    "train.threads_per_worker=1",
    "log.every=1",
)


def make_documents(num_documents: int, seed: int = 0) -> list[str]:
    """Return documents of one topic each; a topic is a vocabulary of made-up words."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(SYLLABLES, 3)) for _ in range(NUM_TOPICS * WORDS_PER_TOPIC)]
    documents = []
    for number in range(num_documents):
        topic = words[number % NUM_TOPICS :: NUM_TOPICS]
        sentences = [" ".join(rng.choice(topic, 8)).capitalize() + "." for _ in range(15)]
        documents.append(" ".join(sentences))
    return documents


def save_backbone(folder: Path, texts: Sequence[str]) -> None:
    """Write a random one-layer T5 of width 16 with a tokenizer trained on `texts`."""
    tokenizer = train_tokenizer(texts, 220)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = T5Config(
            vocab_size=len(tokenizer), d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=4, decoder_start_token_id=0
        )
        T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_tiny_files(folder: Path) -> Path:
    """Write `backbone/` and `corpus.jsonl` into a folder and return it."""
    documents = make_documents(60)
    save_backbone(folder / "backbone", documents)
    lines = [json.dumps({"text": text}) for text in documents]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def tiny_overrides(files: Path, *overrides: str) -> list[str]:
    """Return the settings of a tiny run, for `load_config` or a command line."""
    return [
        f"backbone.name={files / 'backbone'}",
        f"corpus.paths=[{files / 'corpus.jsonl'}]",
        f"corpus.store_dir={files / 'stores'}",
        *TINY,
        *overrides,
    ]


def tiny_config(files: Path, *overrides: str) -> Config:
    """Return the configuration of a tiny run."""
    return load_config(None, tiny_overrides(files, *overrides))


def save_causal_backbone(folder: Path, texts: Sequence[str], *, bos: bool = True, tied: bool = True) -> None:
    """Write a random llama of one layer, with grouped queries and a byte-level tokenizer, with or without a first token."""
    special = ["<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    labels = " ".join(["", "yes", "no", "maybe", *ascii_uppercase])  # each a token of its own
    tokenizer.train_from_iterator([*texts, 100 * labels], trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    fast.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(fast),
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            bos_token_id=0,
            eos_token_id=1,
            tie_word_embeddings=tied,
        )
        LlamaForCausalLM(config).save_pretrained(folder)
