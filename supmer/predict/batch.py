"""Labelling files of rows by Ray Data: parts of files through a pool of actors, each part written when it is done.

Parts lie in `<output>.parts` until all are there, so that the same command goes on after a stop and writes no row twice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import ray
import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from sklearn.metrics import f1_score

from supmer import storage
from supmer.backbone.load import check_backbone
from supmer.config import Config, PredictConfig
from supmer.corpus.reading import quieten_ray_data
from supmer.errors import UserError, one_line, setting_error
from supmer.fewshot.definition import PromptDefinition, read_definition
from supmer.fewshot.starting_points import PROMPT_TENSOR
from supmer.placement import check_room, role_resources
from supmer.predict.parts import FORMATS, Summary, answer_part, join_parts, read_parts
from supmer.predict.predictor import Predictor, find_cell, read_tuned
from supmer.progress import Progress
from supmer.readers.files import COMPRESSIONS, InputFile, list_files
from supmer.readers.rows import READ_ERRORS
from supmer.readers.skipped import SKIP_REASONS, Skipped
from supmer.reports.tables import Table
from supmer.runtime import connect_ray

logger = logging.getLogger(__name__)

READER_CPUS = 0.25

Tuned = torch.Tensor | dict[str, torch.Tensor]
"""A prompt [L, d], or the parts of a method."""


@dataclass(frozen=True)
class Outcome:
    """Counts over all rows: those without a label by reason, and of those with a known class the classes predicted."""

    label_words: list[str]
    num_rows: int
    unusable: dict[str, int]
    skipped: dict[str, int]
    confusion: np.ndarray[Any, Any]

    @property
    def num_labelled(self) -> int:
        """Rows whose class was given."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        return float(self.confusion.trace() / self.num_labelled)

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that occur."""
        given, predicted = np.nonzero(self.confusion)
        weights = self.confusion[given, predicted]
        return float(f1_score(given, predicted, sample_weight=weights, average="macro", zero_division=0))

    def table(self) -> Table:
        """Return the confusion table: a line for each class given, a column for each one predicted."""
        rows = [[word, *map(str, line)] for word, line in zip(self.label_words, self.confusion, strict=True)]
        return Table(["given \\ predicted", *self.label_words], rows)


def predict_files(config: Config, run: str, cell: str | None, inputs: Sequence[str], output: str) -> Outcome:
    """Label the rows of files and write them, with all their columns, in the same format and order.

    Args:
        config: settings of the section `predict`.
        run: run directory, or the folder of a cell.
        cell: as `Predictor.load` takes it.
        inputs: files, folders or globs of JSONL, CSV or Parquet.
        output: folder to write (a file for each of the input's), or for one input file the file.

    Raises:
        UserError: a file or the prompt cannot be used.
    """
    folder = find_cell(run, cell)
    definition = read_definition(folder)
    tuned = read_tuned(folder, definition)
    check_backbone(definition.backbone)  # a mistake must not first show up in an actor
    files = _input_files(inputs)
    targets = _targets(files, output)
    parts = storage.absolute(output).rstrip("/") + ".parts"
    what = [asdict(file) for file in files], definition.model_dump_json(), hashlib.sha256(_as_bytes(tuned)).hexdigest()
    job = hashlib.sha256(json.dumps([*what, config.predict.part_rows]).encode()).hexdigest().encode()
    mark = storage.join(parts, "job")
    if storage.exists(mark) and storage.read_bytes(mark) == job:
        logger.info("going on with what %s holds", parts)
    else:  # parts of another job
        storage.delete_folder(parts)
        storage.write_bytes(mark, job)
    _label(config, files, definition, tuned, parts)
    words = definition.task.label_words
    num_rows, unusable, skipped = 0, Counter[str](), Counter[str]()
    confusion = np.zeros((len(words), len(words)), dtype=np.int64)
    for number, (file, target) in enumerate(zip(files, targets, strict=True)):
        end = json.loads(storage.read_bytes(_end(parts, number)))
        written = (storage.read_bytes(_part(parts, number, part)) for part in range(end["parts"]))
        with storage.open_whole(target) as stream:
            join_parts(file.format, written, stream)
        skipped.update({SKIP_REASONS.get(reason, reason): count for reason, count in end["skipped"].items()})
        for part in range(end["parts"]):
            summary = Summary(*json.loads(storage.read_bytes(_summary(parts, number, part))))
            num_rows += summary.num_rows
            unusable.update(summary.unusable)
            confusion += np.array(summary.confusion)
    storage.delete_folder(parts)
    return Outcome(words, num_rows, dict(unusable), dict(skipped), confusion)


def _input_files(inputs: Sequence[str]) -> list[InputFile]:
    found = list_files(inputs, "auto", "--input")
    unfit = [file.path for file in found.files if file.format not in FORMATS]
    if unfit or not found.files:
        raise setting_error("--input", unfit[0] if unfit else " ".join(inputs), "must be JSONL, CSV or Parquet files")
    return list(found.files)


def _targets(files: list[InputFile], output: str) -> list[str]:
    suffix = posixpath.splitext(output)[1]
    if suffix in FORMATS.values():
        if len(files) > 1 or FORMATS[files[0].format] != suffix:
            found = f"{len(files)} files" if len(files) > 1 else files[0].path
            raise setting_error("--output", output, f"must be a folder, or of one input file's format, not for {found}")
        targets = [storage.absolute(output)]
    else:
        targets = []
        for file in files:
            stem, last = posixpath.splitext(file.name)
            stem = posixpath.splitext(stem)[0] if last in COMPRESSIONS else stem
            targets.append(storage.join(storage.absolute(output), stem + FORMATS[file.format]))
    for file, target in zip(files, targets, strict=True):
        if targets.count(target) > 1:
            raise setting_error("--input", file.path, f"another file would be written to {target} too")
        if storage.resolve(target)[1] == file.path:
            raise setting_error("--output", output, f"must not be where the input {file.path} is")
    return targets


def _label(config: Config, files: list[InputFile], definition: PromptDefinition, tuned: Tuned, parts: str) -> None:
    """Label and write all parts that are not written yet."""
    settings = config.predict
    # One process of a cluster of our own would compute what this one does, and start a minute later.
    actors = int(bool(os.environ.get("RAY_ADDRESS"))) if settings.actors is None else settings.actors
    how = {"files": files, "parts": parts, "rows": settings.part_rows}
    labeller = [definition.model_dump_json(), _as_bytes(tuned), parts, max(1, int(settings.cpus_per_actor))]
    with Progress("labelling", sum(file.size for file in files), "bytes") as progress:
        num_rows = 0
        for done in _on_ray(settings, actors, how, labeller) if actors else _here(how, labeller):
            num_rows += int(done["num_rows"].sum())
            progress.add(int(done["bytes"].sum()))
            progress.note = f"{num_rows:,} rows"


def _here(how: dict[str, Any], labeller: list[Any]) -> Iterator[dict[str, Any]]:
    label = _Labeller(*labeller)
    for number in range(len(how["files"])):
        for part in _read_file({"file": number}, **how):
            yield label({name: [value] for name, value in part.items()})


def _on_ray(settings: PredictConfig, actors: int, how: dict[str, Any], labeller: list[Any]) -> Iterator[dict[str, Any]]:
    cpus = actors * settings.cpus_per_actor + READER_CPUS
    connect_ray(cpus)
    quieten_ray_data()
    ray.data.DataContext.get_current().target_max_block_size = 1  # each part is a block, for any of the actors
    gpus = settings.gpus_per_actor
    if gpus is None:
        gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0
    check_room("predict.actors", actors, cpus, actors * gpus)
    numbers = [{"file": number} for number in range(len(how["files"]))]
    parts = ray.data.from_items(numbers, override_num_blocks=len(numbers)).flat_map(
        _read_file, fn_kwargs=how, num_cpus=READER_CPUS, resources=role_resources("data")
    )
    labelled = parts.map_batches(
        _Labeller,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=settings.cpus_per_actor,
        num_gpus=gpus,
        fn_constructor_args=labeller,
    )
    yield from labelled.iter_batches(batch_size=None)


def _read_file(row: dict[str, Any], files: list[InputFile], parts: str, rows: int) -> Iterator[dict[str, Any]]:
    """Yield the parts of a file that are not written yet, and write how many there are."""
    number, skipped, count = int(row["file"]), Skipped(), 0
    file = files[number]
    try:
        for count, part in enumerate(read_parts(file, rows, skipped), start=1):
            if not storage.exists(_summary(parts, number, count - 1)):
                yield {"file": number, "format": file.format, "part": count - 1, "rows": part}
    except READ_ERRORS as error:
        raise UserError(f"--input {file.path}: cannot be read to its end: {one_line(error)}") from error
    storage.write_bytes(_end(parts, number), json.dumps({"parts": count, "skipped": skipped}).encode())


def _as_bytes(tuned: Tuned) -> bytes:
    tensors = tuned if isinstance(tuned, dict) else {PROMPT_TENSOR: tuned}
    content: bytes = save_safetensors({name: tensor.contiguous() for name, tensor in tensors.items()})
    return content


class _Labeller:
    """An actor with the backbone: labels a part and writes it, its summary last."""

    def __init__(self, definition: str, tuned: bytes, parts: str, threads: int) -> None:
        torch.set_num_threads(threads)
        tensors = load_safetensors(tuned)
        self.predictor = Predictor(PromptDefinition.model_validate_json(definition), tensors.get(PROMPT_TENSOR, tensors))
        self.parts = parts

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        file, part, rows = int(batch["file"][0]), int(batch["part"][0]), batch["rows"][0]
        written, summary = answer_part(self.predictor, str(batch["format"][0]), rows, is_first=part == 0)
        storage.write_bytes(_part(self.parts, file, part), written)
        storage.write_bytes(_summary(self.parts, file, part), json.dumps(summary).encode())
        return {"num_rows": np.array([summary.num_rows]), "bytes": np.array([len(rows)])}


def _part(parts: str, file: int, part: int) -> str:
    return storage.join(parts, f"{file:06d}-{part:06d}")


def _summary(parts: str, file: int, part: int) -> str:
    return storage.join(parts, f"{file:06d}-{part:06d}.json")


def _end(parts: str, file: int) -> str:
    return storage.join(parts, f"{file:06d}.end")
