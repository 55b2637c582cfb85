"""The backbone of a configuration, loaded and wrapped by its kind."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from supmer.backbone.load import load_backbone
from supmer.config import Config
from supmer.model.causal import PromptedCausal, check_logits
from supmer.model.prompted import Pooling, PromptedModel
from supmer.model.seq2seq import PromptedSeq2Seq


def build_model(config: Config, centroids: np.ndarray | None = None) -> PromptedModel:
    """Load the backbone of a configuration and wrap it; `centroids` [K, d] come from the task store."""
    tensor = None if centroids is None else torch.from_numpy(np.ascontiguousarray(centroids, dtype=np.float32))
    return wrap(load_backbone(config.backbone), tensor, config.meta.pooling)


def wrap(backbone: PreTrainedModel, centroids: Tensor | None, pooling: Pooling) -> PromptedModel:
    """Return a backbone under soft prompts, as an encoder-decoder or a decoder-only model.

    Raises:
        UserError: the logits of a decoder-only model are not those of its own forward.
    """
    if backbone.config.is_encoder_decoder:
        return PromptedSeq2Seq(backbone, centroids, pooling)
    model = PromptedCausal(backbone, centroids, pooling)
    if backbone.device.type != "meta":
        check_logits(model)
    return model
