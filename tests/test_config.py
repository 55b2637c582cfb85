"""The settings themselves: each described, the defaults valid and published, the shipped files readable."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from supmer.config import Config
from supmer.config.effects import fields
from supmer.config.load import load_config, settings_without_effect
from supmer.errors import UserError

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
SHIPPED = sorted({*CONFIGS.rglob("*.yaml")} - {*CONFIGS.rglob("cases/*.yaml")})
"""Those of `cases` are layers under others and no job's by themselves."""


def test_every_setting_is_described() -> None:
    assert [name for name, field in fields(Config) if not field.description] == []


def test_defaults_are_the_published_settings() -> None:
    config = Config()
    assert (config.clusters.num_clusters, config.prompt.length, config.max_input_tokens) == (250, 100, 412)
    assert (config.tasks.num_support, config.tasks.num_query, config.tasks.num_options) == (16, 16, 4)
    assert (config.tasks.num_options_nss, config.tasks.max_option_tokens) == (6, 86)
    assert (config.meta.steps, config.meta.tasks_per_step, config.meta.prompt_lr) == (100_000, 4, 0.1)
    assert (config.meta.regularizer_lr, config.meta.clip_norm, config.meta.inner_lr) == (1e-4, 1.0, None)
    assert (config.regularizer.hidden_layers, config.regularizer.rank, config.regularizer.gate_hidden) == (1, 1920, 24)
    assert (config.curriculum.alpha, config.curriculum.m) == (1.0, 2.0)
    assert (config.fewshot.k, config.fewshot.steps, config.fewshot.batch_size, config.fewshot.learning_rate) == (
        [16],
        200,
        16,
        0.1,
    )


def test_configuration_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Config().run.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_configuration_is_valid_and_begins_with_its_command(path: Path) -> None:
    load_config(path)
    header = [line for line in path.read_text().split("\n\n")[0].splitlines() if line.startswith("#")]
    assert any("python pipeline/" in line for line in header)


@pytest.mark.parametrize("section", ["meta", "fewshot"])
def test_a_warmup_without_end_is_refused(section: str) -> None:
    load_config(None, [f"{section}.steps=5", f"{section}.warmup_steps=4"])
    with pytest.raises(UserError, match=rf"^{section}\.warmup_steps=5: must be below {section}\.steps=5$"):
        load_config(None, [f"{section}.steps=5", f"{section}.warmup_steps=5"])


def test_settings_without_effect_are_those_of_the_file_itself_not_of_its_base(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"base: {CONFIGS}/quickstart.yaml\ncorpus: {{format: text, paths: [a]}}\n")
    assert settings_without_effect(load_config(file), file) == []
    file.write_text("corpus: {packages: [numpy], hub_split: train}\n")  # hub_split as by default
    (line,) = settings_without_effect(load_config(file), file)
    assert line.startswith("corpus.packages has no effect with corpus.format=auto; needs corpus.format=package_docs")
    assert settings_without_effect(Config(), None) == []
