"""Tokens of words as they stand in a text: behind a blank, or at its start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from supmer.errors import setting_error

if TYPE_CHECKING:  # takes seconds to import
    from transformers import PreTrainedTokenizerBase

LEAD = "x"


def start_tokens(tokenizer: PreTrainedTokenizerBase) -> npt.NDArray[np.int32]:
    """Return what the tokenizer puts before a text by itself: a beginning-of-sequence token, or nothing."""
    whole, plain = (tokenizer(LEAD, add_special_tokens=special)["input_ids"] for special in (True, False))
    return _array(whole[: whole.index(plain[0])])


def following(tokenizer: PreTrainedTokenizerBase, text: str) -> npt.NDArray[np.int32]:
    """Return the tokens of a text that follows another after a blank (after nothing, where the text is a line's end)."""
    blank = "" if text.startswith("\n") else " "
    whole, lead = (tokenizer(written, add_special_tokens=False)["input_ids"] for written in (f"{LEAD}{blank}{text}", LEAD))
    assert whole[: len(lead)] == lead, f"{tokenizer.name_or_path} joins {LEAD!r} with what follows"
    return _array(whole[len(lead) :])


def _array(values: Sequence[int]) -> npt.NDArray[np.int32]:
    return np.array(values, dtype=np.int32)


def ordinary_tokens(tokenizer: PreTrainedTokenizerBase, first: int | None = None) -> list[int]:
    """Return the ids that stand for text, in order: no special token, no sentinel, and no row of a table without a token.

    Args:
        tokenizer: the backbone's.
        first: only ids below this number; a SentencePiece vocabulary has its frequent pieces first.

    Raises:
        UserError: none is left.
    """
    extraordinary = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    ids = sorted(index for index in tokenizer.get_vocab().values() if index not in extraordinary)
    found = [index for index in ids if first is None or index < first]
    if not found:
        raise setting_error("prompt.init_entries", first, "must leave an entry that is neither special nor a sentinel")
    return found
