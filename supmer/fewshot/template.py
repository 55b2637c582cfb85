"""From a row's fields to the model's input: rendering, tokens and truncation (section 7).

A row's tokens are the tokenizer's tokens of the rendered text, without an end-of-sequence token, so that a user with only
the tokenizer and the pattern builds the same input. For a decoder-only model the text ends before the blank where the label
goes, and its tokenizer's beginning of a sequence, if it has one, stands before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from supmer.backbone.load import FIRST_SENTINEL
from supmer.errors import UserError, setting_error
from supmer.fewshot.data import Row
from supmer.fewshot.labels import LabelWords
from supmer.fewshot.task import PLACEHOLDER, SLOT, Task
from supmer.tasks.episode import NO_CENTROID, Example

ROWS_AT_ONCE = 1000
"""Rows that the tokenizer takes in one call; what it returns is many times larger than the tokens that are kept."""


class Template:
    """Encodes the rows of a task under one of its patterns.

    Args:
        task, pattern, words: the task, the pattern to use, the label words' tokens.
        tokenizer: a fast tokenizer (it must know where in the text its tokens end).
        max_tokens: encoder positions that a row may take, prompt not counted.
        num_masks: mask slots that `<X>` becomes, for methods without label words; they are the rows' target then.

    Raises:
        UserError: the tokenizer has fewer sentinels, or a decoder-only model is to have several slots.
    """

    def __init__(
        self,
        task: Task,
        pattern: str,
        words: LabelWords,
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int,
        num_masks: int = 0,
    ) -> None:
        self.task = task
        self.pattern = pattern
        self.words = words
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens - len(words.start)
        self.masks: list[str] | None = None
        if num_masks:  # sentinels, but for a decoder-only model, whose one slot is the end of the row
            if words.causal and num_masks > 1:
                raise setting_error("fewshot.perfect.num_masks", num_masks, "must be 1 for a decoder-only backbone")
            self.masks = [] if words.causal else [f"<extra_id_{index}>" for index in range(num_masks)]
            known = len(tokenizer.get_vocab().keys() & set(self.masks))
            if known < len(self.masks):
                allowed = f"at most {known}, the sentinels of the tokenizer"
                raise setting_error("fewshot.perfect.num_masks", num_masks, allowed)
        self.fields = list(dict.fromkeys(PLACEHOLDER.findall(pattern)))
        self._special = re.compile("|".join(map(re.escape, tokenizer.all_special_tokens)))

    def render(self, fields: Mapping[str, str]) -> str:
        """Fill the pattern; a special token spelt out in a field is broken up, so that it stays text."""
        slot = "".join(self.masks) if self.masks else FIRST_SENTINEL
        text = self.pattern.replace(f" {SLOT}", "") if self.words.causal else self.pattern.replace(SLOT, slot)

        def filled(place: re.Match[str]) -> str:
            return self._special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", fields[place[1]])

        return PLACEHOLDER.sub(filled, text)

    def encode(self, rows: Sequence[Row]) -> list[Example]:
        """Return the examples of rows, truncated where they are too long.

        Raises:
            UserError: the pattern alone is longer than the model's input.
        """
        masks = self.tokenizer.convert_tokens_to_ids(self.masks) if self.masks is not None else None
        examples: list[Example] = []
        for start in range(0, len(rows), ROWS_AT_ONCE):
            some = rows[start : start + ROWS_AT_ONCE]
            encoded = self.tokenizer([self.render(row.fields) for row in some], add_special_tokens=False, verbose=False)
            for row, tokens in zip(some, encoded["input_ids"], strict=True):
                if len(tokens) > self.max_tokens:
                    tokens = self._tokens(self.render(self.truncate(row.fields)))
                ids = np.asarray([*self.words.start.tolist(), *tokens], dtype=np.int32)
                target = self.words.target(row.label) if masks is None else np.asarray(masks, dtype=np.int32)
                examples.append(Example(ids, np.full_like(ids, NO_CENTROID), target, row.label))
        return examples

    def truncate(self, fields: Mapping[str, str]) -> dict[str, str]:
        """Cut fields at their ends until the row fits; the pattern is never cut.

        The fields of `task.truncate` give way first, always the longest of them, then the others.
        """
        ends: dict[str, list[int]] = {}
        for name in self.fields:
            encoded = self.tokenizer(fields[name], add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            ends[name] = [end for _, end in encoded["offset_mapping"]]
        kept = {name: len(ends[name]) for name in self.fields}
        first = [name for name in self.task.truncate if name in kept] or self.fields
        while True:
            cut = {name: fields[name][: ends[name][kept[name] - 1]] if kept[name] else "" for name in self.fields}
            excess = len(self._tokens(self.render(cut))) - self.max_tokens
            if excess <= 0:
                return cut
            if not any(kept.values()):
                raise UserError(
                    f"tasks.max_length: the pattern of task {self.task.name} alone is longer than the "
                    f"{self.max_tokens} tokens that the prompt leaves"
                )
            for _ in range(min(excess, sum(kept.values()))):
                candidates = first if any(kept[name] for name in first) else self.fields
                kept[max(candidates, key=lambda name: kept[name])] -= 1

    def _tokens(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids
