"""What lies in `corpus.store_dir`: texts, their embeddings and the stores made from them, with size and last use."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pyarrow import fs

from supmer import storage
from supmer.corpus.levels import EMBEDDINGS, EMBEDDINGS_PREFIX, LAST_USED, TEXT, TEXT_PREFIX
from supmer.corpus.manifest import MANIFEST
from supmer.errors import setting_error


@dataclass
class Stored:
    """A text, embeddings or a store: its folder in `corpus.store_dir`, bytes, and what its manifest says (None: incomplete).

    The embeddings of a text are entries of their own, and not part of the text's bytes.
    """

    name: str
    num_bytes: int = 0
    used: datetime | None = None
    manifest: dict[str, Any] | None = None
    files: set[str] = field(default_factory=set)

    def count(self, name: str, info: fs.FileInfo) -> None:
        """Count one of its files, `name` within the folder."""
        self.num_bytes += info.size
        self.files.add(name)
        if name == LAST_USED or LAST_USED not in self.files:
            self.used = info.mtime if name == LAST_USED or self.used is None else max(self.used, info.mtime)

    @property
    def what(self) -> str:
        """Say what it is."""
        if self.manifest is None:
            return "not complete"
        if self.name.startswith(TEXT_PREFIX) and "/" not in self.name:
            return (
                f"text: {self.manifest['counts']['units']:,} sentences of {self.manifest['counts']['documents']:,} documents"
            )
        if self.name.startswith(TEXT_PREFIX):
            return f"embeddings: {self.manifest['num_units']:,} sentences by {self.manifest['encoder']}"
        if "embeddings" not in self.manifest:
            return f"store of schema version {self.manifest.get('schema_version')}, which this program cannot read"
        return f"store: {len(self.manifest['merged_from'])} clusters, from {self.manifest['embeddings']}"


def list_stores(store_dir: str) -> list[Stored]:
    """Return all that lies in a folder of stores, by name; other folders and files there are passed over."""
    _, root = storage.resolve(store_dir)
    found: dict[str, Stored] = {}
    for info in storage.list_files(store_dir):
        parts = info.path.removeprefix(root).lstrip("/").split("/")
        depth = 2 if len(parts) > 2 and parts[1].startswith(EMBEDDINGS_PREFIX) else 1
        name, file = "/".join(parts[:depth]), "/".join(parts[depth:])
        if file:
            found.setdefault(name, Stored(name)).count(file, info)
    for name, stored in found.items():
        last = (EMBEDDINGS if "/" in name else TEXT) if name.startswith(TEXT_PREFIX) else MANIFEST
        if last in stored.files:
            stored.manifest = json.loads(storage.read_bytes(storage.join(store_dir, name, last)))
    # Of incomplete folders, those of a preparation that was interrupted.
    return [
        stored
        for name, stored in sorted(found.items())
        if stored.manifest
        or name.startswith(TEXT_PREFIX)
        or any(file.startswith(("work/", "split=")) for file in stored.files)
    ]


def remove_stores(store_dir: str, names: Sequence[str]) -> list[str]:
    """Delete texts (with their embeddings), embeddings or stores by name; return a line for each that says what is gone.

    Raises:
        UserError: there is nothing of such a name.
    """
    listed = list_stores(store_dir)
    known = [stored.name for stored in listed]
    for name in names:
        if name not in known:
            raise setting_error("--remove", name, f"must be one of {', '.join(known) or 'none'} (in {store_dir})")
    lines = []
    for name in names:
        if "/" in name and name.split("/")[0] in names:
            continue  # goes with its text
        gone = [stored for stored in listed if stored.name == name or stored.name.startswith(f"{name}/")]
        storage.delete_folder(storage.join(store_dir, name))
        line = f"removed {name}: {_size(sum(stored.num_bytes for stored in gone))} freed"
        built_on = [
            stored.name
            for stored in listed
            if stored.name not in names
            and stored.manifest
            and stored.manifest.get("embeddings") in {one.name for one in gone}
        ]
        if built_on:
            line += f"; {', '.join(built_on)} can be used as before, but other clusters of this text must be embedded again"
        lines.append(line)
    return lines


def table(listed: Sequence[Stored]) -> str:
    """Return a line for each, with size and last use, and the sum of the sizes."""
    width = max([len(stored.name) for stored in listed], default=5)
    lines = [f"{'name':{width}} {'size':>9}  {'last use':16}  what"]
    for stored in listed:
        used = stored.used.astimezone().strftime("%Y-%m-%d %H:%M") if stored.used else "-"
        lines.append(f"{stored.name:{width}} {_size(stored.num_bytes):>9}  {used:16}  {stored.what}")
    return "\n".join([*lines, f"{'all':{width}} {_size(sum(stored.num_bytes for stored in listed)):>9}"])


def _size(num_bytes: int) -> str:
    """Return bytes as text, in units of 1000."""
    power = min((len(str(num_bytes)) - 1) // 3, 4)
    return f"{num_bytes / 1000**power:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
