"""Every setting of the project, with its type, default and range.

A configuration is one YAML file with the sections below, changed on the command line by ``section.key=value``. Section
numbers refer to the method as described in `docs/method.md`; the defaults are the published ones where those exist.
One module here for each group of sections; `supmer.cli` reads and validates it all.
"""

from __future__ import annotations

from pydantic import Field, model_validator
from typing_extensions import Self

from supmer import storage
from supmer.config.backbone import BackboneConfig, DistillConfig, WarmupConfig
from supmer.config.checks import CHECKS
from supmer.config.corpus import ClustersConfig, CorpusConfig
from supmer.config.fewshot import FewshotConfig
from supmer.config.method import (
    TASK_KINDS,
    CurriculumConfig,
    MetaConfig,
    PromptConfig,
    RegularizerConfig,
    TaskKind,
    TasksConfig,
)
from supmer.config.run import LogConfig, RunConfig, TrainConfig
from supmer.config.section import Section
from supmer.config.tune import TuneConfig

__all__ = [
    "TASK_KINDS",
    "BackboneConfig",
    "ClustersConfig",
    "Config",
    "CorpusConfig",
    "CurriculumConfig",
    "DistillConfig",
    "FewshotConfig",
    "LogConfig",
    "MetaConfig",
    "PromptConfig",
    "RegularizerConfig",
    "RunConfig",
    "TaskKind",
    "TasksConfig",
    "TrainConfig",
    "TuneConfig",
    "WarmupConfig",
]


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
    def run_dir(self) -> str:
        """``<run.dir>/<run.name>``, an absolute path or a URI."""
        return storage.join(storage.absolute(self.run.dir), self.run.name)

    @property
    def max_input_tokens(self) -> int:
        """Encoder positions left for a row beside the prompt (published: 512 - 100 = 412)."""
        return self.tasks.max_length - self.prompt.length
