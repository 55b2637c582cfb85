"""The frozen backbone, an encoder-decoder or a decoder-only model, from a hub name, a local folder or a GGUF file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.activations import NewGELUActivation
from transformers.utils import logging

from supmer.backbone.gguf import unpack
from supmer.backbone.hub import HubUnreachableError, only_cached
from supmer.backbone.kinds import DROPOUTS, block_names, check_kind, model_class
from supmer.backbone.weights import check_finite, check_loaded, read_tensors, weight_files
from supmer.config import BackboneConfig, Config
from supmer.config.values import with_settings
from supmer.errors import UserError, one_line, setting_error

if TYPE_CHECKING:  # takes seconds to import, and many a process needs the tokenizer only
    from transformers import PreTrainedModel

# Bars of a second's work, one per worker, would run through the progress of a job.
logging.disable_progress_bar()

FIRST_SENTINEL, SECOND_SENTINEL = "<extra_id_0>", "<extra_id_1>"
RANDOM_WEIGHTS_SEED = 0
MAX_COMPILED_VERSIONS = 64
MIN_PIECES = 10
"""Tokens besides special ones that a tokenizer must know to be one."""
LABEL_POSITIONS = 8
"""Positions that a decoder-only model needs behind a row, for the tokens of a label word."""
HEAD, EMBEDDINGS = "lm_head.weight", "shared.weight"
UNREACHABLE = "neither a local model folder nor a reachable hub model"
CONVERT = "AutoModel.from_pretrained(FOLDER).save_pretrained(FOLDER), with the class that config.json names"
TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "spiece.model")


def load_model_config(config: BackboneConfig) -> Any:
    """Return the transformers configuration of the backbone, with the dropout that the settings ask for.

    Raises:
        UserError: the name is neither a folder with a `config.json` nor reachable on the hub, or no usable language model.
    """
    unpack(config)
    offline = _why_offline("backbone.name", config.name, config.location, config.revision)
    if Path(config.location).is_dir() and not Path(config.location, "config.json").is_file():
        is_adapter = Path(config.location, "adapter_config.json").is_file()
        what = "the folder of a PEFT adapter, must be that of a whole model" if is_adapter else "no model folder"
        raise setting_error("backbone.name", config.name, f"{what}, it has no config.json")
    try:
        model_config = AutoConfig.from_pretrained(config.location, revision=config.revision, local_files_only=bool(offline))
    except Exception as error:  # a stranger's JSON can make transformers raise anything
        if not Path(config.location).is_dir():
            raise setting_error("backbone.name", config.name, f"{UNREACHABLE} ({offline or one_line(error)})") from error
        raise setting_error("backbone.name", config.name, f"config.json cannot be used: {one_line(error)}") from error
    check_kind(config.name, model_config)
    for name in DROPOUTS:
        if hasattr(model_config, name):
            setattr(model_config, name, config.dropout)
    return model_config


def is_causal(config: BackboneConfig) -> bool:
    """Return whether the backbone is a decoder-only model, which reads a row to its end and says the label next."""
    return not load_model_config(config).is_encoder_decoder


def pin_revision(config: BackboneConfig) -> BackboneConfig:
    """Return the settings with the revisions set to the commits that hub names stand for; those of folders unchanged.

    All processes of a job then load the same weights, also where the hub's branch moves on meanwhile.

    Raises:
        UserError: there is no such model or tokenizer.
    """
    found: dict[str, str | None] = {}
    if not Path(config.location).is_dir():
        load_model_config(config)  # says in one line what is wrong
        offline = bool(only_cached(config.name, config.revision))
        path = hf_hub_download(config.name, "config.json", revision=config.revision, local_files_only=offline)
        found["revision"] = Path(path).parent.name  # the hub's client keeps a folder for each commit
    if config.tokenizer and not Path(config.tokenizer).is_dir():
        load_tokenizer(config)  # so does this
        name, revision = config.tokenizer, config.tokenizer_revision
        paths = (try_to_load_from_cache(name, file, revision=revision) for file in TOKENIZER_FILES)
        commits = (Path(path).parent.name for path in paths if isinstance(path, str))
        found["tokenizer_revision"] = next(commits, revision)
    return with_settings(config, found) if found else config


def resolve_backbone(config: Config) -> Config:
    """Return `config` with the commits of its backbone and tokenizer pinned; every job begins with this.

    Raises:
        UserError: there is no such model or tokenizer, or the model does not reach as far as the rows are long.
    """
    pinned = pin_revision(config.backbone)
    model_config = load_model_config(pinned)
    limit = getattr(model_config, "max_position_embeddings", None)
    if limit and not model_config.is_encoder_decoder and config.tasks.max_length + LABEL_POSITIONS > limit:
        allowed = f"must be at most {limit - LABEL_POSITIONS}: {config.backbone.name} has {limit} positions"
        raise setting_error("tasks.max_length", config.tasks.max_length, allowed)
    return config if pinned is config.backbone else with_settings(config, {"backbone": pinned})


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
            model = model_class(model_config).from_config(model_config, dtype=dtype, attn_implementation=config.attention)
    else:
        model = _load_pretrained(config, model_config, dtype)
        check_finite("backbone.name", config.name, model.named_parameters())
        head, embeddings = model.get_output_embeddings().weight, model.get_input_embeddings().weight
        if model_config.is_encoder_decoder and head is not embeddings and not torch.equal(head, embeddings):
            _check_own_head(config)
    return finish_backbone(model, config)


def finish_backbone(model: PreTrainedModel, config: BackboneConfig) -> PreTrainedModel:
    """Freeze a backbone and set what the settings ask of it."""
    # transformers writes `gelu_new`, of gated T5s and GPT-2, out as eight operations. PyTorch computes the same function in
    # one: equal to 2e-7, four times as fast on a CPU, and one tensor kept for the backward pass instead of four.
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, torch.nn.GELU(approximate="tanh"))
    if config.gradient_checkpointing:
        enable_checkpointing(model)
    if config.compile:
        # Block by block: the code of one serves all of its kind, so that starting takes seconds, not minutes. torch counts
        # versions over all blocks, and four kinds of them, with and without gradients, of one row or several, pass its 8.
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MAX_COMPILED_VERSIONS)
        names = block_names(model)
        for block in [module for module in model.modules() if type(module).__name__ in names]:
            block.compile(dynamic=True)
    model.config.use_cache = False
    return model.requires_grad_(False).eval()


def enable_checkpointing(model: PreTrainedModel) -> None:
    """Let blocks compute their activations again in the backward pass, in a way that allows a second derivative."""
    # The name of transformers up to 5.17 was another.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def check_backbone(config: BackboneConfig) -> PreTrainedTokenizerBase:
    """Check all of a backbone that can be checked here without loading it, and return its tokenizer.

    Names and shapes of a folder's weights are compared with the configuration, then one tensor at a time is looked through.
    The weights of a hub model are fetched, and checked, by the processes that load them.

    Raises:
        UserError: configuration, tokenizer or weights cannot be used.
    """
    tokenizer = load_tokenizer(config)
    folder = Path(config.location)
    if config.weights == "pretrained" and folder.is_dir():
        check_checkpoint(config)
        heads = []
        with _readable_weights(config):
            for key, tensor in read_tensors(weight_files(folder)):
                check_finite("backbone.name", config.name, [(key, tensor)])
                if key in (HEAD, EMBEDDINGS):
                    heads.append(tensor)
        if len(heads) == 2 and not torch.equal(*heads):
            _check_own_head(config)
    return tokenizer


def load_tokenizer(config: BackboneConfig) -> PreTrainedTokenizerBase:
    """Return the tokenizer: a fast one whose tokens all have an embedding, with the two sentinels for an encoder-decoder.

    Raises:
        UserError: there is no such tokenizer.
    """
    source = config.tokenizer or config.location
    revision = config.tokenizer_revision if config.tokenizer else config.revision
    model_config = load_model_config(config)
    offline = _why_offline("backbone.tokenizer", source, source, revision)
    try:
        # The model's configuration selects the tokenizer class where the folder holds only `spiece.model`.
        tokenizer = AutoTokenizer.from_pretrained(
            source, revision=revision, config=model_config, local_files_only=bool(offline)
        )
        pieces = tokenizer.get_vocab().keys() - tokenizer.get_added_vocab().keys()
    except Exception as error:  # a stranger's JSON can make transformers raise anything
        reason = offline or f"{type(error).__name__}: {one_line(error)}"
        raise setting_error("backbone.tokenizer", source, f"no tokenizer that can be read ({reason})") from error
    # Where there are no tokenizer files, transformers makes up a tokenizer that knows no word.
    if len(pieces) < MIN_PIECES and tokenizer.is_fast:
        raise setting_error("backbone.tokenizer", source, "no tokenizer found there")
    if not tokenizer.is_fast:
        problem = f"{type(tokenizer).__name__} has no fast version, which knows where in a text its tokens end"
        raise setting_error("backbone.tokenizer", source, problem)
    sentinels = (FIRST_SENTINEL, SECOND_SENTINEL) if model_config.is_encoder_decoder else ()
    if any(tokenizer.convert_tokens_to_ids(token) in (None, tokenizer.unk_token_id) for token in sentinels):
        raise setting_error("backbone.tokenizer", source, f"must have the sentinels {FIRST_SENTINEL} and {SECOND_SENTINEL}")
    highest = max(tokenizer.get_vocab().values())
    if highest >= model_config.vocab_size:
        problem = f"has token ids up to {highest}, backbone.name={config.name} only {model_config.vocab_size} embeddings"
        raise setting_error("backbone.tokenizer", source, problem)
    return tokenizer


def check_checkpoint(config: BackboneConfig) -> None:
    """Compare the names and shapes of a checkpoint's tensors with the configuration; no weights are read.

    Raises:
        UserError: the checkpoint is not one of this architecture.
    """
    _load_pretrained(config, load_model_config(config), torch.float32, device_map="meta")


def _load_pretrained(config: BackboneConfig, model_config: Any, dtype: torch.dtype, **options: Any) -> PreTrainedModel:
    with _readable_weights(config):
        model, info = model_class(model_config).from_pretrained(
            config.location,
            config=model_config,
            revision=config.revision,
            dtype=dtype,
            attn_implementation=config.attention,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that all of them are listed
            **options,
        )
    check_loaded("backbone.name", config.name, info)
    if not model_config.is_encoder_decoder:
        return model  # transformers ties heads as config.json says; a T5's configuration forgets what it said
    is_tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    if is_tied and _written_config(config).get("tie_word_embeddings") is False:
        raise setting_error("backbone.name", config.name, f"the weights lack tensors of this architecture: {HEAD}")
    return model


@contextmanager
def _readable_weights(config: BackboneConfig) -> Iterator[None]:
    """Turn what goes wrong when weights are read into one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # damaged files can raise anything
        pickled = sorted(file.name for file in Path(config.location).glob("*.bin"))
        if pickled and not any(Path(config.location).glob("*.safetensors")):
            problem = f"only pickled weights ({pickled[0]}), which can hide code; save them as safetensors: {CONVERT}"
            raise setting_error("backbone.name", config.name, problem) from error
        raise setting_error("backbone.name", config.name, f"no readable safetensors weights ({one_line(error)})") from error


def _check_own_head(config: BackboneConfig) -> None:
    """A head beside embeddings that the configuration ties to it (and scales for) would give other numbers than either."""
    written = _written_config(config)
    if written.get("tie_word_embeddings") is not False and written.get("scale_decoder_outputs") is not False:
        problem = f"the weights have an output head of their own ({HEAD}), but config.json ties it to the embeddings"
        raise setting_error("backbone.name", config.name, f'{problem}; write "tie_word_embeddings": false there')


def _written_config(config: BackboneConfig) -> dict[str, Any]:
    """Return `config.json` as written: transformers sets `tie_word_embeddings` of any T5 to true."""
    offline = bool(only_cached(config.location, config.revision))
    written, _ = PreTrainedConfig.get_config_dict(config.location, revision=config.revision, local_files_only=offline)
    return dict(written)


def _why_offline(setting: str, name: str, location: str, revision: str | None) -> str | None:
    try:
        return only_cached(location, revision)
    except HubUnreachableError as error:
        raise setting_error(setting, name, f"{UNREACHABLE} ({error})") from error
