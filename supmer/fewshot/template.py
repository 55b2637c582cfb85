"""From a row's fields to the model's input: rendering, tokens and truncation (section 7).

A row's tokens are the tokenizer's tokens of the rendered text, without an end-of-sequence token, so that a user with only
the tokenizer and the pattern builds the same input.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from supmer.backbone.load import FIRST_SENTINEL
from supmer.errors import UserError
from supmer.fewshot.data import Row
from supmer.fewshot.labels import LabelWords
from supmer.fewshot.task import PLACEHOLDER, SLOT, Task
from supmer.tasks.episode import NO_CENTROID, Example


class Template:
    """Encodes the rows of a task under one of its patterns.

    Args:
        task: the task.
        pattern: the pattern to use.
        words: the label words' tokens.
        tokenizer: a fast tokenizer (it must know where in the text its tokens end).
        max_tokens: encoder positions that a row may take, prompt not counted.
    """

    def __init__(
        self, task: Task, pattern: str, words: LabelWords, tokenizer: PreTrainedTokenizerBase, max_tokens: int
    ) -> None:
        self.task = task
        self.pattern = pattern
        self.words = words
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.fields = list(dict.fromkeys(PLACEHOLDER.findall(pattern)))
        self._special = re.compile("|".join(map(re.escape, tokenizer.all_special_tokens)))

    def render(self, fields: Mapping[str, str]) -> str:
        """Fill the pattern; a special token spelt out in a field is broken up, so that it stays text."""
        text = self.pattern.replace(SLOT, FIRST_SENTINEL)
        return PLACEHOLDER.sub(lambda match: self._plain(fields[match[1]]), text)

    def encode(self, rows: Sequence[Row]) -> list[Example]:
        """Return the examples of rows, truncated where they are too long.

        Raises:
            UserError: the pattern alone is longer than the model's input.
        """
        if not rows:
            return []
        encoded = self.tokenizer([self.render(row.fields) for row in rows], add_special_tokens=False, verbose=False)[
            "input_ids"
        ]
        return [self._example(row, ids) for row, ids in zip(rows, encoded, strict=True)]

    def truncate(self, fields: Mapping[str, str]) -> dict[str, str]:
        """Cut fields at their ends until the row fits; the pattern is never cut.

        The fields of `task.truncate` give way first, always the longest of them, then the others.
        """
        ends = {name: self._token_ends(fields[name]) for name in self.fields}
        kept = {name: len(ends[name]) for name in self.fields}
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
            self._shorten(kept, excess)

    def _example(self, row: Row, ids: list[int]) -> Example:
        if len(ids) > self.max_tokens:
            ids = self._tokens(self.render(self.truncate(row.fields)))
        return Example(
            input_ids=np.asarray(ids, dtype=np.int32),
            centroid_ids=np.full(len(ids), NO_CENTROID, dtype=np.int32),
            target_ids=self.words.target(row.label),
            label=row.label,
        )

    def _shorten(self, kept: dict[str, int], excess: int) -> None:
        """Take `excess` tokens (or all there are) from the fields that give way."""
        first = [name for name in self.task.truncate if name in kept] or self.fields
        for _ in range(min(excess, sum(kept.values()))):
            candidates = first if any(kept[name] for name in first) else self.fields
            kept[max(candidates, key=lambda name: kept[name])] -= 1

    def _token_ends(self, text: str) -> list[int]:
        encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return [end for _, end in encoding["offset_mapping"]]

    def _tokens(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def _plain(self, text: str) -> str:
        return self._special.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)
