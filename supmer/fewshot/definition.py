"""What a tuned prompt is used with: the task it was tuned on, the backbone it stands before, the room for a row.

Written as `definition.json` beside the prompt of each cell, so that a cell's folder can be used alone.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from supmer import storage
from supmer.config import BackboneConfig, Config, PerfectConfig
from supmer.errors import UserError, one_line
from supmer.fewshot.task import FolderSource, Task

DEFINITION_FILE = "definition.json"


class PromptDefinition(BaseModel):
    """What is needed beside a prompt to read rows as its tuning did.

    Attributes:
        task: the task, with the one pattern that the prompt was tuned under.
        backbone: the frozen model.
        max_input_tokens: encoder positions that a row may take, prompt not counted.
        method: where the method trained other parts than a prompt, its name; they lie beside as `<method>.safetensors`.
        perfect: how those of PERFECT compute.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Task
    backbone: BackboneConfig
    max_input_tokens: int = Field(ge=1)
    method: str | None = None
    perfect: PerfectConfig | None = None

    @property
    def num_masks(self) -> int:
        """Mask slots of a row; 0 where it has a label word's place instead."""
        return self.perfect.num_masks if self.perfect else 0


def define(config: Config, task: Task, pattern: int, method: str | None = None) -> PromptDefinition:
    """Return the definition of what is tuned on a task under one of its patterns: a prompt, or the parts of a method."""
    # Where the labelled rows lay is no part of it.
    folder = FolderSource(**task.folder.model_dump(exclude={"path"}))
    changes = {"patterns": [task.patterns[pattern]], "plain": None, "folder": folder, "package_docs": False}
    used = task.model_copy(update=changes)
    used = used.model_copy(update={"truncate": [name for name in task.truncate if name in used.fields]})
    return PromptDefinition(
        task=used,
        backbone=config.backbone,
        max_input_tokens=config.max_input_tokens,
        method=method,
        perfect=config.fewshot.perfect if method == "perfect" else None,
    )


def read_definition(folder: str) -> PromptDefinition:
    """Read the definition that lies in the folder of a prompt.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    path = storage.join(folder, DEFINITION_FILE)
    if not storage.exists(path):
        raise UserError(f"{folder}: has no {DEFINITION_FILE}; it must be the folder of a few-shot cell that tuned a prompt")
    try:
        return PromptDefinition.model_validate_json(storage.read_bytes(path))
    except ValidationError as error:
        raise UserError(f"{path}: not readable ({one_line(error)})") from error
