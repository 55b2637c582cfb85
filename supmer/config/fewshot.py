"""Settings of few-shot tuning (section 7)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from supmer.config.section import Section, setting

RowCount = Annotated[int, Field(ge=1)] | Literal["all"]
"""K, rows per class, or all rows of a task."""

RowCounts = Annotated[list[RowCount], BeforeValidator(lambda value: [value] if isinstance(value, int | str) else value)]
"""One number or a list of them."""


Seed = Annotated[int, Field(ge=0)]

TaskFormat = Literal["single", "pair", "multi_choice"]


class PerfectConfig(Section):
    """PERFECT: adapters, mask slots and label embeddings in place of patterns and label words."""

    num_masks: int = setting(1, "tuning", "M, mask tokens in a row", ge=1)
    steps: int = setting(6000, "tuning", "optimizer steps, the rates falling linearly to 0", ge=1)
    eval_every: int = setting(100, "tuning", "steps between evaluations on dev", ge=1)
    batch_size: int = setting(32, "tuning", "rows a step", ge=1)
    rate: float = setting(1e-4, "tuning", "AdamW rate of adapters and layer norms", gt=0)
    label_rate: float = setting(0.1, "tuning", "AdamW rate of the label embeddings", gt=0)
    reduction: int = setting(16, "tuning", "width of the model over width of an adapter", ge=1)
    init_std: float = setting(1e-4, "tuning", "standard deviation of the label embeddings before training", gt=0)
    states: Literal["decoder", "encoder"] = setting("decoder", "tuning", "an encoder-decoder's states at the masks")
    inference: Literal["prototypes", "labels", "classifier"] = setting(
        "prototypes", "tuning", "nearest mean state, nearest label embedding, or their product"
    )
    aggregation: Literal["max", "mean"] = setting("max", "tuning", "over the masks, of the similarities")


class FewshotConfig(Section):
    """Few-shot prompt tuning (section 7)."""

    tasks: list[str] = setting([], "tuning", "built-in task names or task YAML files", source=True)
    data_dir: str | None = setting(None, "tuning", "folder with <task>/train.jsonl and test.jsonl", source=True)
    methods: list[str] = setting(["prompt_tuning", "supmer"], "tuning", "names of methods", source=True, min_length=1)
    k: RowCounts = setting(
        [16],
        "tuning",
        "rows per class for training, and as many for dev: one K or several; `all`: every row, a tenth for dev",
        source=True,
        min_length=1,
    )
    seeds: list[Seed] = setting([0, 1, 2], "tuning", "data seeds: which rows are tuned on", source=True, min_length=1)
    training_seeds: list[Seed] | None = setting(
        None,
        "tuning",
        "seeds of initial values, batches and dropout, each with every data seed; default: the data seed itself",
        source=True,
        min_length=1,
    )
    steps: int = setting(200, "tuning", "optimizer steps", ge=1)
    batch_size: int = setting(16, "tuning", "rows a step", ge=1)
    learning_rate: float = setting(0.1, "tuning", "AdamW rate of the prompt", gt=0)
    learning_rates: dict[str, Annotated[float, Field(gt=0)]] = setting(
        {}, "tuning", "the same for single methods, by name; lora, prefix_tuning and bitfit have defaults of their own"
    )
    eval_every: int = setting(10, "tuning", "steps between evaluations on dev", ge=1)
    schedule: Literal["constant", "linear", "cosine"] = setting(
        "linear", "tuning", "of the rate over the steps: as it is, or falling to 0"
    )
    warmup_steps: int = setting(0, "tuning", "first steps, in which the rate grows from 0", ge=0)
    weight_decay: float = setting(0.0, "tuning", "AdamW's", ge=0)
    clip_norm: float | None = setting(None, "tuning", "gradient norm limit, after the regularizer; default none", gt=0)
    patience: int | None = setting(None, "tuning", "evaluations without a better one that end tuning; default never", ge=1)
    max_test_rows: int | None = setting(None, "tuning", "test rows scored, drawn by a fixed seed", source=True, ge=1)
    norm: Literal["row_l2", "matrix_l2", "row_l1", "matrix_l1"] = setting("matrix_l2", "tuning", "norm psi keeps downstream")
    init: Literal["vocabulary", "text", "label_words"] = setting(
        "vocabulary",
        "tuning",
        "start of prompt_tuning: random entries, those of `init_text`, or label words and random entries",
    )
    init_text: str | None = setting(None, "tuning", "text of fewshot.init=text, repeated to the prompt's length")
    lora_rank: int = setting(8, "tuning", "rank of the updates of method lora", ge=1)
    prefix_length: int = setting(20, "tuning", "positions of method prefix_tuning", ge=1)
    fine_tuning_rate: float = setting(1e-4, "tuning", "AdamW rate of full fine-tuning", gt=0)
    perfect: PerfectConfig = Field(default_factory=PerfectConfig)
    patterns: Literal["first", "all"] = setting("first", "tuning", "a task's first pattern, or each of them", source=True)
    transfer: bool = setting(False, "tuning", "also score each tuned prompt on the other tasks of its format")
    from_run: str | None = setting(
        None, "tuning", "run directory of prompt and regularizer; default: this run's", source=True
    )
    ppt_run: str | dict[TaskFormat, str] | None = setting(
        None,
        "tuning",
        "run directory (meta.algorithm=multitask) of the prompt that ppt starts from, or one by format of task: "
        "{pair: RUN, multi_choice: RUN, single: RUN}",
        source=True,
    )
    unified_ppt_run: str | None = setting(
        None, "tuning", "the same of the prompt that unified_ppt starts from (tasks.kinds=[nss])", source=True
    )
    concurrency: int = setting(
        1, "speed", "cells (task x method x seed) run at once; 0: one by one in this process, without Ray", ge=0
    )
    cpus_per_cell: float = setting(1, "speed", "CPUs reserved for each, and torch threads it uses", gt=0)
    gpus_per_cell: float = setting(0, "speed", "GPUs reserved for each (fractions share one)", ge=0, le=1)
