"""Settings of the method (sections 2 to 6); the defaults are the published ones where those exist."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import field_validator

from supmer.config.section import Section, setting

TaskKind = Literal["nsp", "nss", "scsp", "scss", "scc", "ctw"]
TASK_KINDS: tuple[TaskKind, ...] = get_args(TaskKind)
PUBLISHED_KINDS = TASK_KINDS[:5]


NumOptions = int | list[int]
"""A number of options, or the fewest and the most of them."""


class TasksConfig(Section):
    """Self-supervised episodes (section 2)."""

    kinds: list[TaskKind] = setting(
        list(PUBLISHED_KINDS),
        ("clusters", "training"),
        "task kinds, drawn uniformly; `ctw` (topic words) is this project's own",
        min_length=1,
    )
    num_support: int = setting(16, ("clusters", "training"), "support rows of an episode", ge=1)
    num_query: int = setting(16, ("clusters", "training"), "query rows (and augmentation rows) of an episode", ge=1)
    num_options: int = setting(4, ("clusters", "training"), "options of scss and classes of scc", ge=2, le=26)
    num_topics: int = setting(4, ("clusters", "training"), "clusters of a ctw episode, which draws 2 to so many", ge=2, le=6)
    num_options_nss: NumOptions = setting(
        6, "training", "options of nss; two numbers, as in [2, 16]: drawn between them for each episode"
    )
    max_length: int = setting(512, ("training", "tuning"), "encoder positions, prompt included", ge=16)
    max_option_tokens: int = setting(86, "training", "tokens an option of a multi-choice row is cut to", ge=4)

    @property
    def min_input_tokens(self) -> int:
        """Room for the question, and for a letter and a few words of each option."""
        return 16 + 8 * max(self.num_options, self.range_nss[1])

    @property
    def range_nss(self) -> tuple[int, int]:
        """The fewest and the most options of nss."""
        if isinstance(self.num_options_nss, int):
            return self.num_options_nss, self.num_options_nss
        fewest, most = self.num_options_nss
        return fewest, most

    @field_validator("num_options_nss")
    @classmethod
    def ascending(cls, value: int | list[int]) -> int | list[int]:
        fewest, most = (value, value) if isinstance(value, int) else (min(value), value[-1])
        if fewest < 2 or most > 26 or (isinstance(value, list) and (len(value) != 2 or value[0] > value[1])):
            raise ValueError("must be a number from 2 to 26, or two of them, the smaller first")
        return value

    @field_validator("kinds")
    @classmethod
    def no_repeats(cls, value: list[TaskKind]) -> list[TaskKind]:
        if len(set(value)) != len(value):
            raise ValueError("must not repeat a kind")
        return value


class PromptConfig(Section):
    """The soft prompt P in R^{L x d}."""

    length: int = setting(100, ("training", "tuning"), "L", ge=1)
    init: Literal["vocabulary", "normal"] = setting("vocabulary", "training", "rows of the embedding table, or normal noise")
    init_entries: int | None = setting(
        None, ("training", "tuning"), "first entries of the vocabulary that init draws from; default: all", ge=1
    )
    init_std: float = setting(0.02, "training", "standard deviation of init=normal", gt=0)


class RegularizerConfig(Section):
    """The network psi_phi that regularizes few-shot gradients (section 4)."""

    enabled: bool = setting(True, "training", "false: plain MAML on prompts (ablation)")
    hidden_layers: int = setting(1, "training", "n_hidden; the stack has one layer more", ge=0)
    rank: int = setting(1920, "training", "rank of each layer, capped at d", ge=1)
    norm: Literal["row_l2", "matrix_l2", "row_l1", "matrix_l1"] = setting("row_l2", "training", "norm that the result keeps")
    init: Literal["identity", "xavier", "published"] = setting("identity", "training", "weights before training")
    gate: bool = setting(True, ("training", "tuning"), "mix with the raw gradient by z; false: z = 0")
    gate_hidden: int = setting(24, "training", "hidden width of the gate", ge=1)


class MetaConfig(Section):
    """Inner and outer loop (sections 3 and 5)."""

    algorithm: Literal["supmer", "multitask"] = setting("supmer", "training", "`multitask`: no meta-learning, as PPT")
    steps: int = setting(100_000, "training", "meta-steps", ge=1)
    tasks_per_step: int = setting(4, "training", "episodes in a meta-batch, all of one kind", ge=1)
    order: Literal["first", "second"] = setting("first", "training", "`second`: differentiate through the inner loop")
    inner_steps: int = setting(1, "training", "gradient steps on the support set", ge=1)
    inner_lr: float | None = setting(None, "training", "default: the current outer rate of the prompt", gt=0)
    prompt_lr: float = setting(0.1, "training", "outer Adam rate of the prompt", gt=0)
    regularizer_lr: float = setting(1e-4, "training", "outer Adam rate of the regularizer", gt=0)
    schedule: Literal["linear", "cosine", "constant"] = setting(
        "linear", "training", "of both outer rates over the meta-steps: falling to 0, or as they are"
    )
    warmup_steps: int = setting(0, "training", "first meta-steps, in which the outer rates grow", ge=0)
    clip_norm: float = setting(1.0, "training", "gradient norm limit, prompt and regularizer apart", gt=0)
    gate_consistency: bool = setting(True, "training", "add the gate-consistency term to the loss of phi")
    pooling: Literal["masked", "all"] = setting(
        "masked", ("training", "tuning"), "positions averaged into h; published: all"
    )


class CurriculumConfig(Section):
    """Curriculum task augmentation (section 5)."""

    mode: Literal["curriculum", "mixup", "none"] = setting("curriculum", "training", "`mixup`: b = 1; `none`: lambda = 1")
    alpha: float = setting(1.0, "training", "first parameter of the Beta distribution", gt=0)
    m: float = setting(2.0, "training", "steepness of the curriculum", gt=1)
