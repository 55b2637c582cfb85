"""Embeddings of units: the masked mean of the backbone encoder's last hidden states (section 1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from supmer.backbone.load import load_backbone
from supmer.config import BackboneConfig
from supmer.corpus.unit import TokenIds

Embeddings = npt.NDArray[np.float32]


class Encoder:
    """The frozen encoder of a backbone, in evaluation mode, on a GPU if there is one."""

    def __init__(self, config: BackboneConfig, max_batch_tokens: int) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = load_backbone(config).get_encoder().to(self.device)
        self.max_batch_tokens = max_batch_tokens

    @torch.inference_mode()
    def embed(self, units: Sequence[TokenIds]) -> Embeddings:
        """Return the embeddings [n, d] of n token sequences, float32."""
        embeddings = np.empty((len(units), self.model.config.d_model), dtype=np.float32)
        lengths = np.array([len(unit) for unit in units], dtype=np.int64)
        for rows in length_batches(lengths, self.max_batch_tokens):
            embeddings[rows] = self._embed_batch([units[row] for row in rows], lengths[rows])
        return embeddings

    def _embed_batch(self, units: Sequence[TokenIds], lengths: npt.NDArray[np.int64]) -> Embeddings:
        ids = np.zeros((len(units), int(lengths.max())), dtype=np.int64)
        for row, unit in enumerate(units):
            ids[row, : len(unit)] = unit
        mask = torch.from_numpy(np.arange(ids.shape[1]) < lengths[:, None]).to(self.device)
        states = self.model(input_ids=torch.from_numpy(ids).to(self.device), attention_mask=mask.long()).last_hidden_state
        sums = (states.float() * mask[:, :, None]).sum(dim=1)
        means: Embeddings = (sums / mask.sum(dim=1, keepdim=True)).cpu().numpy()
        return means


def length_batches(lengths: npt.NDArray[np.int64], max_tokens: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield row indices in batches of similar length, each of at most `max_tokens` padded tokens (or one row)."""
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = max(int(lengths[order[start]]), 1)
        size = max(max_tokens // longest, 1)
        yield order[start : start + size]
        start += size
