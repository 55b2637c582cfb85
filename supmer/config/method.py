"""Settings of the method (sections 2 to 6); the defaults are the published ones where those exist."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, field_validator

from supmer.config.section import Section

TaskKind = Literal["nsp", "nss", "scsp", "scss", "scc"]
TASK_KINDS: tuple[TaskKind, ...] = get_args(TaskKind)


class TasksConfig(Section):
    """Self-supervised episodes (section 2)."""

    kinds: list[TaskKind] = Field(list(TASK_KINDS), min_length=1, description="task kinds, drawn uniformly")
    num_support: int = Field(16, ge=1, description="support rows of an episode")
    num_query: int = Field(16, ge=1, description="query rows (and augmentation rows) of an episode")
    num_options: int = Field(4, ge=2, le=26, description="options of scss and classes of scc")
    num_options_nss: int = Field(6, ge=3, le=26, description="options of nss")
    max_length: int = Field(512, ge=16, description="encoder positions, prompt included")
    max_option_tokens: int = Field(86, ge=4, description="tokens an option of a multi-choice row is cut to")

    @property
    def min_input_tokens(self) -> int:
        """Room for the question, and for a letter and a few words of each option."""
        return 16 + 8 * max(self.num_options, self.num_options_nss)

    @field_validator("kinds")
    @classmethod
    def no_repeats(cls, value: list[TaskKind]) -> list[TaskKind]:
        if len(set(value)) != len(value):
            raise ValueError("must not repeat a kind")
        return value


class PromptConfig(Section):
    """The soft prompt P in R^{L x d}."""

    length: int = Field(100, ge=1, description="L")
    init: Literal["vocabulary", "normal"] = Field("vocabulary", description="rows of the embedding table, or normal noise")
    init_std: float = Field(0.02, gt=0, description="standard deviation of init=normal")


class RegularizerConfig(Section):
    """The network psi_phi that regularizes few-shot gradients (section 4)."""

    enabled: bool = Field(True, description="false: plain MAML on prompts (ablation)")
    hidden_layers: int = Field(1, ge=0, description="n_hidden; the stack has one layer more")
    rank: int = Field(1920, ge=1, description="rank of each layer, capped at d")
    norm: Literal["row_l2", "matrix_l2", "row_l1", "matrix_l1"] = Field("row_l2", description="norm that the result keeps")
    init: Literal["identity", "xavier", "published"] = Field("identity", description="weights before training")
    gate: bool = Field(True, description="mix with the raw gradient by z; false: z = 0")
    gate_hidden: int = Field(24, ge=1, description="hidden width of the gate")


class MetaConfig(Section):
    """Inner and outer loop (sections 3 and 5)."""

    algorithm: Literal["supmer", "multitask"] = Field("supmer", description="`multitask`: no meta-learning, as PPT")
    steps: int = Field(100_000, ge=1, description="meta-steps")
    tasks_per_step: int = Field(4, ge=1, description="episodes in a meta-batch, all of one kind")
    order: Literal["first", "second"] = Field("first", description="`second`: differentiate through the inner loop")
    inner_steps: int = Field(1, ge=1, description="gradient steps on the support set")
    inner_lr: float | None = Field(None, gt=0, description="default: the current outer rate of the prompt")
    prompt_lr: float = Field(0.1, gt=0, description="outer Adam rate of the prompt, linear decay to 0")
    regularizer_lr: float = Field(1e-4, gt=0, description="outer Adam rate of the regularizer, linear decay to 0")
    clip_norm: float = Field(1.0, gt=0, description="gradient norm limit, prompt and regularizer apart")
    gate_consistency: bool = Field(True, description="add the gate-consistency term to the loss of phi")
    pooling: Literal["masked", "all"] = Field("masked", description="positions averaged into h; `all` as published")


class CurriculumConfig(Section):
    """Curriculum task augmentation (section 5)."""

    mode: Literal["curriculum", "mixup", "none"] = Field("curriculum", description="`mixup`: b = 1; `none`: lambda = 1")
    alpha: float = Field(1.0, gt=0, description="first parameter of the Beta distribution")
    m: float = Field(2.0, gt=1, description="steepness of the curriculum")
