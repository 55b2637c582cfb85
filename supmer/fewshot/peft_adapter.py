"""Writing a prompt as a PEFT prompt-tuning adapter with a model card."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import yaml
from peft import PromptTuningConfig, TaskType
from safetensors.torch import save as save_safetensors
from torch import Tensor

from supmer import storage
from supmer.backbone.load import FIRST_SENTINEL, load_model_config
from supmer.cli import validate
from supmer.config import BackboneConfig, Config
from supmer.errors import UserError
from supmer.fewshot.starting_points import PROMPT_FILE, read_prompt
from supmer.fewshot.task import SLOT
from supmer.pretrain.warmup import resolve_backbone

WEIGHTS_FILE, CONFIG_FILE, CARD_FILE = "adapter_model.safetensors", "adapter_config.json", "README.md"

CONTINUE = """\
from peft import PeftConfig, get_peft_model, load_peft_weights, set_peft_model_state_dict

config = PeftConfig.from_pretrained("this/folder")
config.inference_mode = False
model = get_peft_model(backbone, config)
set_peft_model_state_dict(model, load_peft_weights("this/folder", device="cpu"))
"""


@dataclass(frozen=True)
class Source:
    """Where an adapter's prompt comes from; `cell` is the record of a few-shot cell, None for the meta-trained prompt."""

    run: str
    base_model: str
    revision: str | None
    settings: Config | None
    cell: dict[str, Any] | None


def export_peft(run: str, out: str, cell: str | None = None, base_model: str | None = None) -> None:
    """Write the adapter of a run's prompt into `out`; weights of the backbone are not needed.

    Args:
        run: run directory.
        out: folder to write.
        cell: name of a few-shot cell, whose tuned prompt is taken instead of the meta-trained one.
        base_model: name that the adapter gives for its backbone; default: the run's own.

    Raises:
        UserError: the run or the cell is not there, or does not say which backbone it is for.
    """
    settings = _settings_of(run)
    if base_model is None and settings is None:
        raise UserError(f"--run {run}: has no config.yaml that names the backbone; give --base-model")
    backbone = (
        resolve_backbone(settings).backbone if base_model is None and settings else BackboneConfig(name=base_model or "")
    )
    record = None if cell is None else _record_of(run, cell)
    prompt = read_prompt(run if cell is None else storage.join(run, "fewshot", cell), "--run")
    model_config = load_model_config(backbone)
    if prompt.shape[1] != model_config.d_model:
        raise UserError(f"--run {run}: its prompt has width {prompt.shape[1]}, {backbone.name} has {model_config.d_model}")
    source = Source(run, backbone.location, backbone.revision, settings, record)
    files = {
        WEIGHTS_FILE: save_safetensors({"prompt_embeddings": prompt.contiguous()}, metadata={"format": "pt"}),
        CONFIG_FILE: json.dumps(_adapter_config(prompt, model_config, source), indent=2, sort_keys=True).encode(),
        CARD_FILE: model_card(prompt, source).encode(),
    }
    for name, data in files.items():
        storage.write_bytes(storage.join(out, name), data)


def push_to_hub(folder: str, repository: str) -> str:
    """Upload an adapter folder to the hub and return its address; UserError if it cannot be reached or written."""
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        address = str(api.create_repo(repository, exist_ok=True))
        api.upload_folder(repo_id=repository, folder_path=folder)
    except Exception as error:  # besides the library's own kinds those of its HTTP client, which changes between releases
        raise UserError(f"--push {repository}: not uploaded ({' '.join(str(error).split())[:200]})") from error
    return address


def model_card(prompt: Tensor, source: Source) -> str:
    """Return the model card: what the prompt is, how it was made, and ten lines that use it."""
    front = {"library_name": "peft", "base_model": source.base_model, "tags": ["prompt-tuning", "supmer"]}
    length, width = prompt.shape
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n",
        f"# Soft prompt for {source.base_model}\n",
        f"A prompt of {length} x {width} numbers for the frozen backbone, {_origin(source)}.\n",
        "## Use\n",
        f"```python\n{_example(source)}```\n",
        "Inputs are read without an end-of-sequence token. To go on with PEFT's own prompt tuning from this prompt:\n",
        f"```python\n{CONTINUE}```\n",
    ]
    if source.settings is not None:
        chosen = source.settings.model_dump(mode="json", include={"backbone", "prompt", "regularizer", "meta", "curriculum"})
        parts.append(f"## Settings of the run\n\n```yaml\n{yaml.safe_dump(chosen, sort_keys=False)}```\n")
    return "\n".join(parts)


def _origin(source: Source) -> str:
    if source.cell is None:
        return "meta-trained on self-supervised tasks (SUPMER, Pan et al. 2023) as the start of few-shot tuning"
    cell = source.cell
    return (
        f"tuned on {cell['k']} rows a class of {cell['task']} by {cell['method']} (data seed {cell['seed']}); "
        f"{cell['metric']} on {cell['num_test']} test rows: {cell['score']:.4f}"
    )


def _example(source: Source) -> str:
    pattern = (
        source.cell["pattern_text"].replace(SLOT, FIRST_SENTINEL) if source.cell else f"{{text}} It was {FIRST_SENTINEL} ?"
    )
    words = source.cell["label_words"] if source.cell else ["terrible", "great"]
    return f"""\
import torch
from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained({source.base_model!r})
model = AutoModelForSeq2SeqLM.from_pretrained({source.base_model!r})
model = PeftModel.from_pretrained(model, "this/folder").eval()
inputs = tokenizer({pattern!r}, add_special_tokens=False, return_tensors="pt")  # fill in the {{fields}}
start = torch.tensor([[model.config.decoder_start_token_id, tokenizer.convert_tokens_to_ids({FIRST_SENTINEL!r})]])
logits = model(**inputs, decoder_input_ids=start).logits[0, 1]
words = {words!r}
scores = [logits[tokenizer(word, add_special_tokens=False)["input_ids"][0]].item() for word in words]
print(words[scores.index(max(scores))])
"""


def _adapter_config(prompt: Tensor, model_config: Any, source: Source) -> dict[str, Any]:
    config = PromptTuningConfig(
        task_type=TaskType.SEQ_2_SEQ_LM,
        inference_mode=True,
        base_model_name_or_path=source.base_model,
        revision=source.revision,
        num_virtual_tokens=prompt.shape[0],
        token_dim=prompt.shape[1],
        num_transformer_submodules=1,  # PEFT's default of 2 would prompt the decoder too
        num_attention_heads=model_config.num_heads,
        num_layers=model_config.num_layers,
    )
    values: dict[str, Any] = config.to_dict()
    return values


def _settings_of(run: str) -> Config | None:
    path = storage.join(run, "config.yaml")
    if not storage.exists(path):
        return None
    try:
        return validate(yaml.safe_load(storage.read_bytes(path)))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"--run {run}: config.yaml is not readable as YAML") from error


def _record_of(run: str, cell: str) -> dict[str, Any]:
    folder = storage.join(run, "fewshot", cell)
    if not storage.exists(storage.join(folder, "details.json")):
        raise UserError(f"--cell {cell}: no such folder in {storage.join(run, 'fewshot')}")
    if not storage.exists(storage.join(folder, PROMPT_FILE)):
        raise UserError(f"--cell {cell}: its method tunes no prompt")
    details: dict[str, Any] = json.loads(storage.read_bytes(storage.join(folder, "details.json")))
    record: dict[str, Any] = details["record"]
    return record
