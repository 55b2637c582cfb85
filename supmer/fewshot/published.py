"""Reading published prompts and regularizers (section 8), files made by strangers.

They are PyTorch archives. Only tensors are unpickled, and shapes are checked before anything is computed from them: a
tensor's shape may claim far more than its storage holds.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor

from supmer import storage
from supmer.config import RegularizerConfig
from supmer.config.load import with_settings
from supmer.errors import UserError
from supmer.fewshot.starting_points import PROMPT_FILE, PROMPT_TENSOR, REGULARIZER_FILE, regularizer_shape
from supmer.model.regularizer import GradientRegularizer

MAX_FILE_BYTES = 2**30
MAX_PROMPT_SHAPE = (10_000, 65_536)
MAX_ELEMENTS = 2**28
STATISTICS = frozenset({"grad_mean", "grad_std", "grad_s", "k"})
"""Buffers that may hold anything: they are NaN in published files."""


def convert_published(prompt_file: str, regularizer_file: str | None, out: str) -> None:
    """Write `prompt.safetensors` (and `regularizer.safetensors`) into `out`, ready for `fewshot.from_run`.

    Raises:
        UserError: a file is missing, no archive of tensors, or its names or shapes are not those of section 8.
    """
    prompt = read_published_prompt(prompt_file)
    files = {PROMPT_FILE: {PROMPT_TENSOR: prompt}}
    if regularizer_file is not None:
        files[REGULARIZER_FILE] = read_published_regularizer(regularizer_file, width=prompt.shape[1])
    for name, tensors in files.items():
        storage.write_bytes(storage.join(out, name), save_safetensors(tensors))


def read_published_prompt(file: str) -> Tensor:
    """Return a prompt [L, d], fp32."""
    origin = f"--prompt {file}"
    prompt = _load(file, origin)
    if not _is_plain(prompt) or prompt.dim() != 2:
        raise UserError(f"{origin}: must hold one float tensor [L, d], not {_kind(prompt)}")
    if not all(0 < size <= limit for size, limit in zip(prompt.shape, MAX_PROMPT_SHAPE, strict=True)):
        raise UserError(f"{origin}: shape {tuple(prompt.shape)} is beyond {MAX_PROMPT_SHAPE}")
    return _copy(prompt, "the prompt", origin)


def read_published_regularizer(file: str, width: int) -> dict[str, Tensor]:
    """Return a regularizer's state dict, fp32, for prompts of the given width d."""
    origin = f"--regularizer {file}"
    state = _load(file, origin)
    if not isinstance(state, dict) or not all(isinstance(name, str) and _is_plain(state[name]) for name in state):
        raise UserError(f"{origin}: must hold a dict of float tensors by name, not {_kind(state)}")
    shape = regularizer_shape(state, RegularizerConfig(), origin)
    if max(shape.hidden_layers, shape.rank, shape.gate_hidden) > MAX_PROMPT_SHAPE[1] or width * shape.rank > MAX_ELEMENTS:
        raise UserError(f"{origin}: a regularizer of rank {shape.rank} and {shape.hidden_layers} hidden layers is too large")
    with torch.device("meta"):  # for names and shapes only
        expected = GradientRegularizer(width, with_settings(shape, {"init": "xavier"})).state_dict()
    different = sorted(set(state) ^ set(expected))
    if different:
        problem = "is missing" if different[0] in expected else "does not belong there"
        raise UserError(f"{origin}: tensor {different[0][:80]!r} {problem}")
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            found, wanted = tuple(state[name].shape), tuple(tensor.shape)
            raise UserError(f"{origin}: {name} has shape {found}, must be {wanted} beside this prompt")
    return {name: _copy(state[name], name, origin, finite=name not in STATISTICS) for name in expected}


def _load(file: str, origin: str) -> Any:
    try:
        size = os.path.getsize(file)
    except OSError as error:
        raise UserError(f"{origin}: no such file") from error
    if size > MAX_FILE_BYTES:
        raise UserError(f"{origin}: {size} bytes are too many for such a file (at most {MAX_FILE_BYTES})")
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile file can raise anything
        raise UserError(f"{origin}: not an archive of plain tensors, refused") from error


def _is_plain(value: Any) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and value.is_floating_point()
    )


def _copy(tensor: Tensor, name: str, origin: str, *, finite: bool = True) -> Tensor:
    if tensor.numel() > MAX_ELEMENTS:
        raise UserError(f"{origin}: {name} has {tensor.numel()} elements, at most {MAX_ELEMENTS} are taken")
    copied = tensor.detach().to(torch.float32).clone(memory_format=torch.contiguous_format)
    if finite and not bool(torch.isfinite(copied).all()):
        raise UserError(f"{origin}: {name} holds values that are not finite")
    return copied


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"
