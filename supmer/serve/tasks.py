"""The tasks that an endpoint serves: a folder with the prompt of each, so that every process and every start finds them.

Layout: ``<folder>/<name>/prompt.safetensors`` and ``definition.json``, as in the folder of a few-shot cell. The definition
is written last: a task is there when its definition is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from safetensors.torch import save as save_safetensors

from supmer import storage
from supmer.backbone.load import check_backbone
from supmer.config import BackboneConfig
from supmer.errors import UserError, setting_error
from supmer.fewshot.definition import DEFINITION_FILE, PromptDefinition, read_definition
from supmer.fewshot.places import local_place
from supmer.fewshot.results import RESULTS_FILE, Results, cell_of
from supmer.fewshot.starting_points import PROMPT_FILE, PROMPT_TENSOR, read_prompt
from supmer.predict.predictor import find_cell

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class ServedTask:
    """A task under the name by which requests ask for it; `digest` is over its prompt and definition."""

    name: str
    definition: PromptDefinition
    digest: str

    @property
    def backbone(self) -> str:
        return backbone_key(self.definition.backbone)


class TaskFolder:
    """The served tasks in a folder, local or in a bucket."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def names(self) -> set[str]:
        """Return the names of all tasks that are there."""
        paths = (file.path.split("/") for file in storage.list_files(self.folder))
        return {parts[-2] for parts in paths if parts[-1] == DEFINITION_FILE}

    def place(self, name: str) -> str:
        """Return the folder of a task's prompt."""
        return storage.join(self.folder, name)

    def read(self, name: str) -> ServedTask | None:
        """Return a task, or None where there is none of that name (any more)."""
        if not NAME.fullmatch(name):
            return None
        try:
            definition = storage.read_bytes(storage.join(self.place(name), DEFINITION_FILE))
            prompt = storage.read_bytes(storage.join(self.place(name), PROMPT_FILE))
        except FileNotFoundError:
            return None
        return ServedTask(name, read_definition(self.place(name)), _digest(prompt, definition))

    def add(self, name: str, cell: str) -> ServedTask:
        """Copy the prompt in the folder of a cell here.

        Raises:
            UserError: the name or the prompt cannot be used.
        """
        task, files = read_cell(name, cell)
        for file, data in files.items():
            storage.write_bytes(storage.join(self.place(name), file), data)
        return task

    def remove(self, name: str) -> None:
        """Delete a task."""
        storage.delete_folder(self.place(name))


def read_cell(name: str, cell: str) -> tuple[ServedTask, dict[str, bytes]]:
    """Return the task in the folder of a cell, and the files by which it is served, in the order to write them in.

    Raises:
        UserError: the name or the prompt cannot be used.
    """
    if not NAME.fullmatch(name):
        raise setting_error("name", name, "must be at most 100 letters, digits, points, dashes and underscores")
    definition = read_definition(cell)
    if definition.method is not None:
        problem = f"method {definition.method} trained no prompt, and prompts are all that is served; use supmer predict"
        raise UserError(f"{cell}: {problem}")
    files = {
        PROMPT_FILE: save_safetensors({PROMPT_TENSOR: read_prompt(cell, "--run").contiguous()}),
        DEFINITION_FILE: definition.model_dump_json(indent=2).encode(),
    }
    return ServedTask(name, definition, _digest(*files.values())), files


def cells_of(run: str) -> dict[str, str]:
    """Return the folders of the prompts to serve by name of the task: of a run, for each task the best cell on dev.

    Args:
        run: a run directory, the folder of one of its cells, or `NAME=` and one of these, which has one task.

    Raises:
        UserError: there is no such run, or it has no prompt.
    """
    name, equals, place = run.partition("=")
    if not (equals and NAME.fullmatch(name)):
        name, equals, place = "", "", run
    place = local_place(place, "--run")
    if not storage.exists(storage.join(place, RESULTS_FILE)):
        folder = find_cell(place)
        return {name if equals else read_definition(folder).task.name: folder}
    records = sorted(Results(place).records, key=lambda record: -record["dev_score"])
    found: dict[str, str] = {}
    for record in records:
        folder = storage.join(place, "fewshot", cell_of(record).name)
        if record["task"] not in found and storage.exists(storage.join(folder, PROMPT_FILE)):
            found[record["task"]] = folder
    if not found:
        raise UserError(f"--run {place}: none of its cells left a prompt")
    if equals and len(found) > 1:
        raise UserError(f"--run {run}: has several tasks ({', '.join(found)}); name the folder of a cell")
    return {name: next(iter(found.values()))} if equals else found


def backbone_key(backbone: BackboneConfig) -> str:
    """Return what the frozen models of two prompts have in common if they are the same; dropout plays no part."""
    same = backbone.model_dump_json(exclude={"dropout", "gradient_checkpointing"})
    return hashlib.sha256(same.encode()).hexdigest()[:12]


def put_runs(folder: TaskFolder, runs: Iterable[str]) -> list[ServedTask]:
    """Put the prompts of runs into the folder and return all tasks that lie there, those added earlier included.

    Raises:
        UserError: a run or its backbone cannot be used, two have a task of the same name, or there is no task at all.
    """
    places: dict[str, str] = {}
    for run in runs:
        for name, cell in cells_of(run).items():
            if name in places:
                hint = f"--run OTHER={run} gives it another name"
                raise UserError(f"--run {run}: task {name} is served from {places[name]} already; {hint}")
            places[name] = cell
    for name, cell in places.items():
        folder.add(name, cell)
    tasks = [task for name in sorted(folder.names()) if (task := folder.read(name))]
    if not tasks:
        raise UserError("--run is needed: there is no task to serve yet")
    for backbone in {task.backbone: task.definition.backbone for task in tasks}.values():
        check_backbone(backbone)  # a mistake must not first show up in a replica
    return tasks


def _digest(prompt: bytes, definition: bytes) -> str:
    return hashlib.sha256(prompt + definition).hexdigest()[:16]
