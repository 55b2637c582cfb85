"""Task definitions: one YAML file a task, built in or the user's own (section 7)."""

from __future__ import annotations

import difflib
import math
import re
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

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


class _Definition(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Columns(_Definition):
    """How rows of a source become fields and a class.

    `columns` names the column of each field (default: the column of the same name). `classes` lists the values of the
    label column by class index (default: 0, 1, 2, ...), so that a data set's own numbering never decides. Labels are
    compared as text, by `label_text`.
    """

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


class Task(_Definition):
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

    @field_validator("patterns", "causal_patterns", "plain")
    @classmethod
    def one_slot(cls, value: list[str] | str | None) -> list[str] | str | None:
        for pattern in [value] if isinstance(value, str) else value or []:
            if pattern.count(SLOT) != 1:
                raise ValueError(f"each pattern must contain {SLOT} exactly once")
            if not PLACEHOLDER.search(pattern):
                raise ValueError("each pattern must contain a {field}")
        return value

    @field_validator("causal_patterns")
    @classmethod
    def label_last(cls, value: list[str]) -> list[str]:
        if not all(map(_ends_in_label, value)):
            raise ValueError(f"each pattern must end in a blank and {SLOT}, where a decoder-only model goes on")
        return value

    @field_validator("label_weights", mode="before")
    @classmethod
    def balanced_or_by_word(cls, value: object) -> object:
        if value is None or value == "balanced" or isinstance(value, dict):
            return value
        raise ValueError("must be `balanced` or a weight for each label word, such as {word: 2}")

    @field_validator("label_words")
    @classmethod
    def distinct(cls, value: list[str]) -> list[str]:
        repeated = {word for word in value if [w.strip() for w in value].count(word.strip()) > 1}
        if repeated:
            raise ValueError(f"must be distinct, {sorted(repeated)[0]!r} is repeated")
        return value

    @model_validator(mode="after")
    def consistent(self) -> Self:
        unknown = [name for name in self.truncate if name not in self.fields]
        if unknown:
            raise ValueError(f"truncate={unknown[0]}: must be a field of the patterns: {', '.join(self.fields)}")
        foreign = [name for name in PLACEHOLDER.findall(self.plain or "") if name not in self.fields]
        if foreign:
            raise ValueError(f"plain: {{{foreign[0]}}} must be a field of the patterns: {', '.join(self.fields)}")
        if "f1" in self.metrics and len(self.label_words) != 2:
            raise ValueError("metric: f1 is of class 1 of two; macro_f1 is the mean over any number of classes")
        if self.further_words is not None and len(self.further_words) != len(self.label_words):
            raise ValueError(f"further_words: needs {len(self.label_words)} lists, one per label word (it may be empty)")
        weights = self.label_weights if isinstance(self.label_weights, dict) else {}
        for word, weight in weights.items():
            if word not in self.label_words:
                raise ValueError(f"label_weights: {word!r} must be one of the label words: {', '.join(self.label_words)}")
            if not (0 < weight < math.inf):
                raise ValueError(f"label_weights.{word}={weight}: must be positive and finite")
        if self.answers is not None and len(self.answers) != len(self.label_words):
            raise ValueError(f"answers: needs {len(self.label_words)} values, one per label word")
        for source in (self.folder, self.hub):
            if source and source.classes is not None and len(source.classes) != len(self.label_words):
                raise ValueError(f"classes: needs {len(self.label_words)} values, one per label word")
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
    return sorted(file.name.removesuffix(".yaml") for file in _builtin_folder().iterdir() if file.name.endswith(".yaml"))


def load_task(name: str) -> Task:
    """Read a built-in task by name, or a user's task by the path of its YAML file.

    A relative `folder.path` is taken from the folder of the YAML file.

    Raises:
        UserError: no such task, or the file's first mistake.
    """
    if not name.endswith((".yaml", ".yml")):
        return _load_builtin(name)
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
        raise UserError(f"task {origin}: {_describe(error)}") from error
    except UserError as error:
        raise UserError(f"task {origin}: {error}") from error


def _load_builtin(name: str) -> Task:
    known = builtin_task_names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3) or known
        raise setting_error(
            "fewshot.tasks", name, f"must be a task YAML file or one of the built-in tasks: {', '.join(near)}"
        )
    return parse_task((_builtin_folder() / f"{name}.yaml").read_text(encoding="utf-8"), name)


def _builtin_folder() -> Any:
    return resources.files("supmer.fewshot") / "tasks"


def _describe(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        return f"{where}: is required"
    return f"{where}: {message}" if where else message
