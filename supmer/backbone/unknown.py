"""How much of a text the tokenizer does not know: such a text would be trained and scored on nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from supmer.errors import setting_error

if TYPE_CHECKING:  # takes seconds to import
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

FEW_UNKNOWN = 0.01
"""Share of unknown tokens above which there is a warning."""


def count_unknown(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Return how many tokens of texts are unknown, and how many tokens there are."""
    if not texts:
        return 0, 0
    ids = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return sum(row.count(tokenizer.unk_token_id) for row in ids), sum(map(len, ids))


def check_unknown(what: str, num_unknown: int, num_tokens: int, max_unknown: float, places: Sequence[str] = ()) -> None:
    """Log the share of unknown tokens, as a warning above FEW_UNKNOWN.

    Args:
        what: the text, for the message.
        num_unknown: its unknown tokens.
        num_tokens: all its tokens.
        max_unknown: `corpus.max_unknown`.
        places: documents with many of them, for the message.

    Raises:
        UserError: the share is above `max_unknown`.
    """
    share = num_unknown / max(num_tokens, 1)
    where = f" (first in {', '.join(places)})" if places else ""
    if share > max_unknown:
        problem = f"{share:.1%} of the tokens of {what} are unknown to the tokenizer, which knows no letter of them{where}"
        raise setting_error("corpus.max_unknown", max_unknown, f"{problem}; take a backbone for this script")
    level = logging.WARNING if share > FEW_UNKNOWN else logging.INFO
    logger.log(level, "%s: %.1f%% of the tokens are unknown to the tokenizer%s", what, 100 * share, where)
