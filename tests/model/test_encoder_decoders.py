"""Encoder-decoders besides T5 under soft prompts, against plain transformers calls; those that cannot be used say why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from factories import random_example
from transformers import AutoModelForSeq2SeqLM, BartConfig, LongT5Config, PreTrainedConfig, UMT5Config

from supmer.backbone.load import load_model_config
from supmer.config import BackboneConfig
from supmer.errors import UserError
from supmer.model.build import wrap
from supmer.model.rows import collate

SIZES = {
    "vocab_size": 96,
    "d_model": 16,
    "d_kv": 4,
    "d_ff": 24,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
FAMILIES: dict[str, PreTrainedConfig] = {
    "umt5": UMT5Config(**SIZES),
    "longt5": LongT5Config(**SIZES, local_radius=3),
}


@pytest.mark.parametrize("family", ["umt5", "longt5"])
def test_logits_equal_a_plain_call_row_by_row(family: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        backbone = AutoModelForSeq2SeqLM.from_config(FAMILIES[family]).requires_grad_(False).eval()
    model, centroids = wrap(backbone, None, "masked"), torch.randn(8, 16)
    model.set_centroids(centroids)
    prompts, rng = torch.randn(2, 4, 16), np.random.default_rng(0)
    rows, tasks = [random_example(rng) for _ in range(5)], [0, 1, 1, 0, 1]
    output = model(prompts, collate(rows, tasks))
    for index, row in enumerate(rows):
        vectors = backbone.get_input_embeddings()(torch.as_tensor(row.input_ids, dtype=torch.long))
        for place, cluster in enumerate(row.centroid_ids.tolist()):
            if cluster >= 0:
                vectors[place] = centroids[cluster]
        inputs = torch.cat([prompts[tasks[index]], vectors])[None]
        given = torch.tensor([[0, *row.target_ids[:-1].tolist()]])
        plain = backbone(inputs_embeds=inputs, decoder_input_ids=given).logits
        torch.testing.assert_close(output.logits[index], plain[0], rtol=1e-4, atol=1e-4)
        assert output.hidden_count[index] == inputs.shape[1]


def test_an_encoder_decoder_without_sentinels_says_so(tmp_path: Path) -> None:
    BartConfig(d_model=8, encoder_layers=1, decoder_layers=1).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"'bart' \(which has no sentinels to ask for a label by\)$"):
        load_model_config(BackboneConfig(name=str(tmp_path)))
