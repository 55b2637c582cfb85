"""PEFT prompt-tuning adapters: a prompt written as one, with a model card, and one read as a prompt."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import yaml
from jinja2 import Template
from peft import PromptTuningConfig, TaskType
from safetensors.torch import save as save_safetensors
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from supmer import storage
from supmer.backbone.load import FIRST_SENTINEL, is_causal, load_model_config, load_tokenizer, pin_revision
from supmer.backbone.pieces import following
from supmer.config import BackboneConfig, Config
from supmer.config.load import validate
from supmer.config.scalars import parse_yaml
from supmer.errors import UserError
from supmer.fewshot.definition import DEFINITION_FILE, PromptDefinition, read_definition
from supmer.fewshot.labels import LabelWords
from supmer.fewshot.places import local_place
from supmer.fewshot.starting_points import (
    ADAPTER_CONFIG,
    ADAPTER_FILE,
    ADAPTER_TENSOR,
    PROMPT_FILE,
    PROMPT_TENSOR,
    check_adapter,
    read_prompt,
)
from supmer.fewshot.summaries import metrics_of
from supmer.fewshot.task import SLOT

CARD_FILE = "README.md"
CARD = Path(__file__).with_name("model_card.md")

PATTERN, WORDS = f"{{text}} It was {SLOT} ?", ("terrible", "great")
"""Pattern and label words of an example for a prompt that is not tuned to a task yet."""


class Source(NamedTuple):
    """What a prompt belongs to: its backbone, the run's settings, the record and definition of its few-shot cell, if any."""

    backbone: BackboneConfig
    tokenizer: PreTrainedTokenizerBase
    settings: Config | None
    cell: dict[str, Any] | None
    definition: PromptDefinition | None


def export_peft(run: str, out: str, cell: str | None = None, base_model: str | None = None) -> None:
    """Write the adapter of a run's prompt and the tokenizer into `out`; weights of the backbone are not needed.

    `cell` names a few-shot cell, whose tuned prompt is taken instead of the meta-trained one. `base_model` is the name that
    the adapter gives for its backbone; default: the run's own.

    Raises:
        UserError: the run or the cell is not there, or does not say which backbone it is for.
    """
    source = _source(run, cell, base_model)
    prompt = read_prompt(run if cell is None else storage.join(run, "fewshot", cell), "--run")
    name, model_config = source.backbone.name, load_model_config(source.backbone)
    if prompt.shape[1] != model_config.hidden_size:
        raise UserError(f"--run {run}: its prompt has width {prompt.shape[1]}, {name} has {model_config.hidden_size}")
    adapter = PromptTuningConfig(
        task_type=TaskType.SEQ_2_SEQ_LM if model_config.is_encoder_decoder else TaskType.CAUSAL_LM,
        inference_mode=True,
        base_model_name_or_path=source.backbone.location,
        revision=source.backbone.revision,
        num_virtual_tokens=prompt.shape[0],
        token_dim=prompt.shape[1],
        num_transformer_submodules=1,  # PEFT's default of 2 would prompt the decoder too
        num_attention_heads=model_config.num_attention_heads,
        num_layers=model_config.num_hidden_layers,
    )
    with TemporaryDirectory() as folder:
        source.tokenizer.save_pretrained(folder)
        files = {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}
    files |= {
        ADAPTER_FILE: save_safetensors({ADAPTER_TENSOR: prompt.contiguous()}, metadata={"format": "pt"}),
        ADAPTER_CONFIG: json.dumps(adapter.to_dict(), indent=2, sort_keys=True).encode(),
        CARD_FILE: model_card(prompt, source).encode(),
    }
    if source.definition is not None:  # by which Predictor and `supmer serve` use the adapter, as the cell itself
        files[DEFINITION_FILE] = source.definition.model_dump_json(indent=2).encode()
    for file, data in files.items():
        storage.write_bytes(storage.join(out, file), data)


