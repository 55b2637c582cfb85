"""Weights in a GGUF file: read once by transformers, and kept as an ordinary model folder.

A GGUF file holds quantized weights, its configuration and its tokenizer. Reading it takes about a minute for 135 million
parameters, so the dequantized weights are kept as safetensors in `backbone.cache_dir`, in a folder that is named by the
file's content.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from pathlib import Path

import torch

from supmer.config import BackboneConfig
from supmer.errors import one_line, setting_error

logger = logging.getLogger(__name__)


def unpack(config: BackboneConfig) -> None:
    """Make the folder that `config.location` names, if the backbone is a GGUF file that has not been read yet.

    Several processes may do so at once: each works in a folder of its own, and the first to end gives the result its name.

    Raises:
        UserError: the package `gguf` is not installed, or the file cannot be read.
    """
    file = config.gguf_file
    if file is None or Path(config.location, "config.json").is_file():
        return
    logger.info("reading %s once; its weights are kept in %s", file, config.location)
    folder = Path(config.location)
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    try:
        _convert(config, file, made)
        try:
            os.rename(made, folder)
        except OSError:
            assert (folder / "config.json").is_file(), f"{folder} is no model folder, and in the way"
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _convert(config: BackboneConfig, file: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        import gguf  # noqa: F401 (transformers imports it by itself, and says so in many lines if it is not there)
    except ImportError as error:
        raise setting_error("backbone.name", config.name, "needs the package gguf: pip install 'supmer[gguf]'") from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        read = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    except Exception as error:  # damaged files can raise anything
        raise setting_error("backbone.name", config.name, f"no readable GGUF file ({one_line(error)})") from error
    # A model that was read from GGUF refuses to be saved; one without its mark of quantization does not.
    if hasattr(read.config, "quantization_config"):
        del read.config.quantization_config
    with torch.device("meta"):
        plain = type(read)(read.config)
    plain.load_state_dict(read.state_dict(), assign=True)
    plain.tie_weights()
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # Without the tokens that transformers adds where the file lacks them, such as `<|endoftext|>`: they have no embedding.
    written = folder / "tokenizer.json"
    content = json.loads(written.read_text(encoding="utf-8"))
    content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] < read.config.vocab_size]
    written.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
