"""Embeddings against one unit at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizerFast

from supmer.backbone.load import load_backbone
from supmer.config import BackboneConfig, ClustersConfig
from supmer.corpus.embedding import Encoder, SentenceEncoder
from supmer.errors import UserError


def test_batches_give_what_single_units_give(backbone: Path) -> None:
    config = BackboneConfig(name=str(backbone))
    rng = np.random.default_rng(0)
    units = [rng.integers(3, 100, size, dtype=np.int32) for size in rng.integers(1, 40, 50)]
    embeddings = Encoder.of_backbone(config, max_batch_tokens=200).embed(units)
    encoder = load_backbone(config).get_encoder()
    for unit, embedding in zip(units, embeddings, strict=True):
        with torch.no_grad():
            states = encoder(input_ids=torch.from_numpy(unit).long()[None]).last_hidden_state[0]
        np.testing.assert_allclose(embedding, states.mean(dim=0).numpy(), rtol=1e-5, atol=1e-6)
    assert embeddings.dtype == np.float32
    assert Encoder.of_backbone(config, 64).embed([]).shape == (0, embeddings.shape[1])


@pytest.fixture
def sentence_model(tmp_path: Path) -> Path:
    """A tiny BERT as sentence-transformers saves it."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "river", "stone", "."]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        BertModel(BertConfig(vocab_size=len(words), **shape)).save_pretrained(tmp_path)
    (tmp_path / "modules.json").write_text('[{"type": "models.Transformer"}, {"type": "models.Normalize"}]')
    return tmp_path


def test_a_sentence_encoder_pools_its_own_tokens(sentence_model: Path) -> None:
    texts = ["A river.", "A stone a river a stone.", "a"]
    encoder = SentenceEncoder(ClustersConfig(embedding_model=str(sentence_model)), 64)
    found = encoder.embed_units(pa.table({"text": texts}))
    model, tokenizer = BertModel.from_pretrained(sentence_model).eval(), BertTokenizerFast.from_pretrained(sentence_model)
    for text, embedding in zip(texts, found, strict=True):
        with torch.no_grad():
            mean = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0)
        np.testing.assert_allclose(embedding, (mean / mean.norm()).numpy(), rtol=1e-4, atol=1e-6)
    assert encoder.embed_units(pa.table({"text": pa.array([], pa.string())})).shape == (0, 12)


def test_other_sentence_encoders_are_refused(sentence_model: Path, tmp_path: Path) -> None:
    (sentence_model / "1_Pooling").mkdir()
    (sentence_model / "1_Pooling" / "config.json").write_text(
        '{"pooling_mode_mean_tokens": false, "pooling_mode_cls_token": true}'
    )
    with pytest.raises(UserError, match=r"must pool by the mean, not by \['pooling_mode_cls_token'\]"):
        SentenceEncoder(ClustersConfig(embedding_model=str(sentence_model)), 64)
    with pytest.raises(UserError, match=r"clusters.embedding_model=.*nothing: cannot be loaded"):
        SentenceEncoder(ClustersConfig(embedding_model=str(tmp_path / "nothing")), 64)
