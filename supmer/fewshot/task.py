"""Task definitions: one YAML file a task, built in or the user's own (section 7)."""

from __future__ import annotations

import difflib
import re
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from typing_extensions import Self

from supmer.errors import UserError

SLOT = "<X>"
"""Where the label goes in a pattern; becomes the first sentinel."""

PLACEHOLDER = re.compile(r"\{([^{}]+)\}")

Text = Annotated[str, StringConstraints(min_length=1, pattern=r"\S")]
Class = StrictBool | StrictInt | StrictStr


class _Definition(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Columns(_Definition):
    """How rows of a source become fields and a class.

    `columns` names the column of each field (default: the column of the same name). `classes` lists the values of the
    label column by class index (default: 0, 1, 2, ...), so that a data set's own numbering never decides.
    """

    columns: dict[Text, Text] = Field(default_factory=dict)
    label: Text = "label"
    classes: list[Class] | None = None


class FolderSource(Columns):
    """A folder with `train.jsonl` and `test.jsonl`; default `<fewshot.data_dir>/<task>`."""

    path: str | None = None
    train: Text = "train.jsonl"
    test: Text = "test.jsonl"


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
        label_words: the word of each class, by class index.
        metric: what `score` is.
        truncate: fields that give way first when a row is too long; default: all, the longest first.
        empty_rows: what happens to rows with an empty field.
        shares_text_with: tasks made of the same sentences; never tuned on one and tested on the other.
        folder, hub, package_docs: where rows come from; see `supmer.fewshot.data.load_rows` for the order.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    format: Literal["single", "pair", "multi_choice"] = "single"
    patterns: list[Text] = Field(min_length=1)
    label_words: list[Text] = Field(min_length=2)
    metric: Literal["accuracy", "macro_f1"] = "accuracy"
    truncate: list[str] = Field(default_factory=list)
    empty_rows: Literal["refuse", "skip"] = "refuse"
    shares_text_with: list[str] = Field(default_factory=list)
    folder: FolderSource = FolderSource()
    hub: HubSource | None = None
    package_docs: bool = False

    @field_validator("patterns")
    @classmethod
    def one_slot(cls, value: list[str]) -> list[str]:
        for pattern in value:
            if pattern.count(SLOT) != 1:
                raise ValueError(f"each pattern must contain {SLOT} exactly once")
            if not PLACEHOLDER.search(pattern):
                raise ValueError("each pattern must contain a {field}")
        return value

    @field_validator("label_words", mode="before")
    @classmethod
    def quoted(cls, value: object) -> object:
        if isinstance(value, list) and any(isinstance(word, bool) for word in value):
            raise ValueError("bare yes and no are booleans in YAML, write them in quotes")
        return value

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
        for source in (self.folder, self.hub):
            if source and source.classes is not None and len(source.classes) != len(self.label_words):
                raise ValueError(f"classes: needs {len(self.label_words)} values, one per label word")
        return self

    @property
    def fields(self) -> list[str]:
        """The placeholders of all patterns, in order of appearance."""
        return list(dict.fromkeys(name for pattern in self.patterns for name in PLACEHOLDER.findall(pattern)))


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
        raise UserError(f"fewshot.tasks={name}: no readable file there") from error
    task = parse_task(text, name)
    if task.folder.path is None or "://" in task.folder.path:
        return task
    folder = task.folder.model_copy(update={"path": str((path.parent / task.folder.path).resolve())})
    return task.model_copy(update={"folder": folder})


def parse_task(text: str, origin: str) -> Task:
    """Validate the YAML text of a task; `origin` names it in errors."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"task {origin}: not readable as YAML ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(values, dict):
        raise UserError(f"task {origin}: must be a mapping with at least name, patterns and label_words")
    try:
        return Task.model_validate(values)
    except ValidationError as error:
        raise UserError(f"task {origin}: {_describe(error)}") from error


def _load_builtin(name: str) -> Task:
    known = builtin_task_names()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3) or known
        raise UserError(f"fewshot.tasks={name}: must be a task YAML file or one of the built-in tasks: {', '.join(near)}")
    return parse_task((_builtin_folder() / f"{name}.yaml").read_text(encoding="utf-8"), name)


def _builtin_folder() -> Any:
    return resources.files("supmer.fewshot") / "tasks"


def _describe(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown key"
    if first["type"] == "missing":
        return f"{where}: is required"
    return f"{where}: {message}" if where else message
