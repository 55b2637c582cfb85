"""A SentencePiece unigram tokenizer in T5's layout: pad, end, unknown, the pieces, then the sentinels in reverse."""

from __future__ import annotations

import io
import random
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from string import ascii_uppercase

import numpy as np
import numpy.typing as npt
import sentencepiece
from transformers import PreTrainedTokenizerBase, T5Tokenizer

from supmer.errors import UserError

NUM_SENTINELS = 100

WHOLE_WORDS = (
    *ascii_uppercase,
    *("yes", "no", "maybe", "Yes", "No", "correct", "terrible", "bad", "okay", "good", "great", "subjective", "objective"),
    *("description", "entity", "expression", "human", "location", "number", "tables", "science", "learning", "graphs"),
    *("positive", "negative", "true", "false"),
)
"""Letters and label words that must be one token each, whatever the corpus."""
REPETITIONS = 300
"""Lines of these words in random order: a piece is only considered if it occurs between different neighbours."""


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """Train on the lines of `texts` and return a tokenizer with `vocab_size` pieces and 100 sentinels.

    Training is deterministic: it uses one thread and all lines.

    Raises:
        UserError: the text has too few distinct pieces for `vocab_size`.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=_lines(texts),
            model_writer=model,
            vocab_size=vocab_size,
            model_type="unigram",
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())[-200:]
        raise UserError(f"vocab_size={vocab_size}: no tokenizer of that size from this text ({reason})") from error
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "spiece.model").write_bytes(model.getvalue())
        tokenizer: PreTrainedTokenizerBase = T5Tokenizer.from_pretrained(folder, extra_ids=NUM_SENTINELS)
    return tokenizer


def word_ids(tokenizer: PreTrainedTokenizerBase) -> npt.NDArray[np.int64]:
    """Return the token of each letter and label word."""
    return np.asarray(tokenizer.convert_tokens_to_ids([f"▁{word}" for word in WHOLE_WORDS]), dtype=np.int64)


def _lines(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from filter(None, text.splitlines())
    shuffler = random.Random(0)
    for _ in range(REPETITIONS):
        yield " ".join(shuffler.sample(WHOLE_WORDS, len(WHOLE_WORDS)))
