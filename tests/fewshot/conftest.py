"""The small backbone and task of the few-shot tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from fewshot_material import job_settings, make_backbone, make_task
from transformers import PreTrainedTokenizerBase

from supmer.backbone.load import load_tokenizer
from supmer.config import BackboneConfig, Config
from supmer.config.load import validate


@pytest.fixture(scope="session")
def backbone_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_backbone(tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="session")
def tokenizer(backbone_folder: str) -> PreTrainedTokenizerBase:
    return load_tokenizer(BackboneConfig(name=backbone_folder))


@pytest.fixture(scope="session")
def task_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_task(tmp_path_factory.mktemp("task"))


@pytest.fixture
def config(backbone_folder: str, task_file: Path, tmp_path: Path) -> Config:
    """A small few-shot job."""
    return validate(job_settings(backbone_folder, task_file, tmp_path))
