"""The meta-trained prompt and regularizer of a run, read for tuning and export."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from supmer import storage
from supmer.config import Config, RegularizerConfig
from supmer.errors import UserError
from supmer.model.regularizer import GradientRegularizer

StartingPoint = Literal["prompt", "regularizer", "ppt_prompt"]

PROMPT_FILE, REGULARIZER_FILE = "prompt.safetensors", "regularizer.safetensors"

PROMPT_TENSOR = "prompt"
LAYER_NAME = re.compile(r"mlp\.layers\.(\d+)\.u")


@dataclass(frozen=True)
class StartingPoints:
    """What the methods of a run start from; None where none of them needs it. `regularizer` is a state dict."""

    prompt: Tensor | None = None
    regularizer: dict[str, Tensor] | None = None
    ppt_prompt: Tensor | None = None


def read_starting_points(config: Config, needed: Iterable[StartingPoint], width: int) -> StartingPoints:
    """Read what is needed from `fewshot.from_run` (default: the run itself) and `fewshot.ppt_run`.

    Args:
        config: the configuration.
        needed: the starting points that the methods name.
        width: d of the backbone.

    Raises:
        UserError: a file is missing, unreadable, or of another shape than the prompt length and the backbone ask for.
    """
    needed = set(needed)
    run = config.fewshot.from_run or config.run_dir
    prompt = ppt_prompt = regularizer = None
    if "prompt" in needed:
        prompt = _fitting_prompt(run, "fewshot.from_run", config, width)
    if "regularizer" in needed:
        regularizer = read_tensors(run, REGULARIZER_FILE, "fewshot.from_run")
        build_regularizer(regularizer, config, width, run)
    if "ppt_prompt" in needed:
        if config.fewshot.ppt_run is None:
            raise UserError("fewshot.ppt_run=None: method ppt needs the directory of a run with meta.algorithm=multitask")
        ppt_prompt = _fitting_prompt(config.fewshot.ppt_run, "fewshot.ppt_run", config, width)
    return StartingPoints(prompt, regularizer, ppt_prompt)


def read_tensors(run: str, file: str, setting: str) -> dict[str, Tensor]:
    """Read a safetensors file of a run directory; UserError if it is not there or damaged."""
    path = storage.join(run, file)
    if not storage.exists(path):
        raise UserError(f"{setting}={run}: has no {file}; run pipeline/metatrain.py first, or name another run")
    try:
        tensors: dict[str, Tensor] = load_safetensors(storage.read_bytes(path))
    except SafetensorError as error:
        raise UserError(f"{setting}={run}: {file} is damaged ({error})") from error
    return tensors


def read_prompt(run: str, setting: str) -> Tensor:
    """Return the prompt [L, d] of a run directory."""
    tensors = read_tensors(run, PROMPT_FILE, setting)
    prompt = tensors.get(PROMPT_TENSOR)
    if prompt is None or prompt.dim() != 2 or not bool(torch.isfinite(prompt).all()):
        raise UserError(f"{setting}={run}: {PROMPT_FILE} must hold a finite tensor `{PROMPT_TENSOR}` [L, d]")
    return prompt.float()


def build_regularizer(tensors: dict[str, Tensor], config: Config, width: int, origin: str) -> GradientRegularizer:
    """Build psi_phi from its tensors; depth and ranks are read off their shapes, the norm is `fewshot.norm`.

    Raises:
        UserError: names or shapes are not those of section 8, or do not fit the backbone's width.
    """
    shape = regularizer_shape(tensors, config.regularizer, origin)
    found = tensors["mlp.layers.0.u"].shape[0]
    if found != width:
        raise UserError(f"{origin}: the regularizer has width {found}, the backbone {width}")
    regularizer = GradientRegularizer(width, shape.model_copy(update={"norm": config.fewshot.norm}))
    try:
        regularizer.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{origin}: not a regularizer ({' '.join(str(error).split())[:200]})") from error
    return regularizer.eval().requires_grad_(False)


def regularizer_shape(tensors: dict[str, Tensor], config: RegularizerConfig, origin: str) -> RegularizerConfig:
    """Return `config` with the depth and ranks that tensors of the published names have."""
    depths = [int(match[1]) for name in tensors if (match := LAYER_NAME.fullmatch(name))]
    gate = tensors.get("mlp.linear_1.weight")
    layer = tensors.get("mlp.layers.0.u")
    if sorted(depths) != list(range(len(depths))) or layer is None or layer.dim() != 2 or gate is None or gate.dim() != 2:
        raise UserError(f"{origin}: not a regularizer; it needs mlp.layers.<i>.u, .v, .bias and mlp.linear_1, mlp.linear_2")
    return config.model_copy(update={"hidden_layers": len(depths) - 1, "rank": layer.shape[1], "gate_hidden": gate.shape[0]})


def _fitting_prompt(run: str, setting: str, config: Config, width: int) -> Tensor:
    prompt = read_prompt(run, setting)
    if prompt.shape[1] != width:
        raise UserError(f"{setting}={run}: its prompt has width {prompt.shape[1]}, backbone.name has {width}")
    if prompt.shape[0] != config.prompt.length:
        raise UserError(f"prompt.length={config.prompt.length}: the prompt of {run} has length {prompt.shape[0]}")
    return prompt
