"""A replica: one frozen backbone with all its prompts, which answers requests of different tasks together."""

from __future__ import annotations

import asyncio
import logging
from typing import NamedTuple

import torch
from ray import serve
from ray.serve.metrics import Counter

from supmer.config import BackboneConfig, ServeConfig
from supmer.errors import UserError
from supmer.fewshot.data import Row
from supmer.fewshot.starting_points import read_prompt
from supmer.predict.predictor import FrozenBackbone, probabilities
from supmer.predict.rows import UNKNOWN_CLASS
from supmer.serve.tasks import ServedTask, TaskFolder, backbone_key

logger = logging.getLogger(__name__)


class Asked(NamedTuple):
    """A request as the front passes it on: rows of one task, each the texts of its fields."""

    task: str
    digest: str
    rows: list[dict[str, str]]


class Answered(NamedTuple):
    """Label words and probabilities of the rows [N][C], or why the replica does not have the task."""

    labels: list[str]
    scores: list[list[float]]
    error: str | None = None


class Replica:
    """Holds the backbone once, and the prompts that lie in the folder for it.

    Args:
        settings: of the endpoint.
        backbone: the model.
        folder: where the tasks lie.
    """

    def __init__(self, settings: ServeConfig, backbone: BackboneConfig, folder: str) -> None:
        torch.set_num_threads(max(1, int(settings.cpus_per_replica)))
        self.folder = TaskFolder(folder)
        self.key = backbone_key(backbone)
        self.model = FrozenBackbone(backbone)
        self.served: dict[str, ServedTask] = {}
        self.unfit: dict[str, str] = {}
        self.rows = Counter("supmer_rows", description="Rows labelled, by task.", tag_keys=("task",))
        self.batches = Counter("supmer_batches", description="Batches computed; a batch has requests of any tasks.")
        # What serve.batch takes as decorator is known here only.
        self.answer_batch.set_max_batch_size(settings.max_batch)
        self.answer_batch.set_batch_wait_timeout_s(settings.batch_wait_seconds)
        self._read_folder()

    async def answer(self, asked: Asked) -> Answered:
        """Answer one request, together with those that wait at the same time."""
        answered: Answered = await self.answer_batch(asked)
        return answered

    @serve.batch  # type: ignore[untyped-decorator]
    async def answer_batch(self, batch: list[Asked]) -> list[Answered]:
        """Answer requests of any tasks by one computation."""
        # In a thread, so that the next batch gathers meanwhile; there is one batch at a time.
        return await asyncio.to_thread(self.compute, batch)

    def compute(self, batch: list[Asked]) -> list[Answered]:
        """Answer requests of any tasks, in their order."""
        if any(self._lacks(asked) for asked in batch):
            self._read_folder()
        kept = [asked for asked in batch if not self._lacks(asked)]
        scores = iter(self.model.scores([(asked.task, Row(row, UNKNOWN_CLASS)) for asked in kept for row in asked.rows]))
        self.batches.inc()
        answers = []
        for asked in batch:
            if self._lacks(asked):
                answers.append(Answered([], [], self.unfit.get(asked.task, "there is no such task any more")))
                continue
            words = self.served[asked.task].definition.task.label_words
            found = [next(scores) for _ in asked.rows]
            answers.append(Answered([words[row.argmax()] for row in found], [probabilities(row).tolist() for row in found]))
            if asked.rows:
                self.rows.inc(len(asked.rows), tags={"task": asked.task})
        return answers

    def _lacks(self, asked: Asked) -> bool:
        return asked.task not in self.served or self.served[asked.task].digest != asked.digest

    def _read_folder(self) -> None:
        """Take what was added to the folder since the last look, and drop what was removed."""
        found = {
            name: task for name in self.folder.names() if (task := self.folder.read(name)) and task.backbone == self.key
        }
        for name in self.served.keys() - found.keys():
            del self.served[name], self.model.tasks[name]
        self.unfit.clear()
        for name, task in found.items():
            if name in self.served and self.served[name].digest == task.digest:
                continue
            try:
                self.model.add(name, task.definition, read_prompt(self.folder.place(name), "--run"))
            except UserError as error:
                self.unfit[name] = str(error)
                logger.warning("task %s is not served: %s", name, error)
            else:
                self.served[name] = task
