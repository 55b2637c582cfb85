"""How methods ask a task: by its patterns, in its plain layout with mask slots, or as multiple choice.

A form makes another task of a task, so that rows are encoded, and read again by prediction, as those of any task.
"""

from __future__ import annotations

from string import ascii_uppercase
from typing import Literal

from supmer.errors import UserError
from supmer.fewshot.task import PLACEHOLDER, SLOT, Task

Form = Literal["pattern", "plain", "choices"]


def asked(task: Task, form: Form) -> Task:
    """Return a task as a form asks it.

    `pattern`: as it is. `plain`: its one pattern is `task.plain`, by default the fields of the first pattern, the mask slots
    after the first field of a pair, else at the end. `choices`: its one pattern is ``TEXT ? A. word0 . B. word1 . ? The
    correct one is <X>``, the letters are the answers (Unified PPT, section 9); a multiple-choice task stays as it is.

    >>> from supmer.fewshot.task import load_task
    >>> asked(load_task("rte"), "plain").patterns
    ['{premise} <X> {hypothesis}']
    >>> asked(load_task("sst-2"), "choices").patterns
    ['{text} ? A. terrible . B. great . ? The correct one is <X>']
    """
    if form == "pattern" or (form == "choices" and task.format == "multi_choice"):
        return task
    fields = [f"{{{name}}}" for name in dict.fromkeys(PLACEHOLDER.findall(task.patterns[0]))]
    if form == "plain":
        place = 1 if task.format == "pair" else len(fields)
        plain = " ".join([*fields[:place], SLOT, *fields[place:]])
        return task.model_copy(update={"patterns": [task.plain or plain]})
    if len(task.label_words) > len(ascii_uppercase):
        raise UserError(f"task {task.name}: has more classes than letters to choose from")
    letters = list(ascii_uppercase[: len(task.label_words)])
    options = " ".join(f"{letter}. {word.strip()} ." for letter, word in zip(letters, task.label_words, strict=True))
    pattern = f"{' '.join(fields)} ? {options} ? The correct one is {SLOT}"
    return task.model_copy(update={"patterns": [pattern], "answers": letters})
