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

    num_masks: int = setting(1, "tuning", ge=1, description="M, mask tokens in a row")
    steps: int = setting(6000, "tuning", ge=1, description="optimizer steps, the rates falling linearly to 0")
    eval_every: int = setting(100, "tuning", ge=1, description="steps between evaluations on dev")
    batch_size: int = setting(32, "tuning", ge=1, description="rows a step")
    rate: float = setting(1e-4, "tuning", gt=0, description="AdamW rate of adapters and layer norms")
    label_rate: float = setting(0.1, "tuning", gt=0, description="AdamW rate of the label embeddings")
    reduction: int = setting(16, "tuning", ge=1, description="width of the model over width of an adapter")
    init_std: float = setting(1e-4, "tuning", gt=0, description="standard deviation of the label embeddings before training")
    states: Literal["decoder", "encoder"] = setting(
        "decoder", "tuning", description="an encoder-decoder's states at the masks: of its decoder or encoder"
    )
    inference: Literal["prototypes", "labels", "classifier"] = setting(
        "prototypes", "tuning", description="nearest mean state, nearest label embedding, or their product"
    )
    aggregation: Literal["max", "mean"] = setting(
        "max", "tuning", description="over the masks, of the similarities to prototypes or label embeddings"
    )


class FewshotConfig(Section):
    """Few-shot prompt tuning (section 7)."""

    tasks: list[str] = setting([], "tuning", source=True, description="built-in task names or task YAML files")
    data_dir: str | None = setting(None, "tuning", source=True, description="folder with <task>/train.jsonl and test.jsonl")
    methods: list[str] = setting(
        ["prompt_tuning", "supmer"], "tuning", source=True, min_length=1, description="names in the table of methods"
    )
    k: RowCounts = setting(
        [16],
        "tuning",
        source=True,
        min_length=1,
        description="rows per class for training, and as many for dev: one K or several; `all`: every row, a tenth for dev",
    )
    seeds: list[Seed] = setting(
        [0, 1, 2], "tuning", source=True, min_length=1, description="data seeds: which rows are tuned on"
    )
    training_seeds: list[Seed] | None = setting(
        None,
        "tuning",
        source=True,
        min_length=1,
        description="seeds of initial values, batches and dropout, each with every data seed; default: the data seed itself",
    )
    steps: int = setting(200, "tuning", ge=1, description="optimizer steps")
    batch_size: int = setting(16, "tuning", ge=1, description="rows a step")
    learning_rate: float = setting(0.1, "tuning", gt=0, description="AdamW rate of the prompt")
    learning_rates: dict[str, Annotated[float, Field(gt=0)]] = setting(
        {},
        "tuning",
        description="the same for single methods, by name; lora, prefix_tuning and bitfit have defaults of their own",
    )
    eval_every: int = setting(10, "tuning", ge=1, description="steps between evaluations on dev")
    schedule: Literal["constant", "linear", "cosine"] = setting(
        "constant", "tuning", description="of the rate over the steps: as it is, or falling to 0"
    )
    warmup_steps: int = setting(0, "tuning", ge=0, description="first steps, in which the rate grows from 0")
    weight_decay: float = setting(0.0, "tuning", ge=0, description="AdamW's")
    clip_norm: float | None = setting(
        None, "tuning", gt=0, description="gradient norm limit, after the regularizer; default none"
    )
    patience: int | None = setting(
        None, "tuning", ge=1, description="evaluations without a better one after which tuning ends; default never"
    )
    max_test_rows: int | None = setting(
        None, "tuning", source=True, ge=1, description="test rows scored, drawn by a fixed seed; default all"
    )
    norm: Literal["row_l2", "matrix_l2", "row_l1", "matrix_l1"] = setting(
        "matrix_l2", "tuning", description="norm psi keeps downstream"
    )
    init: Literal["vocabulary", "text", "label_words"] = setting(
        "vocabulary",
        "tuning",
        description="start of prompt_tuning: random entries, those of `init_text`, or label words and random entries",
    )
    init_text: str | None = setting(None, "tuning", description="text of fewshot.init=text, repeated to the prompt's length")
    lora_rank: int = setting(8, "tuning", ge=1, description="rank of the updates of method lora")
    prefix_length: int = setting(20, "tuning", ge=1, description="positions of method prefix_tuning")
    fine_tuning_rate: float = setting(1e-4, "tuning", gt=0, description="AdamW rate of full fine-tuning")
    perfect: PerfectConfig = Field(default_factory=PerfectConfig)
    patterns: Literal["first", "all"] = setting(
        "first", "tuning", source=True, description="tune under a task's first pattern, or each of them"
    )
    transfer: bool = setting(False, "tuning", description="also score each tuned prompt on the other tasks of its format")
    from_run: str | None = setting(
        None, "tuning", source=True, description="run directory of the prompt and regularizer; default: this run's"
    )
    ppt_run: str | dict[TaskFormat, str] | None = setting(
        None,
        "tuning",
        source=True,
        description="run directory (meta.algorithm=multitask) of the prompt that ppt starts from, or one by format of task: "
        "{pair: RUN, multi_choice: RUN, single: RUN}",
    )
    unified_ppt_run: str | None = setting(
        None, "tuning", source=True, description="the same of the prompt that unified_ppt starts from (tasks.kinds=[nss])"
    )
    concurrency: int = setting(
        1, "speed", ge=0, description="cells (task x method x seed) run at once; 0: one by one in this process, without Ray"
    )
    cpus_per_cell: float = setting(1, "speed", gt=0, description="CPUs reserved for each, and torch threads it uses")
    gpus_per_cell: float = setting(0, "speed", ge=0, le=1, description="GPUs reserved for each (fractions share one)")
