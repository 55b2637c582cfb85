"""The frozen backbone: any T5-family sequence-to-sequence model, from a hub name or a local folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging

from supmer.config import BackboneConfig
from supmer.errors import UserError

if TYPE_CHECKING:  # takes seconds to import, and many a process needs the tokenizer only
    from transformers import PreTrainedModel

# Bars of a second's work, one per worker, would run through the progress of a job.
logging.disable_progress_bar()

FIRST_SENTINEL, SECOND_SENTINEL = "<extra_id_0>", "<extra_id_1>"
RANDOM_WEIGHTS_SEED = 0
MAX_COMPILED_VERSIONS = 64
MIN_PIECES = 10
"""Tokens besides special ones that a tokenizer must know to be one."""
TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "spiece.model")


def load_model_config(config: BackboneConfig) -> Any:
    """Return the transformers configuration of the backbone, with the dropout that the settings ask for.

    Raises:
        UserError: the name is neither a folder with a `config.json` nor reachable on the hub, or is not a T5.
    """
    try:
        model_config = AutoConfig.from_pretrained(config.location, revision=config.revision)
    except (OSError, ValueError) as error:
        raise UserError(f"backbone.name={config.name}: neither a local model folder nor a reachable hub model") from error
    if model_config.model_type not in ("t5", "mt5"):
        raise UserError(f"backbone.name={config.name}: must be a T5-family model, this one is {model_config.model_type!r}")
    model_config.dropout_rate = config.dropout
    return model_config


def pin_revision(config: BackboneConfig) -> BackboneConfig:
    """Return the settings with the revisions set to the commits that hub names stand for; those of folders unchanged.

    All processes of a job then load the same weights, also where the hub's branch moves on meanwhile.

    Raises:
        UserError: there is no such model or tokenizer.
    """
    found: dict[str, str | None] = {}
    if not Path(config.location).is_dir():
        load_model_config(config)  # says in one line what is wrong
        found["revision"] = _commit_of(config.name, "config.json", config.revision)
    if config.tokenizer and not Path(config.tokenizer).is_dir():
        load_tokenizer(config)  # so does this
        found["tokenizer_revision"] = _commit_in_cache(config.tokenizer, config.tokenizer_revision)
    return config.model_copy(update=found) if found else config


def _commit_of(name: str, file: str, revision: str | None) -> str:
    path = hf_hub_download(name, file, revision=revision)
    return Path(path).parent.name  # the hub's client keeps a folder for each commit


def _commit_in_cache(name: str, revision: str | None) -> str | None:
    """Return the commit of a tokenizer that was just loaded, by whichever of its files it has; else `revision`."""
    paths = (try_to_load_from_cache(name, file, revision=revision) for file in TOKENIZER_FILES)
    return next((Path(path).parent.name for path in paths if isinstance(path, str)), revision)


def load_backbone(config: BackboneConfig) -> PreTrainedModel:
    """Return the backbone in evaluation mode with all weights frozen.

    `weights=random` initializes from a fixed seed without touching the global random state.

    Raises:
        UserError: the configuration or the weights cannot be read.
    """
    model_config = load_model_config(config)
    dtype = getattr(torch, config.dtype)
    if config.weights == "random":
        with torch.random.fork_rng():
            torch.manual_seed(RANDOM_WEIGHTS_SEED)
            model = AutoModelForSeq2SeqLM.from_config(model_config, dtype=dtype, attn_implementation=config.attention)
    else:
        model = _load_pretrained(config, model_config, dtype)
    return finish_backbone(model, config)


def finish_backbone(model: PreTrainedModel, config: BackboneConfig) -> PreTrainedModel:
    """Freeze a backbone and set what the settings ask of it."""
    if config.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    if config.compile:
        # Block by block: the code of one serves all of its kind, so that starting takes seconds, not minutes. torch counts
        # versions over all blocks, and four kinds of them, with and without gradients, of one row or several, pass its 8.
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MAX_COMPILED_VERSIONS)
        for block in [*model.get_encoder().block, *model.get_decoder().block]:
            block.compile(dynamic=True)
    model.config.use_cache = False
    return model.requires_grad_(False).eval()


def load_tokenizer(config: BackboneConfig) -> PreTrainedTokenizerBase:
    """Return the tokenizer, checked to have the two sentinels that targets are made of.

    Raises:
        UserError: there is no tokenizer, or it has no sentinels.
    """
    source = config.tokenizer or config.location
    revision = config.tokenizer_revision if config.tokenizer else config.revision
    model_config = load_model_config(config)
    try:
        # The model's configuration selects the tokenizer class where the folder holds only `spiece.model`.
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision, config=model_config)
    except (OSError, ValueError) as error:
        raise UserError(f"backbone.tokenizer={source}: no tokenizer found there") from error
    # Where there are no tokenizer files, transformers makes up a tokenizer that knows no word.
    if len(tokenizer.get_vocab().keys() - tokenizer.get_added_vocab().keys()) < MIN_PIECES:
        raise UserError(f"backbone.tokenizer={source}: no tokenizer found there")
    missing = [token for token in (FIRST_SENTINEL, SECOND_SENTINEL) if _token_id(tokenizer, token) is None]
    if missing:
        raise UserError(f"backbone.tokenizer={source}: must have the sentinels <extra_id_0> and <extra_id_1>")
    return tokenizer


def backbone_identity(config: BackboneConfig) -> dict[str, str | None]:
    """Say which backbone this is, so that stores and checkpoints made with another are recognized.

    A local folder, the embedded one too, is identified by the SHA-256 over its configuration, weight and tokenizer files, a
    hub name by the commit that `pin_revision` found.
    """
    identity = {
        "name": config.name,
        "revision": config.revision,
        "weights": config.weights,
        "content": folder_digest(config.location),
        "tokenizer": folder_digest(config.tokenizer) if config.tokenizer else None,
    }
    if config.tokenizer_revision is not None:
        identity["tokenizer_revision"] = config.tokenizer_revision
    return identity


def _load_pretrained(config: BackboneConfig, model_config: Any, dtype: torch.dtype) -> PreTrainedModel:
    try:
        return AutoModelForSeq2SeqLM.from_pretrained(
            config.location,
            config=model_config,
            revision=config.revision,
            dtype=dtype,
            attn_implementation=config.attention,
            use_safetensors=True,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"backbone.name={config.name}: no readable safetensors weights ({error})") from error


def _token_id(tokenizer: PreTrainedTokenizerBase, token: str) -> int | None:
    found = tokenizer.convert_tokens_to_ids(token)
    return None if found is None or found == tokenizer.unk_token_id else int(found)


def folder_digest(name: str) -> str | None:
    """Return the SHA-256 over a model folder's configuration, weight and tokenizer files; None for a hub name."""
    folder = Path(name)
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in (".json", ".safetensors", ".model"):
            digest.update(file.name.encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
