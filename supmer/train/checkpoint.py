"""Checkpoints: a folder with `state.safetensors` and, written last, `checkpoint.json`.

The state is a flat dict of tensors (prompt, regularizer, optimizers, curriculum, cursor); the frozen backbone is never in
it. `checkpoint.json` holds the format version, the step, what the state belongs to (settings, backbone, store) and the
SHA-256 of the state; a digest over these entries guards the file itself. A checkpoint is whole exactly when all of this
agrees, so a write that was cut off at any moment, or a flipped bit, is recognized. `docs/run_directory.md` describes the
format and its versions.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Collection, Mapping
from itertools import count
from typing import Any, Literal, NamedTuple

import safetensors.torch
from pyarrow import fs
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from torch import Tensor

from supmer import storage
from supmer.errors import UserError
from supmer.train.run_dir import Origin

logger = logging.getLogger(__name__)

FORMAT_VERSION = 2
STATE_FILE = "state.safetensors"
MANIFEST_FILE = "checkpoint.json"
MAX_MANIFEST_BYTES = 1_000_000
RAY_SNAPSHOT = "checkpoint_manager_snapshot.json"

_NAME = re.compile(r"step_(\d{8,})(?:_(\d+))?")


class DamagedCheckpointError(Exception):
    """A checkpoint that is not whole; the one before it may be."""


class Manifest(BaseModel):
    """Content of `checkpoint.json`, besides its digest.

    `validation_query_loss` is that of this very state, None where it was not validated (and in format 1, which lacks it).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["supmer-checkpoint"] = "supmer-checkpoint"
    format_version: int = FORMAT_VERSION
    supmer_version: str
    step: int = Field(ge=0)
    validation_query_loss: float | None = None
    origin: Origin
    state_bytes: int = Field(ge=0)
    state_sha256: str


class Checkpoint(NamedTuple):
    """A checkpoint that was read and found whole."""

    manifest: Manifest
    state: dict[str, Tensor]


def serialize(state: Mapping[str, Tensor]) -> bytes:
    """Return the safetensors file of a flat dict of tensors."""
    content: bytes = safetensors.torch.save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})
    return content


def write(
    folder: str, state: bytes, step: int, origin: Origin, supmer_version: str, validation_query_loss: float | None = None
) -> None:
    """Write one checkpoint into `folder`, the manifest last."""
    manifest = Manifest(
        supmer_version=supmer_version,
        step=step,
        validation_query_loss=validation_query_loss,
        origin=origin,
        state_bytes=len(state),
        state_sha256=hashlib.sha256(state).hexdigest(),
    )
    entries = manifest.model_dump(mode="json")
    storage.write_bytes(storage.join(folder, STATE_FILE), state)
    content = json.dumps({**entries, "digest": _digest(entries)}, indent=2)
    storage.write_bytes(storage.join(folder, MANIFEST_FILE), content.encode())


