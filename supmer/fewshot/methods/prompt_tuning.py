"""Vanilla prompt tuning: from the vocabulary, a text or the label words, by the raw gradient (Lester et al. 2021)."""

from __future__ import annotations

from itertools import chain, cycle, islice

import torch
from torch import Tensor

from supmer.backbone.pieces import ordinary_tokens
from supmer.config import PromptConfig
from supmer.fewshot.tuning import Context, FewShotRows, Method, Tuned, tune_prompt
from supmer.model.prompted import embeddings_of, initial_prompt


def tune(context: Context, rows: FewShotRows) -> Tuned:
    """Tune from `fewshot.init`; the training seed draws the entries of the vocabulary."""
    return tune_prompt(context, rows, start_of(context, rows))


def start_of(context: Context, rows: FewShotRows) -> Tensor:
    """Return the prompt before tuning [L, d].

    `text`: the tokens of `fewshot.init_text`, again and again. `label_words`: their tokens, then random entries. Random
    entries are among the first `prompt.init_entries`, and never sentinels, special tokens or rows without a token.
    """
    settings, length = context.config.fewshot, context.config.prompt.length
    assert context.tokenizer is not None
    tokens = torch.tensor(ordinary_tokens(context.tokenizer, context.config.prompt.init_entries))
    start = initial_prompt(PromptConfig(length=length), context.model, rows.seed, tokens)
    if settings.init == "text":
        text = context.tokenizer(settings.init_text or "", add_special_tokens=False)["input_ids"]
        assert text, "checked before any cell is computed"
        return embeddings_of(context.model, torch.tensor(list(islice(cycle(text), length))))
    if settings.init == "label_words":
        words = torch.tensor(list(islice(chain.from_iterable(rows.words.tokens), length)))
        start[: len(words)] = embeddings_of(context.model, words)
    return start


METHOD = Method(tune, revision=1)  # 0 also drew sentinels and rows without a token
