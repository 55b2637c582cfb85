"""The settings of sweeps: what is searched, how, and by which objective."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator
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

    choice: list[Any] | None = Field(None, description="one of these values")
    uniform: tuple[float, float] | None = Field(None, description="a number between these two")
    loguniform: tuple[float, float] | None = Field(None, description="the same, even on a logarithmic scale")
    integer: tuple[int, int] | None = Field(None, description="a whole number between these two, both included")
    log: bool = Field(False, description="integer: even on a logarithmic scale")
    cases: dict[str, dict[str, Any]] | None = Field(None, description="names of groups of settings, each set together")
    when: dict[str, Any] = Field(default_factory=dict, description="only where these settings have these values")

    @model_validator(mode="before")
    @classmethod
    def is_described(cls, value: object) -> object:
        if isinstance(value, dict):
            return value
        raise ValueError(f"must have exactly one of {', '.join(KINDS)}, for example {{choice: [1, 2]}}")

    @field_validator("choice", "cases")
    @classmethod
    def not_empty(cls, value: Any) -> Any:
        if value is not None and not value:
            raise ValueError("must not be empty")
        return value

    @field_validator("uniform", "loguniform", "integer", mode="before")
    @classmethod
    def is_pair(cls, value: object) -> object:
        if value is not None and not (isinstance(value, (list, tuple)) and len(value) == 2):
            raise ValueError("must be [low, high]")
        return value

    @field_validator("uniform", "loguniform", "integer")
    @classmethod
    def is_ordered(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and value[0] >= value[1]:
            raise ValueError("must be [low, high] with low less than high")
        return value

    @field_validator("loguniform")
    @classmethod
    def is_positive(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and value[0] <= 0:
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
        {},
        "training",
        description="setting: {choice|uniform|loguniform|integer: ..., when: {setting: value}}, or name: {cases: ...}",
    )
    searcher: Literal["random", "grid", "tpe"] = setting(
        "tpe", "training", description="how settings are proposed; tpe is Optuna's"
    )
    scheduler: Literal["none", "asha", "median"] = setting(
        "asha", "training", description="how poor trials are stopped early"
    )
    objectives: list[str] = setting(
        ["validation_query_loss"],
        "training",
        min_length=1,
        description="validation_query_loss, validation_query_loss_<kind>, fewshot_dev_score; several: a Pareto front",
    )
    num_trials: int | None = setting(16, "speed", ge=1, description="trials in all; null: the whole grid")
    grace_steps: int | None = setting(
        None, "training", ge=1, description="meta-steps no trial is stopped before; default: first rung"
    )
    reduction_factor: float = setting(
        3, "training", gt=1, description="asha: one of so many trials passes a rung; rungs lie as far apart"
    )
    seed: int = setting(0, "training", ge=0, description="seed of the searcher (trials all have run.seed)")
    max_concurrent: int | None = setting(
        None, "speed", ge=1, description="trials at once; default: as many as the cluster holds"
    )
    max_retries: int = setting(1, "speed", ge=0, description="times a trial that crashes or hangs is tried again")
    stall_seconds: float = setting(
        1800, "speed", gt=0, description="a trial that began and gives no sign of life for so long hangs"
    )

    @field_validator("scheduler", mode="before")
    @classmethod
    def refuse_pbt(cls, value: object) -> object:
        if isinstance(value, str) and value.lower() in ("pbt", "pb2", "population"):
            raise ValueError(PBT_REFUSAL)
        return value
