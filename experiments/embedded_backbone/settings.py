"""The settings of the recipe; `recipe.yaml` holds those of the embedded backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import Field, ValidationError, model_validator
from typing_extensions import Self

from supmer.config.section import Section
from supmer.errors import UserError

Objective = Literal["distill", "span", "cue", "lookup", "exemplar", "pair"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
RECIPE = Path(__file__).with_name("recipe.yaml")


class Recipe(Section):
    """Text, teacher, shape of the student, objectives."""

    teacher: str = Field(description="folder of a BERT-like sentence encoder (mean pooling), or the package of one")
    max_document_characters: int = Field(ge=100, description="of each document, about so much is read")
    max_sentences: int = Field(ge=64, description="sentences that the teacher embeds")
    max_sentence_tokens: int = Field(ge=8, description="longer sentences are cut, for student and teacher")

    vocab_size: int = Field(ge=256, le=64_000, description="SentencePiece pieces, sentinels not counted")
    d_model: int = Field(ge=8)
    d_ff: int = Field(ge=8)
    num_layers: int = Field(ge=1, description="encoder layers")
    num_decoder_layers: int = Field(ge=1)
    num_heads: int = Field(ge=1)

    steps: int = Field(ge=0)
    batch_size: int = Field(ge=1, description="rows a step, of all objectives but distill")
    distill_batch_size: int = Field(ge=2, description="sentences a distillation step")
    sequence_length: int = Field(ge=16, description="tokens a sequence before corruption")
    temperature: float = Field(gt=0, description="of the contrast between the sentences of a distillation batch")
    lookup_steps: int = Field(ge=0, description="first steps, all of them on labels to look up")
    weights: dict[Objective, float] = Field(description="how often each objective is drawn after that")
    rates: list[tuple[int, float]] = Field(description="points (step, Adafactor rate) with straight lines between")
    checkpoint_every: int = Field(ge=1, description="steps between checkpoints and held-out losses")

    @model_validator(mode="after")
    def check_weights(self) -> Self:
        if min(self.weights.values(), default=0) < 0 or not sum(self.weights.values()):
            raise ValueError("weights must be at least 0, one of them more")
        return self


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe.

    Raises:
        UserError: the file cannot be read, or for its first mistake.
    """
    try:
        values: Any = yaml.safe_load(Path(path).read_text())
        return Recipe.model_validate(values)
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"--recipe {path}: not readable as YAML ({' '.join(str(error).split())})") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise UserError(f"--recipe {path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
