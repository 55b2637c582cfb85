"""How methods ask a task: by its patterns, in its plain layout with mask slots, or as multiple choice.

A form makes another task of a task, so that rows are encoded, and read again by prediction, as those of any task.
"""

from __future__ import annotations

from collections.abc import Callable
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
    return FORMS[form](task)


def _plain(task: Task) -> Task:
    return task.model_copy(update={"patterns": [task.plain or _layout(task)]})


def _layout(task: Task) -> str:
    fields = [f"{{{name}}}" for name in dict.fromkeys(PLACEHOLDER.findall(task.patterns[0]))]
    fields.insert(1 if task.format == "pair" else len(fields), SLOT)
    return " ".join(fields)


def _choices(task: Task) -> Task:
    if task.format == "multi_choice":
        return task
    if len(task.label_words) > len(ascii_uppercase):
        raise UserError(f"task {task.name}: has more classes than letters to choose from")
    text = _layout(task).replace(f" {SLOT}", "")
    letters = list(ascii_uppercase[: len(task.label_words)])
    options = " ".join(f"{letter}. {word.strip()} ." for letter, word in zip(letters, task.label_words, strict=True))
    pattern = f"{text} ? {options} ? The correct one is {SLOT}"
    return task.model_copy(update={"patterns": [pattern], "answers": letters})


FORMS: dict[Form, Callable[[Task], Task]] = {"pattern": lambda task: task, "plain": _plain, "choices": _choices}
