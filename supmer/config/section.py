"""The base of all sections of settings, and how a setting is declared."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

Effect = Literal["units", "embeddings", "clusters", "training", "tuning", "speed"]
"""What a setting enters directly, in the order in which things are made.

`units`: how text is read and cut. `embeddings`: how units are embedded. `clusters`: how they are clustered.
`training`: meta-training, and which trainings a sweep makes. `tuning`: a few-shot cell. `speed`: place, speed, amount and
display; nothing that is computed depends on it, but for the last bits of sums that are taken in another order.
"""


class Section(BaseModel):
    """Base of all sections: immutable, unknown keys refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, coerce_numbers_to_str=True
    )


def setting(
    default: Any, affects: Effect | tuple[Effect, ...], description: str, *, source: bool = False, **bounds: Any
) -> Any:
    """Declare a setting of a section.

    Args:
        default: its default.
        affects: what it enters directly; `supmer.config.effects` derives all fingerprints from this.
        description: for `--help`.
        source: it names data (files, a model, the cells of a table) which fingerprints describe by the content.
        bounds: range and length as pydantic's `Field` takes them.
    """
    effects: list[JsonValue] = [affects] if isinstance(affects, str) else [*affects]
    return Field(default, description=description, json_schema_extra={"affects": effects, "source": source}, **bounds)
