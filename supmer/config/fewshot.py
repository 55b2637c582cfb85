"""Settings of few-shot tuning (section 7)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from supmer.config.section import Section


def _as_list(value: object) -> object:
    return [value] if isinstance(value, int) else value


RowNumbers = Annotated[list[Annotated[int, Field(ge=1)]], BeforeValidator(_as_list)]
"""One number or a list of them."""


class FewshotConfig(Section):
    """Few-shot prompt tuning (section 7)."""

    tasks: list[str] = Field(default_factory=list, description="built-in task names or task YAML files")
    data_dir: str | None = Field(None, description="folder with <task>/train.jsonl and test.jsonl")
    methods: list[str] = Field(["prompt_tuning", "supmer"], min_length=1, description="names in the table of methods")
    k: RowNumbers = Field(
        [16], min_length=1, description="rows per class for training, and as many for dev: one K or several"
    )
    seeds: list[Annotated[int, Field(ge=0)]] = Field([0, 1, 2], min_length=1, description="data seeds")
    steps: int = Field(200, ge=1, description="optimizer steps")
    batch_size: int = Field(16, ge=1, description="rows a step")
    learning_rate: float = Field(0.1, gt=0, description="Adam rate of the prompt")
    learning_rates: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict, description="the same for single methods, by name"
    )
    eval_every: int = Field(10, ge=1, description="steps between evaluations on dev")
    max_test_rows: int | None = Field(None, ge=1, description="test rows scored, drawn by a fixed seed; default all")
    norm: Literal["row_l2", "matrix_l2", "row_l1", "matrix_l1"] = Field("matrix_l2", description="norm psi keeps downstream")
    fine_tuning_rate: float = Field(1e-4, gt=0, description="Adam rate of full fine-tuning")
    patterns: Literal["first", "all"] = Field("first", description="tune under a task's first pattern, or each of them")
    transfer: bool = Field(False, description="also score each tuned prompt on the other tasks of its format")
    from_run: str | None = Field(None, description="run directory of the prompt and regularizer; default: this run's")
    ppt_run: str | None = Field(
        None, description="run directory (meta.algorithm=multitask) of the prompt that ppt starts from"
    )
    concurrency: int = Field(1, ge=1, description="cells (task x method x seed) run at once")
    cpus_per_cell: float = Field(1, gt=0, description="CPUs reserved for each, and torch threads it uses")
    gpus_per_cell: float = Field(0, ge=0, le=1, description="GPUs reserved for each (fractions share one)")

    def for_method(self, method: str) -> FewshotConfig:
        """Return the settings as a method sees them: with its own learning rate."""
        rate = self.learning_rates.get(method, self.learning_rate)
        return self.model_copy(update={"learning_rate": rate, "learning_rates": {}})