def read(folder: str) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        DamagedCheckpointError: a file is missing or does not match its checksum.
        UserError: the checkpoint is whole, but in a format newer than this version of supmer knows.
    """
    manifest = read_manifest(folder)
    uri = storage.join(folder, STATE_FILE)
    if _size(uri) != manifest.state_bytes:
        raise DamagedCheckpointError(f"{uri}: {manifest.state_bytes} bytes expected, {_size(uri)} found")
    content = storage.read_bytes(uri)
    if hashlib.sha256(content).hexdigest() != manifest.state_sha256:
        raise DamagedCheckpointError(f"{uri}: SHA-256 differs from the one in {MANIFEST_FILE}")
    try:
        return Checkpoint(manifest, safetensors.torch.load(content))
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise DamagedCheckpointError(f"{uri}: not a safetensors file ({error})") from error


def read_for(origin: Origin, folder: str) -> Checkpoint:
    """Read one checkpoint that is to be continued; raises as `read` does, and UserError if it has another origin."""
    found = read(folder)
    for (what, made_with), (_, now) in zip(found.manifest.origin, origin, strict=True):
        if made_with != now:
            raise UserError(f"{folder}: was made with another {what.replace('_', ' ')}; give a new run.name")
    return found


def read_manifest(folder: str) -> Manifest:
    """Read `checkpoint.json` alone; raises as `read` does."""
    uri = storage.join(folder, MANIFEST_FILE)
    if not 0 < _size(uri) <= MAX_MANIFEST_BYTES:
        raise DamagedCheckpointError(f"{uri}: missing, empty or too large")
    try:
        entries = json.loads(storage.read_bytes(uri))
    except (ValueError, RecursionError) as error:
        raise DamagedCheckpointError(f"{uri}: not readable as JSON") from error
    if not isinstance(entries, dict) or entries.pop("digest", None) != _digest(entries):
        raise DamagedCheckpointError(f"{uri}: its digest does not match")
    version = entries.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise UserError(
            f"{folder}: checkpoint format {version}, written by supmer {entries.get('supmer_version')}; "
            f"this version reads formats up to {FORMAT_VERSION}"
        )
    try:
        return Manifest.model_validate(entries)
    except ValidationError as error:
        raise DamagedCheckpointError(f"{uri}: unexpected content") from error


def new_name(taken: Collection[str], step: int) -> str:
    """Return a folder name for a checkpoint of `step` that no earlier attempt has used."""
    first = f"step_{step:08d}"
    return next(name for attempt in count(1) if (name := first if attempt == 1 else f"{first}_{attempt}") not in taken)


def find_newest(
    checkpoints: str, warn: Callable[[str], None] = logger.warning, max_step: float = float("inf")
) -> str | None:
    """Return the name of the newest whole checkpoint of at most `max_step`, with a line to `warn` for each damaged one."""
    names = (name for name in newest_first(checkpoints) if _order(name)[0] <= max_step)
    return next((name for name in names if _is_whole(storage.join(checkpoints, name), warn)), None)


def newest_origin(checkpoints: str) -> Origin | None:
    """Return what the newest whole checkpoint belongs to, None where there is no checkpoint."""
    newest = read_newest_manifest(checkpoints)
    return newest.origin if newest else None


def read_newest_manifest(checkpoints: str) -> Manifest | None:
    """Read the manifest of the newest whole checkpoint, None where there is no checkpoint."""
    name = find_newest(checkpoints)
    return None if name is None else read_manifest(storage.join(checkpoints, name))


def newest_first(checkpoints: str) -> list[str]:
    """Return the names of all checkpoint folders, whole or not, by step and attempt."""
    _, root = storage.resolve(checkpoints)
    folders = {info.path.removeprefix(root).strip("/").split("/")[0] for info in storage.list_files(checkpoints)}
    return sorted((name for name in folders if _NAME.fullmatch(name)), key=_order, reverse=True)


class KeptCheckpoints:
    """The folders that stay: the newest `keep` whole checkpoints, and the one with the lowest validation loss.

    What is already there is read and checked once, with a warning for each damaged one that is newer than a whole one;
    all else is deleted, then and at each `add`.
    """

    def __init__(self, checkpoints: str, keep: int) -> None:
        self._checkpoints = checkpoints
        self._keep = keep
        self._losses: dict[str, float | None] = {}
        for name in newest_first(checkpoints):
            # A damaged one that is older than those to keep is nothing to warn of.
            warn = logger.warning if len(self._losses) < keep else logger.debug
            if _is_whole(storage.join(checkpoints, name), warn):
                self._losses[name] = read_manifest(storage.join(checkpoints, name)).validation_query_loss
            else:
                storage.delete_folder(storage.join(checkpoints, name))
        self._prune()

    def add(self, name: str, validation_query_loss: float | None) -> None:
        """Count a checkpoint in that was just written, and delete those that need not stay for it."""
        self._losses[name] = validation_query_loss
        self._prune()

    def _prune(self) -> None:
        scored = [(loss, name) for name, loss in self._losses.items() if loss is not None]
        kept = {*sorted(self._losses, key=_order, reverse=True)[: self._keep], *(name for _, name in sorted(scored)[:1])}
        for name in self._losses.keys() - kept:
            storage.delete_folder(storage.join(self._checkpoints, name))
            del self._losses[name]


def forget_ray_snapshot(checkpoints: str) -> None:
    """Delete Ray Train's own list of checkpoints, before a new `fit`.

    Ray writes it in place and refuses to start if it is cut off or names a folder that is gone. The folders say all that
    is needed, so this program never reads it.
    """
    snapshot = storage.join(checkpoints, RAY_SNAPSHOT)
    if storage.exists(snapshot):
        filesystem, path = storage.resolve(snapshot)
        filesystem.delete_file(path)


def _is_whole(folder: str, warn: Callable[[str], None]) -> bool:
    try:
        read(folder)
    except DamagedCheckpointError as error:
        warn(f"passing over a damaged checkpoint: {error}")
        return False
    return True


def _order(name: str) -> tuple[int, int]:
    match = _NAME.fullmatch(name)
    assert match is not None
    return int(match[1]), int(match[2] or 1)


def _digest(entries: Any) -> str:
    canonical = json.dumps(entries, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _size(uri: str) -> int:
    """Return a file's size in bytes, 0 if it is missing or not a file."""
    filesystem, path = storage.resolve(uri)
    info = filesystem.get_file_info(path)
    return int(info.size) if info.type == fs.FileType.File else 0
