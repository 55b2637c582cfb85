"""Embeddings of units: the masked mean of an encoder's last hidden states (section 1)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from transformers import AutoModel, AutoTokenizer
from transformers.utils import cached_file

from supmer.backbone.load import load_backbone
from supmer.config import BackboneConfig, ClustersConfig
from supmer.corpus.unit import Embeddings, TokenIds
from supmer.errors import UserError

MAX_SENTENCE_TOKENS = 256
"""Tokens of a unit that a sentence encoder sees at most."""


class Encoder:
    """A frozen encoder in evaluation mode, on a GPU if there is one."""

    def __init__(self, model: Any, max_batch_tokens: int) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.to(self.device)
        self.max_batch_tokens = max_batch_tokens

    @classmethod
    def of_backbone(cls, config: BackboneConfig, max_batch_tokens: int) -> Encoder:
        """Load the encoder of a backbone."""
        return cls(load_backbone(config).get_encoder(), max_batch_tokens)

    @torch.inference_mode()
    def embed(self, units: Sequence[TokenIds]) -> Embeddings:
        """Return the embeddings [n, d] of n token sequences, float32."""
        embeddings = np.empty((len(units), self.model.config.hidden_size), dtype=np.float32)
        lengths = np.array([len(unit) for unit in units], dtype=np.int64)
        for rows in length_batches(lengths, self.max_batch_tokens):
            embeddings[rows] = self._embed_batch([units[row] for row in rows], lengths[rows])
        return embeddings

    def embed_units(self, units: pa.Table) -> Embeddings:
        """Return the embeddings [n, d] of the `tokens` of n units."""
        column = units["tokens"].combine_chunks()
        return self.embed(np.split(column.values.to_numpy(), column.offsets.to_numpy()[1:-1]) if len(column) else [])

    def _embed_batch(self, units: Sequence[TokenIds], lengths: npt.NDArray[np.int64]) -> Embeddings:
        ids = np.zeros((len(units), int(lengths.max())), dtype=np.int64)
        for row, unit in enumerate(units):
            ids[row, : len(unit)] = unit
        mask = torch.from_numpy(np.arange(ids.shape[1]) < lengths[:, None]).to(self.device)
        states = self.model(input_ids=torch.from_numpy(ids).to(self.device), attention_mask=mask.long()).last_hidden_state
        sums = (states.float() * mask[:, :, None]).sum(dim=1)
        means: Embeddings = (sums / mask.sum(dim=1, keepdim=True)).cpu().numpy()
        return means


class SentenceEncoder:
    """Another model than the backbone to cluster by: a mean-pooled encoder with its own tokenizer.

    Folders of sentence-transformers are understood as far as that goes: where `modules.json` names a Normalize module,
    embeddings get unit length.

    Raises:
        UserError: the model cannot be loaded, or pools otherwise than by the mean.
    """

    def __init__(self, config: ClustersConfig, max_batch_tokens: int) -> None:
        assert config.embedding_model is not None
        name, revision = config.embedding_model, config.embedding_revision
        try:
            model = AutoModel.from_pretrained(name, revision=revision, use_safetensors=True, dtype=torch.float32)
            self.tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:150]
            raise UserError(f"clusters.embedding_model={name}: cannot be loaded ({reason})") from error
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


def check_mean_pooling(config: ClustersConfig) -> None:
    """Raise UserError if the sentence encoder says that it pools in another way than by the mean."""
    pooling = _read_json(config, "1_Pooling/config.json") or {}
    others = [name for name, value in pooling.items() if value is True and name.startswith("pooling_mode_")]
    if set(others) - {"pooling_mode_mean_tokens"}:
        raise UserError(f"clusters.embedding_model={config.embedding_model}: must pool by the mean, not by {others}")


def length_batches(lengths: npt.NDArray[np.int64], max_tokens: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield row indices in batches of similar length, each of at most `max_tokens` padded tokens (or one row)."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = max(int(lengths[order[start]]), 1)
        size = max(max_tokens // longest, 1)
        yield order[start : start + size]
        start += size


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