def _source(run: str, cell: str | None, base_model: str | None) -> Source:
    """Look up what a prompt belongs to; a cell says itself, for the run's settings may be those of another job."""
    settings = record = definition = None
    if storage.exists(own := storage.join(run, "config.yaml")):
        try:
            settings = validate(parse_yaml(storage.read_bytes(own)))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"--run {run}: config.yaml is not readable as YAML") from error
    if cell is not None:
        folder = storage.join(run, "fewshot", cell)
        if not storage.exists(details := storage.join(folder, "details.json")):
            raise UserError(f"--cell {cell}: no such folder in {storage.join(run, 'fewshot')}")
        if not storage.exists(storage.join(folder, PROMPT_FILE)):
            raise UserError(f"--cell {cell}: its method tunes no prompt")
        record = json.loads(storage.read_bytes(details))["record"]
        if storage.exists(storage.join(folder, DEFINITION_FILE)):
            definition = read_definition(folder)
    backbone = definition.backbone if definition else settings.backbone if settings else None
    if base_model is not None:
        named = {"name": base_model, "revision": None, "weights": "pretrained"}
        backbone = (backbone or BackboneConfig()).model_copy(update=named)
    if backbone is None:
        raise UserError(f"--run {run}: has no config.yaml that names the backbone; give --base-model")
    if backbone.weights == "random":
        raise UserError(f"--run {run}: has backbone.weights=random, which no other tool can load; give --base-model")
    backbone = pin_revision(backbone)
    return Source(backbone, load_tokenizer(backbone), settings, record, definition)


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
    """Return the model card: what the prompt is, how it was made, and code that uses it.

    The code scores label words as `supmer.fewshot.scoring` does, with transformers and peft alone.
    """
    name, causal, cell = source.backbone.location, is_causal(source.backbone), source.cell
    front: dict[str, Any] = {"library_name": "peft", "base_model": name, "tags": ["prompt-tuning", "supmer"]}
    if cell is None:
        origin = "meta-trained on self-supervised tasks (SUPMER, Pan et al. 2023) as the start of few-shot tuning"
        words, text = {word: following(source.tokenizer, word).tolist() for word in WORDS}, PATTERN
    else:
        origin = (
            f"tuned on {cell['k']} rows a class of {cell['task']} by {cell['method']} (data seed {cell['seed']}); "
            f"{cell['metric']} on {cell['num_test']} test rows: {cell['score']:.4f}"
        )
        measures = {  # as the hub reads them
            "task": {"type": "text-classification"},
            "dataset": {"name": f"{cell['task']}, {cell['num_test']} test rows", "type": cell["task"], "split": "test"},
            "metrics": [
                {"type": "f1" if metric == "macro_f1" else metric, "name": metric, "value": value}
                for metric, value in metrics_of(cell).items()
            ],
        }
        model = f"{cell['task']} by {cell['method']}, {cell['k']} rows a class"
        front["model-index"] = [{"name": model, "results": [measures]}]
        said = source.definition.task.answers if source.definition else None
        labels = LabelWords(said or cell["label_words"], source.tokenizer, cell["task"], causal=causal)
        scored = (labels.scored_target(label)[labels.first_position :].tolist() for label in range(len(cell["label_words"])))
        words, text = dict(zip(cell["label_words"], scored, strict=True)), cell["pattern_text"]
    most, settings = source.definition.max_input_tokens if source.definition else None, ""
    if source.settings is not None:
        chosen = source.settings.model_dump(mode="json", include={"backbone", "prompt", "regularizer", "meta", "curriculum"})
        settings = yaml.safe_dump(chosen, sort_keys=False)
    template = Template(CARD.read_text(encoding="utf-8"), trim_blocks=True, keep_trailing_newline=True)
    card: str = template.render(
        front=yaml.safe_dump(front, sort_keys=False),
        name=name,
        length=prompt.shape[0],
        width=prompt.shape[1],
        origin=origin,
        model_class="AutoModelForCausalLM" if causal else "AutoModelForSeq2SeqLM",
        revision=f", revision={source.backbone.revision!r}" if source.backbone.revision else "",
        dtype=source.backbone.dtype,
        words=words,
        causal=causal,
        sentinel=FIRST_SENTINEL,
        text=text.partition(f" {SLOT}")[0] if causal else text.replace(SLOT, FIRST_SENTINEL),
        cut=f"; fields were cut so that a row has at most {most} tokens" if most else "",
        settings=settings,
    )
    return card


def import_peft(adapter: str, out: str) -> str:
    """Write the prompt of an adapter into `out`, ready for `fewshot.from_run`, and return a line that says what was read.

    The adapter may be a folder, `hf://user/repo`, or a hub cache's folder. Those exported from a cell have a
    `definition.json`, which is written too.

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
