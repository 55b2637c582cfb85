"""Writing a prompt as a PEFT prompt-tuning adapter with a model card."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
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
from supmer.fewshot.starting_points import ADAPTER_CONFIG, ADAPTER_FILE, ADAPTER_TENSOR, PROMPT_FILE, read_prompt
from supmer.fewshot.summaries import metrics_of
from supmer.fewshot.task import SLOT

CARD_FILE = "README.md"

PATTERN, WORDS = f"{{text}} It was {SLOT} ?", ("terrible", "great")
"""Pattern and label words of an example for a prompt that is not tuned to a task yet."""

EXAMPLE = """\
import torch
from peft import PeftModel
from transformers import {model_class}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("this/folder")
model = {model_class}.from_pretrained({name!r}{revision}, dtype=torch.{dtype})
model = PeftModel.from_pretrained(model, "this/folder").eval()
words = {words!r}  # the label words, each with the tokens that it is scored by


@torch.inference_mode()
def score(text, tokens):
{logits}
    return logits.log_softmax(dim=-1)[range(len(tokens)), tokens].sum()


def predict(text):
    return max(words, key=lambda word: score(text, words[word]))


print(predict({text!r}))  # fill in the {{fields}}
"""
SEQ2SEQ_LOGITS = f"""\
    row = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    said = [model.config.decoder_start_token_id, tokenizer.convert_tokens_to_ids({FIRST_SENTINEL!r}), *tokens[:-1]]
    logits = model(**row, decoder_input_ids=torch.tensor([said])).logits[0, 1:]"""
CAUSAL_LOGITS = """\
    row = tokenizer(text)["input_ids"]
    logits = model(input_ids=torch.tensor([row + tokens])).logits[0, -len(tokens) - 1 : -1]"""

CONTINUE = """\
from peft import PeftConfig, get_peft_model, load_peft_weights, set_peft_model_state_dict

config = PeftConfig.from_pretrained("this/folder")
config.inference_mode = False
model = get_peft_model(backbone, config)
set_peft_model_state_dict(model, load_peft_weights("this/folder", device="cpu"))
"""


@dataclass(frozen=True)
class Source:
    """Where an adapter's prompt comes from.

    Attributes:
        backbone: the model that the prompt stands before.
        tokenizer: its tokenizer, or the one of `backbone.tokenizer`.
        settings: of the run; None where it has none.
        cell: the record of a few-shot cell; None for the meta-trained prompt.
        definition: what that cell's prompt is used with.
    """

    backbone: BackboneConfig
    tokenizer: PreTrainedTokenizerBase
    settings: Config | None
    cell: dict[str, Any] | None
    definition: PromptDefinition | None


def export_peft(run: str, out: str, cell: str | None = None, base_model: str | None = None) -> None:
    """Write the adapter of a run's prompt and the tokenizer into `out`; weights of the backbone are not needed.

    Args:
        run: run directory.
        out: folder to write.
        cell: name of a few-shot cell, whose tuned prompt is taken instead of the meta-trained one.
        base_model: name that the adapter gives for its backbone; default: the run's own.

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
    """Return the model card: what the prompt is, how it was made, and ten lines that use it."""
    name = source.backbone.location
    front: dict[str, Any] = {"library_name": "peft", "base_model": name, "tags": ["prompt-tuning", "supmer"]}
    length, width = prompt.shape
    origin = "meta-trained on self-supervised tasks (SUPMER, Pan et al. 2023) as the start of few-shot tuning"
    if cell := source.cell:
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
    most = source.definition.max_input_tokens if source.definition else None
    cut = f"; fields were cut so that a row has at most {most} tokens" if most else ""
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n",
        f"# Soft prompt for {name}\n",
        f"A prompt of {length} x {width} numbers for the frozen backbone, {origin}.\n",
        "## Use\n",
        f"```python\n{_example(source)}```\n",
        f"Inputs are read without an end-of-sequence token{cut}.\n",
        "To go on with PEFT's own prompt tuning from this prompt:\n",
        f"```python\n{CONTINUE}```\n",
    ]
    if source.settings is not None:
        chosen = source.settings.model_dump(mode="json", include={"backbone", "prompt", "regularizer", "meta", "curriculum"})
        parts.append(f"## Settings of the run\n\n```yaml\n{yaml.safe_dump(chosen, sort_keys=False)}```\n")
    return "\n".join(parts)


def _example(source: Source) -> str:
    """Return code that scores label words as `supmer.fewshot.scoring` does, with transformers and peft alone."""
    cell, causal = source.cell, is_causal(source.backbone)
    if cell is None:
        words = {word: following(source.tokenizer, word).tolist() for word in WORDS}
    else:
        said = source.definition.task.answers if source.definition else None
        labels = LabelWords(said or cell["label_words"], source.tokenizer, cell["task"], causal=causal)
        scored = (labels.scored_target(label)[labels.first_position :].tolist() for label in range(len(cell["label_words"])))
        words = dict(zip(cell["label_words"], scored, strict=True))
    text = cell["pattern_text"] if cell else PATTERN
    return EXAMPLE.format(
        model_class="AutoModelForCausalLM" if causal else "AutoModelForSeq2SeqLM",
        name=source.backbone.location,
        revision=f", revision={source.backbone.revision!r}" if source.backbone.revision else "",
        dtype=source.backbone.dtype,
        words=words,
        logits=CAUSAL_LOGITS if causal else SEQ2SEQ_LOGITS,
        text=text.partition(f" {SLOT}")[0] if causal else text.replace(SLOT, FIRST_SENTINEL),
    )
