"""Every setting of the project, with its type, default and range.

A configuration is one YAML file with the sections below, changed on the command line by ``section.key=value``. Section
numbers refer to the method as described in `docs/method.md`; the defaults are the published ones where those exist.
One module here for each group of sections; `supmer.config.load` reads and validates it all.
"""

from __future__ import annotations

from pydantic import Field

from supmer.config.backbone import BackboneConfig
from supmer.config.corpus import ClustersConfig, CorpusConfig
from supmer.config.fewshot import FewshotConfig, PerfectConfig
from supmer.config.method import (
    TASK_KINDS,
    CurriculumConfig,
    MetaConfig,
    PromptConfig,
    RegularizerConfig,
    TaskKind,
    TasksConfig,
)
from supmer.config.predict import PredictConfig, ServeConfig
from supmer.config.run import LogConfig, RunConfig, TrainConfig
from supmer.config.section import Section
from supmer.config.tune import TuneConfig
from supmer.locations import absolute, join

__all__ = [
    "TASK_KINDS",
    "BackboneConfig",
    "ClustersConfig",
    "Config",
    "CorpusConfig",
    "CurriculumConfig",
    "FewshotConfig",
    "LogConfig",
    "MetaConfig",
    "PerfectConfig",
    "PredictConfig",
    "PromptConfig",
    "RegularizerConfig",
    "RunConfig",
    "ServeConfig",
    "TaskKind",
    "TasksConfig",
    "TrainConfig",
    "TuneConfig",
]


class Config(Section):
    """The whole configuration: a section for each part of the program, whose defaults are the published settings.

    >>> Config().meta.steps, Config(meta={"steps": 500}).meta.steps
    (100000, 500)
    """

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
    predict: PredictConfig = Field(default_factory=PredictConfig)
    serve: ServeConfig = Field(default_factory=ServeConfig)
    tune: TuneConfig = Field(default_factory=TuneConfig)
    log: LogConfig = Field(default_factory=LogConfig)

    @property
    def run_dir(self) -> str:
        """``<run.dir>/<run.name>``, an absolute path or a URI."""
        return join(absolute(self.run.dir), self.run.name)

    @property
    def max_input_tokens(self) -> int:
        """Encoder positions left for a row beside the prompt (published: 512 - 100 = 412)."""
        return self.tasks.max_length - self.prompt.length
