"""The meta-trained prompt and regularizer of a run, read for tuning and export."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from supmer import storage
from supmer.config import Config, RegularizerConfig
from supmer.config.fewshot import TaskFormat
from supmer.config.values import with_settings
from supmer.errors import UserError, setting_error
from supmer.fewshot.places import local_place
from supmer.model.regularizer import GradientRegularizer

StartingPoint = Literal["prompt", "regularizer", "ppt_prompt", "unified_ppt_prompt"]

PROMPT_FILE, REGULARIZER_FILE = "prompt.safetensors", "regularizer.safetensors"

PROMPT_TENSOR = "prompt"
ADAPTER_FILE, ADAPTER_CONFIG, ADAPTER_TENSOR = "adapter_model.safetensors", "adapter_config.json", "prompt_embeddings"
LAYER_NAME = re.compile(r"mlp\.layers\.(\d+)\.u")


@dataclass(frozen=True)
class StartingPoints:
    """What the methods of a run start from; None where none of them needs it.

    `regularizer` is a state dict; `ppt_prompt` may be one prompt for each format of tasks.
    """

    prompt: Tensor | None = None
    regularizer: dict[str, Tensor] | None = None
    ppt_prompt: Tensor | dict[TaskFormat, Tensor] | None = None
    unified_ppt_prompt: Tensor | None = None

    def ppt_prompt_of(self, task_format: TaskFormat) -> Tensor | None:
        """Return the prompt that PPT starts from on a task of this format."""
        return self.ppt_prompt.get(task_format) if isinstance(self.ppt_prompt, dict) else self.ppt_prompt


def read_starting_points(
    config: Config, needed: Iterable[StartingPoint], width: int, formats: Iterable[TaskFormat] = ()
) -> StartingPoints:
    """Read what is needed from `fewshot.from_run` (default: the run itself), `ppt_run` and `unified_ppt_run`.

    `width` is d of the backbone, `formats` are those of the tasks.

    Raises:
        UserError: a file is missing, unreadable, or of another shape than the prompt length and the backbone ask for.
    """

    def read(run: str | None, setting: str) -> Tensor:
        if run is None:
            raise setting_error(
                f"fewshot.{setting}",
                "None",
                f"method {setting.removesuffix('_run')} needs the directory of a run with meta.algorithm=multitask",
            )
        prompt = read_prompt(run, f"fewshot.{setting}")
        if prompt.shape[1] != width:
            raise UserError(f"fewshot.{setting}={run}: its prompt has width {prompt.shape[1]}, backbone.name has {width}")
        if prompt.shape[0] != config.prompt.length:
            raise setting_error("prompt.length", config.prompt.length, f"the prompt of {run} has length {prompt.shape[0]}")
        return prompt

    needed, settings, found = set(needed), config.fewshot, StartingPoints()
    run = settings.from_run or config.run_dir
    if "prompt" in needed:
        found = replace(found, prompt=read(run, "from_run"))
    if "regularizer" in needed:
        tensors = read_tensors(run, REGULARIZER_FILE, "fewshot.from_run")
        build_regularizer(tensors, config, width, run)
        found = replace(found, regularizer=tensors)
    if "ppt_prompt" in needed:
        ppt_run = settings.ppt_run
        if not isinstance(ppt_run, dict):
            found = replace(found, ppt_prompt=read(ppt_run, "ppt_run"))
        elif lacking := [name for name in formats if name not in ppt_run]:
            allowed = f"must name a run for the tasks of format {lacking[0]}"
            raise setting_error("fewshot.ppt_run", str(ppt_run), allowed)
        else:
            by_format = {name: read(of_format, f"ppt_run.{name}") for name, of_format in ppt_run.items()}
            found = replace(found, ppt_prompt=by_format)
    if "unified_ppt_prompt" in needed:
        found = replace(found, unified_ppt_prompt=read(settings.unified_ppt_run, "unified_ppt_run"))
    return found


def ppt_runs(config: Config) -> list[str]:
    """List the runs of pre-trained prompts that the settings name."""
    ppt_run = config.fewshot.ppt_run
    named = list(ppt_run.values()) if isinstance(ppt_run, dict) else [ppt_run]
    return [run for run in (*named, config.fewshot.unified_ppt_run) if run is not None]


def read_tensors(run: str, file: str, setting: str) -> dict[str, Tensor]:
    """Read a safetensors file of a run directory; UserError if it is not there or damaged."""
    path = storage.join(local_place(run, setting), file)
    if not storage.exists(path):
        raise UserError(f"{setting}={run}: has no {file}; name the directory of a meta-trained run")
    try:
        tensors: dict[str, Tensor] = load_safetensors(storage.read_bytes(path))
    except SafetensorError as error:
        raise UserError(f"{setting}={run}: {file} is damaged ({error})") from error
    return tensors


def read_prompt(run: str, setting: str) -> Tensor:
    """Return the prompt [L, d] of a run directory, or of a folder with a prompt-tuning adapter of PEFT."""
    place = local_place(run, setting)
    is_adapter = not storage.exists(storage.join(place, PROMPT_FILE)) and storage.exists(storage.join(place, ADAPTER_CONFIG))
    file, name = (ADAPTER_FILE, ADAPTER_TENSOR) if is_adapter else (PROMPT_FILE, PROMPT_TENSOR)
    if is_adapter:
        check_adapter(storage.read_bytes(storage.join(place, ADAPTER_CONFIG)), f"{setting}={run}")
    prompt = read_tensors(place, file, setting).get(name)
    if prompt is None or prompt.dim() != 2 or not bool(torch.isfinite(prompt).all()):
        raise UserError(f"{setting}={run}: {file} must hold a finite tensor `{name}` [L, d]")
    return prompt.float()


def check_adapter(data: bytes, origin: str) -> dict[str, Any]:
    """Return the values of an `adapter_config.json`.

    Raises:
        UserError: the adapter is not a prompt before a model's input.
    """
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{origin}: {ADAPTER_CONFIG} is no JSON") from error
    allowed = {
        "peft_type": ("PROMPT_TUNING",),
        "task_type": ("SEQ_2_SEQ_LM", "CAUSAL_LM"),
        "num_transformer_submodules": (1,),
    }
    for name, values in allowed.items():
        found = config.get(name) if isinstance(config, dict) else None
        if found not in values:
            reason = " (2 also prompts the decoder)" if name == "num_transformer_submodules" else ""
            must = " or ".join(map(str, values))
            raise UserError(f"{origin}: {ADAPTER_CONFIG} has {name}={found}, must be {must}{reason}")
    return dict(config)


def build_regularizer(tensors: dict[str, Tensor], config: Config, width: int, origin: str) -> GradientRegularizer:
    """Build psi_phi from its tensors; depth and ranks are read off their shapes, the norm is `fewshot.norm`.

    Raises:
        UserError: names or shapes are not those of section 8, or do not fit the backbone's width.
    """
    shape = regularizer_shape(tensors, config.regularizer, origin)
    found = tensors["mlp.layers.0.u"].shape[0]
    if found != width:
        raise UserError(f"{origin}: the regularizer has width {found}, the backbone {width}")
    regularizer = GradientRegularizer(width, with_settings(shape, {"norm": config.fewshot.norm}))
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
    return with_settings(config, {"hidden_layers": len(depths) - 1, "rank": layer.shape[1], "gate_hidden": gate.shape[0]})
