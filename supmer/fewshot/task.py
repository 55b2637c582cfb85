"""Task definitions: one YAML file a task, built in or the user's own (section 7)."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from typing_extensions import Self

from supmer.config.corpus import Delimiter, Encoding, Quoting
from supmer.config.fewshot import TaskFormat
from supmer.config.scalars import parse_yaml
from supmer.config.values import read_settings
from supmer.errors import UserError, one_line, setting_error

SLOT = "<X>"
"""Where the label goes in a pattern; becomes the first sentinel."""

BUILTIN = Path(__file__).parent / "tasks"

PLACEHOLDER = re.compile(r"\{([^{}]+)\}")

Metric = Literal["accuracy", "macro_f1", "f1"]
"""`f1` is that of class 1 of two."""

Text = Annotated[str, StringConstraints(min_length=1, pattern=r"\S")]


def label_text(label: object) -> object:
    """Return a label as a task file writes it: 1 and 1.0 are `1`, True is `true`; anything but these and text is returned.

    >>> label_text(1.0), label_text(True), label_text("1")
    ('1', 'true', '1')
    """
    if isinstance(label, bool):
        return str(label).lower()
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    return str(label) if isinstance(label, int) else label


Class = Annotated[str, BeforeValidator(label_text)]


class Columns(BaseModel):
    """How rows of a source become fields and a class.

    `columns` names the column of each field (default: the column of the same name). `classes` lists the values of the
    label column by class index (default: 0, 1, 2, ...), so that a data set's own numbering never decides. Labels are
    compared as text, by `label_text`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: dict[Text, Text] = Field(default_factory=dict)
    label: Text = "label"
    classes: list[Class] | None = None


class FolderSource(Columns):
    """A folder with `train.jsonl` and `test.jsonl`; default `<fewshot.data_dir>/<task>`.

    `train` and `test` name files of any format of rows that corpora have (JSON, CSV, Parquet, Arrow, compressed or not), or
    folders of such. `encoding`, `delimiter` and `quoting` are as in the section `corpus`: by default the file shows them.
    """

    path: str | None = None
    train: Text = "train.jsonl"
    test: Text = "test.jsonl"
    encoding: Encoding | None = None
    delimiter: Delimiter | None = None
    quoting: Quoting | None = None


class HubSource(Columns):
    """A data set of the Hugging Face hub. Where its label column has class names, `classes` must be among them."""

    path: Text
    config: str | None = None
    revision: str | None = None
    train: Text = "train"
    test: Text = "test"


