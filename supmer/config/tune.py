"""The settings of sweeps: what is searched, how, and by which objective."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, ValidationInfo, field_validator, model_serializer, model_validator
from typing_extensions import Self

from supmer.config.section import Section, setting

KINDS = ("choice", "uniform", "loguniform", "integer", "cases")
"""What a dimension can be; each has exactly one of them."""

PBT_REFUSAL = (
    "must be none, asha or median. Population-based training is not offered: its result is a schedule of settings that "
    "changes while a run goes on, which no one configuration repeats, and the checkpoints here are bound to the settings "
    "they were made with"
)


class Dimension(Section):
    """One dimension of a search space: what values a setting may take, and when it is searched at all."""

    choice: list[Any] | None = Field(None, min_length=1, description="one of these values")
    uniform: tuple[float, float] | None = Field(None, description="a number between these two")
    loguniform: tuple[float, float] | None = Field(None, description="the same, even on a logarithmic scale")
    integer: tuple[int, int] | None = Field(None, description="a whole number between these two, both included")
    log: bool = Field(False, description="integer: even on a logarithmic scale")
    cases: dict[str, dict[str, Any]] | None = Field(
        None, min_length=1, description="names of groups of settings, each set together"
    )
    when: dict[str, Any] = Field(default_factory=dict, description="only where these settings have these values")

    @model_validator(mode="before")
    @classmethod
    def is_described(cls, value: object) -> object:
        if isinstance(value, dict):
            return value
        raise ValueError(f"must have exactly one of {', '.join(KINDS)}, for example {{choice: [1, 2]}}")

    @field_validator("uniform", "loguniform", "integer", mode="before")
    @classmethod
    def is_pair(cls, value: object) -> object:
        if value is not None and not (isinstance(value, (list, tuple)) and len(value) == 2):
            raise ValueError("must be [low, high]")
        return value

    @field_validator("uniform", "loguniform", "integer")
    @classmethod
    def is_ordered(cls, value: tuple[float, float] | None, info: ValidationInfo) -> tuple[float, float] | None:
        if value is not None and value[0] >= value[1]:
            raise ValueError("must be [low, high] with low less than high")
        if value is not None and info.field_name == "loguniform" and value[0] <= 0:
            raise ValueError("must begin above 0, a logarithmic scale has no 0")
        return value

    @model_validator(mode="after")
    def has_one_kind(self) -> Self:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"must have exactly one of {', '.join(KINDS)}, has {', '.join(given) or 'none'}")
        if self.log and (self.integer is None or self.integer[0] < 1):
            raise ValueError("log must go with integer: [low, high] and a low of at least 1")
        return self

    @model_serializer(mode="wrap")
    def without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what was not given, so that a printed space reads as it was written."""
        return {name: value for name, value in handler(self).items() if value not in (None, False, {})}

    @property
    def kind(self) -> str:
        """The one of KINDS that this dimension is."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def span(self) -> tuple[float, float] | None:
        """The ends of a range, None for a list."""
        return self.uniform or self.loguniform or self.integer


class TuneConfig(Section):
    """Sweeps: search over the settings of meta-training."""

    space: dict[str, Dimension] = setting(
        {}, "training", "setting: {choice|uniform|loguniform|integer: ..., when: {setting: value}}, or name: {cases: ...}"
    )
    searcher: Literal["random", "grid", "tpe"] = setting("tpe", "training", "how settings are proposed; tpe is Optuna's")
    scheduler: Literal["none", "asha", "median"] = setting("asha", "training", "how poor trials are stopped early")
    objectives: list[str] = setting(
        ["validation_query_loss"],
        "training",
        "validation_query_loss, validation_query_loss_<kind>, fewshot_dev_score; several: a Pareto front",
        min_length=1,
    )
    num_trials: int | None = setting(16, "speed", "trials in all; null: the whole grid", ge=1)
    grace_steps: int | None = setting(None, "training", "meta-steps no trial is stopped before; default: first rung", ge=1)
    reduction_factor: float = setting(
        3, "training", "asha: one of so many trials passes a rung, rungs lie as far apart", gt=1
    )
    seed: int = setting(0, "training", "seed of the searcher (trials all have run.seed)", ge=0)
    max_concurrent: int | None = setting(None, "speed", "trials at once; default: as many as the cluster holds", ge=1)
    max_retries: int = setting(1, "speed", "times a trial that crashes or hangs is tried again", ge=0)
    stall_seconds: float = setting(1800, "speed", "a trial that began and gives no sign of life for so long hangs", gt=0)

    @field_validator("scheduler", mode="before")
    @classmethod
    def refuse_pbt(cls, value: object) -> object:
        if isinstance(value, str) and value.lower() in ("pbt", "pb2", "population"):
            raise ValueError(PBT_REFUSAL)
        return value
