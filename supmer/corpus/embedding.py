"""Embeddings of units: the masked mean of an encoder's last hidden states (section 1)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from transformers import AutoModel, AutoTokenizer
from transformers.utils import cached_file

from supmer.backbone.batches import batch_tokens, mean_pool, pad, plan_microbatches
from supmer.backbone.hub import only_cached
from supmer.backbone.load import load_backbone
from supmer.backbone.weights import check_finite, check_loaded, read_tensors, weight_files
from supmer.config import BackboneConfig, ClustersConfig
from supmer.corpus.unit import Embeddings, TokenIds
from supmer.errors import one_line, setting_error

MAX_SENTENCE_TOKENS = 256
"""Tokens of a unit that a sentence encoder sees at most."""

UNUSED = ("pooler.", "decoder.")
"""Parts of a sentence encoder that its mean-pooled states do not pass; many a checkpoint lacks them."""


class Encoder:
    """A frozen encoder in evaluation mode, on a GPU if there is one."""

    def __init__(self, model: Any, max_batch_tokens: int) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.to(self.device)
        self.max_batch_tokens = batch_tokens(max_batch_tokens, self.device)

    @classmethod
    def of_backbone(cls, config: BackboneConfig, max_batch_tokens: int) -> Encoder:
        """Load a backbone and take what gives its states: its encoder, or all of a decoder-only model but the head."""
        model = load_backbone(config)
        return cls(model.get_encoder() if model.config.is_encoder_decoder else model.base_model, max_batch_tokens)

    @torch.inference_mode()
    def embed(self, units: Sequence[TokenIds]) -> Embeddings:
        """Return the embeddings [n, d] of n token sequences, float32."""
        embeddings = np.empty((len(units), self.model.config.hidden_size), dtype=np.float32)
        for rows in plan_microbatches([len(unit) for unit in units], 0, self.max_batch_tokens):
            ids, mask = (torch.from_numpy(array).to(self.device) for array in pad([units[row] for row in rows]))
            states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
            embeddings[rows] = mean_pool(states, mask).cpu().numpy()
        return embeddings

    def embed_units(self, units: pa.Table) -> Embeddings:
        """Return the embeddings [n, d] of the `tokens` of n units."""
        column = units["tokens"].combine_chunks()
        return self.embed(np.split(column.values.to_numpy(), column.offsets.to_numpy()[1:-1]) if len(column) else [])


class SentenceEncoder:
    """Another model than the backbone to cluster by: a mean-pooled encoder with its own tokenizer.

    Folders of sentence-transformers are understood as far as that goes: where `modules.json` names a Normalize module,
    embeddings get unit length.

    Raises:
        UserError: the model cannot be loaded, or pools otherwise than by the mean.
    """

    def __init__(self, config: ClustersConfig, max_batch_tokens: int) -> None:
        assert config.embedding_model is not None
        model, self.tokenizer = _load(config)
        check_finite("clusters.embedding_model", config.embedding_model, model.named_parameters())
        check_mean_pooling(config)
        modules = _read_json(config, "modules.json") or []
        self.normalize = any(str(module.get("type", "")).endswith("Normalize") for module in modules)
        encoder = model.get_encoder() if model.config.is_encoder_decoder else model
        self.encoder = Encoder(encoder.requires_grad_(False).eval(), max_batch_tokens)
        self.max_tokens = min(MAX_SENTENCE_TOKENS, getattr(model.config, "max_position_embeddings", MAX_SENTENCE_TOKENS))

    def embed_units(self, units: pa.Table) -> Embeddings:
        """Return the embeddings [n, e] of the `text` of n units; e is this model's width."""
        texts = units["text"].to_pylist()
        tokens = self.tokenizer(texts, truncation=True, max_length=self.max_tokens)["input_ids"] if texts else []
        embeddings = self.encoder.embed([np.array(ids, dtype=np.int32) for ids in tokens])
        return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True) if self.normalize else embeddings


def check_embedding_model(config: ClustersConfig) -> None:
    """Check all of `clusters.embedding_model` that can be checked here without loading it, as `check_backbone` does.

    Raises:
        UserError: configuration, tokenizer, pooling or weights cannot be used.
    """
    if config.embedding_model is None or not Path(config.embedding_model).is_dir():
        return
    _load(config, device_map="meta")
    check_mean_pooling(config)
    tensors = read_tensors(weight_files(Path(config.embedding_model)))
    check_finite("clusters.embedding_model", config.embedding_model, tensors)


def _load(config: ClustersConfig, **options: Any) -> tuple[Any, Any]:
    """Return the model and its tokenizer, which fit each other."""
    name, revision = str(config.embedding_model), config.embedding_revision
    try:
        offline = only_cached(name, revision)
        where = {"revision": revision, "local_files_only": bool(offline)}
        model, info = AutoModel.from_pretrained(
            name,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **where,
            **options,
        )
        tokenizer = AutoTokenizer.from_pretrained(name, **where)
        highest = max(tokenizer.get_vocab().values())
    except Exception as error:  # damaged files can raise anything
        raise setting_error("clusters.embedding_model", name, f"cannot be loaded ({one_line(error)})") from error
    check_loaded("clusters.embedding_model", name, info, UNUSED)
    if highest >= model.get_input_embeddings().num_embeddings:
        problem = f"has token ids up to {highest}, embeddings for {model.get_input_embeddings().num_embeddings} tokens"
        raise setting_error("clusters.embedding_model", name, problem)
    return model, tokenizer


def check_mean_pooling(config: ClustersConfig) -> None:
    """Raise UserError if the sentence encoder says that it pools in another way than by the mean."""
    pooling = _read_json(config, "1_Pooling/config.json") or {}
    others = [name for name, value in pooling.items() if value is True and name.startswith("pooling_mode_")]
    if set(others) - {"pooling_mode_mean_tokens"}:
        raise setting_error("clusters.embedding_model", config.embedding_model, f"must pool by the mean, not by {others}")


def _read_json(config: ClustersConfig, file: str) -> Any:
    """Return a JSON file beside the model, or None if it has no such file."""
    found = cached_file(
        config.embedding_model,
        file,
        revision=config.embedding_revision,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return json.loads(Path(found).read_text()) if found else None