class Task(BaseModel):
    """One classification task by label words.

    Attributes:
        name: shown in results; the folder's name under `fewshot.data_dir`.
        format: tasks of one format are compared in domain generalization.
        patterns: texts with ``{field}`` placeholders and one ``<X>``.
        causal_patterns: such for decoder-only models, each ending in a blank and ``<X>``; default: `patterns`, if they do.
        label_words: the word of each class, by class index.
        further_words: more words of each class; its score is the sum of the probabilities of all its words, the model learns
            to say the one of `label_words`.
        label_weights: weights of the classes in the loss, by label word (1 where not named), or `balanced`: by 1 / number of
            rows to tune on. Only their ratios matter: rows weigh 1 on average.
        answers: what the model is to say for each class, where that is not the label word (the letters of a choice).
        plain: the text for methods without label words, ``<X>`` standing for their mask slots; see `supmer.fewshot.forms`.
        metric: what `score` is; of several, their mean, by which dev chooses the best step.
        truncate: fields that give way first when a row is too long; default: all, the longest first.
        empty_rows: what happens to rows with an empty field.
        shares_text_with: tasks made of the same sentences; never tuned on one and tested on the other.
        folder, hub, package_docs: where rows come from; see `supmer.fewshot.data.load_rows` for the order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    format: TaskFormat = "single"
    patterns: list[Text] = Field(min_length=1)
    causal_patterns: list[Text] = Field(default_factory=list)
    label_words: list[Text] = Field(min_length=2)
    further_words: list[list[Text]] | None = None
    label_weights: Literal["balanced"] | dict[Text, float] | None = None
    answers: list[Text] | None = None
    plain: Text | None = None
    metric: Metric | Annotated[list[Metric], Field(min_length=1)] = "accuracy"
    truncate: list[str] = Field(default_factory=list)
    empty_rows: Literal["refuse", "skip"] = "refuse"
    shares_text_with: list[str] = Field(default_factory=list)
    folder: FolderSource = FolderSource()
    hub: HubSource | None = None
    package_docs: bool = False

    @field_validator("label_weights", mode="before")
    @classmethod
    def balanced_or_by_word(cls, value: object) -> object:
        if value is None or value == "balanced" or isinstance(value, dict):
            return value
        raise ValueError("must be `balanced` or a weight for each label word, such as {word: 2}")

    @model_validator(mode="after")
    def consistent(self) -> Self:
        texts = {
            "patterns": self.patterns,
            "causal_patterns": self.causal_patterns,
            "plain": [self.plain] if self.plain else [],
        }
        for name, pattern in ((name, pattern) for name, patterns in texts.items() for pattern in patterns):
            if pattern.count(SLOT) != 1:
                raise ValueError(f"{name}: each pattern must contain {SLOT} exactly once")
            if not PLACEHOLDER.search(pattern):
                raise ValueError(f"{name}: each pattern must contain a {{field}}")
            if name == "causal_patterns" and not _ends_in_label(pattern):
                raise ValueError(f"{name}: each pattern must end in a blank and {SLOT}, where a decoder-only model goes on")
        for name, used in (("truncate", self.truncate), ("plain", PLACEHOLDER.findall(self.plain or ""))):
            if unknown := [field for field in used if field not in self.fields]:
                raise ValueError(f"{name}={unknown[0]}: must be a field of the patterns: {', '.join(self.fields)}")
        words, stripped = self.label_words, [word.strip() for word in self.label_words]
        if repeated := sorted(word for word in words if stripped.count(word.strip()) > 1):
            raise ValueError(f"label_words: must be distinct, {repeated[0]!r} is repeated")
        if "f1" in self.metrics and len(words) != 2:
            raise ValueError("metric: f1 is of class 1 of two; macro_f1 is the mean over any number of classes")
        by_class: dict[str, Sequence[object] | None] = {
            "further_words": self.further_words,
            "answers": self.answers,
            "folder.classes": self.folder.classes,
            "hub.classes": self.hub.classes if self.hub else None,
        }
        for name, values in by_class.items():
            if values is not None and len(values) != len(words):
                what = "lists" if name == "further_words" else "values"
                raise ValueError(f"{name}: needs {len(words)} {what}, one per label word")
        for word, weight in self.label_weights.items() if isinstance(self.label_weights, dict) else ():
            if word not in words:
                raise ValueError(f"label_weights: {word!r} must be one of the label words: {', '.join(words)}")
            if not (0 < weight < math.inf):
                raise ValueError(f"label_weights.{word}={weight}: must be positive and finite")
        return self

    @property
    def metrics(self) -> list[Metric]:
        """The metrics, of which `score` is the mean."""
        return self.metric if isinstance(self.metric, list) else [self.metric]

    @property
    def fields(self) -> list[str]:
        """The placeholders of all patterns, in order of appearance."""
        patterns = [*self.patterns, *self.causal_patterns]
        return list(dict.fromkeys(name for pattern in patterns for name in PLACEHOLDER.findall(pattern)))

    def for_causal(self) -> Task:
        """Return the task with the patterns of decoder-only models in place of the others (section 10).

        Raises:
            UserError: it has none, and text stands behind the label in `patterns`.
        """
        used = self.causal_patterns or self.patterns
        if not all(map(_ends_in_label, used)):
            wanted = f'causal_patterns: ["{used[0].partition(SLOT)[0].rstrip()} {SLOT}"]'
            problem = f"has text behind {SLOT}, which a decoder-only backbone cannot read; add such as {wanted}"
            raise UserError(f"task {self.name}: patterns: {used[0]!r} {problem}")
        return self.model_copy(update={"patterns": used, "causal_patterns": []})


def _ends_in_label(pattern: str) -> bool:
    return pattern.endswith(f" {SLOT}")


def builtin_task_names() -> list[str]:
    """List the tasks that come with the package."""
    return sorted(file.name.removesuffix(".yaml") for file in BUILTIN.iterdir() if file.name.endswith(".yaml"))


def load_task(name: str) -> Task:
    """Read a built-in task by name, or a user's task by the path of its YAML file.

    A relative `folder.path` is taken from the folder of the YAML file.

    Raises:
        UserError: no such task, or the file's first mistake.
    """
    if not name.endswith((".yaml", ".yml")):
        known = builtin_task_names()
        if name not in known:
            near = ", ".join(difflib.get_close_matches(name, known, n=3) or known)
            raise setting_error("fewshot.tasks", name, f"must be a task YAML file or one of the built-in tasks: {near}")
        return parse_task((BUILTIN / f"{name}.yaml").read_text(encoding="utf-8"), name)
    path = Path(name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise setting_error("fewshot.tasks", name, "no readable file there") from error
    task = parse_task(text, name)
    if task.folder.path is None or "://" in task.folder.path:
        return task
    folder = task.folder.model_copy(update={"path": str((path.parent / task.folder.path).resolve())})
    return task.model_copy(update={"folder": folder})


def parse_task(text: str, origin: str) -> Task:
    """Validate the YAML text of a task; `origin` names it in errors."""
    try:
        values = parse_yaml(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"task {origin}: not readable as YAML ({one_line(error)})") from error
    if not isinstance(values, dict):
        raise UserError(f"task {origin}: must be a mapping with at least name, patterns and label_words")
    try:
        return Task.model_validate(read_settings(values, Task))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = "is required" if first["type"] == "missing" else first["msg"].removeprefix("Value error, ")
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"task {origin}: {where}: {message}" if where else f"task {origin}: {message}") from error
    except UserError as error:
        raise UserError(f"task {origin}: {error}") from error
