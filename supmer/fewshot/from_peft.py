"""Reading a prompt from a PEFT prompt-tuning adapter."""

from __future__ import annotations

from safetensors.torch import save as save_safetensors

from supmer import storage
from supmer.backbone.load import is_causal, load_model_config
from supmer.config import BackboneConfig
from supmer.errors import UserError
from supmer.fewshot.definition import DEFINITION_FILE, read_definition
from supmer.fewshot.places import local_place
from supmer.fewshot.starting_points import (
    ADAPTER_CONFIG,
    ADAPTER_FILE,
    PROMPT_FILE,
    PROMPT_TENSOR,
    check_adapter,
    read_prompt,
)


def import_peft(adapter: str, out: str) -> str:
    """Write the prompt of a PEFT prompt-tuning adapter as `prompt.safetensors`, ready for `fewshot.from_run`.

    Args:
        adapter: a folder, `hf://user/repo`, or a hub cache's folder.
        out: folder to write; gets `definition.json` too where the adapter has one (those exported from a cell here).

    Returns:
        One line that says what was read.

    Raises:
        UserError: it is no such adapter, or the shape is not what the adapter's configuration or base model says.
    """
    place, origin = local_place(adapter, "--adapter"), f"--adapter {adapter}"
    if not storage.exists(storage.join(place, ADAPTER_CONFIG)):
        raise UserError(f"{origin}: has no {ADAPTER_CONFIG}; it must be the folder of a PEFT prompt-tuning adapter")
    config = check_adapter(storage.read_bytes(storage.join(place, ADAPTER_CONFIG)), origin)
    if not storage.exists(storage.join(place, ADAPTER_FILE)):
        raise UserError(f"{origin}: has no {ADAPTER_FILE} (pickled weights are not read)")
    prompt = read_prompt(place, "--adapter")
    said = config.get("num_virtual_tokens"), config.get("token_dim")
    if said[0] != prompt.shape[0] or said[1] not in (None, prompt.shape[1]):
        raise UserError(f"{origin}: its prompt has shape {tuple(prompt.shape)}, {ADAPTER_CONFIG} says {said}")
    name = config.get("base_model_name_or_path")
    embedded = BackboneConfig(name="embedded")
    known = embedded if name == embedded.location else BackboneConfig(name=str(name), revision=config.get("revision"))
    width = load_model_config(known).hidden_size
    if is_causal(known) is not (config["task_type"] == "CAUSAL_LM"):
        raise UserError(
            f"{origin}: {ADAPTER_CONFIG} has task_type={config['task_type']}, its base model {name} is of another kind"
        )
    if width != prompt.shape[1]:
        raise UserError(f"{origin}: its prompt has width {prompt.shape[1]}, its base model {name} has {width}")
    storage.write_bytes(storage.join(out, PROMPT_FILE), save_safetensors({PROMPT_TENSOR: prompt.contiguous()}))
    if storage.exists(storage.join(place, DEFINITION_FILE)):
        definition = read_definition(place)
        storage.write_bytes(storage.join(out, DEFINITION_FILE), definition.model_dump_json(indent=2).encode())
    return f"a prompt of {prompt.shape[0]} x {width} numbers for backbone.name={known.name}"
