"""Values as users write them: text stays as written, integers are decimal, and no setting is ignored in silence."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from supmer.config import Config
from supmer.config.load import load_config, to_yaml, validate, value_of, with_settings
from supmer.config.scalars import parse_yaml
from supmer.errors import UserError
from supmer.fewshot.task import parse_task

TEXT = {
    "backbone.revision": ["0012345", "12e4567", "0x1F", "1_000", "1:30", "yes", "2024-01-31", "0o17", "+1", ".5"],
    "run.name": ["007", "1.10", "2024_01_31", "1e3", "no", "TRUE"],
    "corpus.language": ["no"],
}
"""What YAML 1.1 or 1.2 would take for numbers, dates or truth values."""

REFUSED = {
    "meta.steps": ["010x", "1:30", "true", "1.0", "1e3", "0x10", "0o17", "١٢", "ten", "''", "_1", "1 2"],
    "meta.prompt_lr": ["1:30", "true", "fast", "1e", "0x1", "1,5"],
    "regularizer.gate": ["yes", "on", "1", "0", "tRue", "null"],
    "fewshot.seeds": ["[1, 1.5]", "[yes]", "[1:30]"],
    "train.workers": ["two", "[1, two]"],
}


def by_file(folder: Path, name: str, value: str) -> Config:
    section, key = name.split(".")
    path = folder / "config.yaml"
    path.write_text(f"{section}:\n  {key}: {value}\n")
    return load_config(path)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in TEXT.items() for value in values])
def test_text_stays_as_it_was_written(name: str, value: str, tmp_path: Path) -> None:
    config = load_config(None, [f"{name}={value}"])
    assert value_of(config, name) == value
    assert by_file(tmp_path, name, value) == config
    path = tmp_path / "printed.yaml"
    path.write_text(to_yaml(config))
    assert load_config(path) == config


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_what_is_no_number_is_refused(name: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^{name}.*: must be "):
        load_config(None, [f"{name}={value}"])
    with pytest.raises(UserError, match=rf"^{name}.*: must be "):
        by_file(tmp_path, name, value)


@settings(max_examples=30)
@given(st.integers(1, 10**9), st.integers(0, 3))
def test_integers_are_decimal_with_or_without_leading_zeros_and_underscores(number: int, zeros: int) -> None:
    for written in (f"{'0' * zeros}{number}", f"{number:_}", f"+{number}", f'"{number}"'):
        assert load_config(None, [f"meta.steps={written}"]).meta.steps == number


@given(st.floats(1e-30, 1e30))
def test_numbers_are_read_as_python_writes_them(number: float) -> None:
    assert load_config(None, [f"meta.prompt_lr={number}"]).meta.prompt_lr == number


@settings(max_examples=30)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1))
def test_any_text_is_printed_so_that_it_reads_back(text: str) -> None:
    config = with_settings(Config(), {"corpus.paths": [text]})
    assert validate(parse_yaml(to_yaml(config))) == config
    assert validate(yaml.safe_load(to_yaml(config))) == config


@pytest.mark.parametrize("written", ["|", "#x", "a: b", "[", "*", "\t", "&a", "%"])
def test_a_text_setting_takes_signs_of_yaml(written: str) -> None:
    assert load_config(None, [f"corpus.text_column={written}"]).corpus.text_column == written


def test_lists_keep_text_too(tmp_path: Path) -> None:
    assert load_config(None, ["corpus.paths=[001, 1e3, no]"]).corpus.paths == ["001", "1e3", "no"]
    assert load_config(None, ["fewshot.k=016"]).fewshot.k == [16]
    assert load_config(None, ["train.workers=[1,2]"]).train.workers == (1, 2)


def test_null_is_nothing_unless_it_is_quoted() -> None:
    assert load_config(None, ["backbone.revision=null"]).backbone.revision is None
    assert load_config(None, ["backbone.revision="]).backbone.revision is None
    assert load_config(None, ["backbone.revision='null'"]).backbone.revision == "null"


def test_values_of_a_search_space_are_read_as_those_of_its_settings(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "tune:\n  space:\n"
        "    backbone.revision: {choice: [0012345, 12e4567]}\n"
        "    meta.inner_lr: {choice: [1e-2, .5], when: {regularizer.gate: true}}\n"
        "    meta.steps: {choice: [010]}\n"
        "    group: {cases: {a: {tasks.kinds: [nsp], meta.steps: 7}}}\n"
    )
    space = load_config(path).tune.space
    assert space["backbone.revision"].choice == ["0012345", "12e4567"]
    assert space["meta.inner_lr"].choice == [0.01, 0.5]
    assert space["meta.inner_lr"].when == {"regularizer.gate": True}
    assert space["meta.steps"].choice == [10]
    assert space["group"].cases == {"a": {"tasks.kinds": ["nsp"], "meta.steps": 7}}


@pytest.mark.parametrize(
    "content",
    [
        "run: {seed: 1}\nrun: {seed: 2}\n",
        "run: {seed: 1, seed: 2}\n",
        "tune: {space: {meta.steps: {choice: [1]}, meta.steps: {choice: [2]}}}\n",
    ],
)
def test_a_key_that_comes_twice_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match="comes twice"):
        load_config(path)
    with pytest.raises(UserError, match="comes twice"):
        parse_task(content, "mine")
    with pytest.raises(UserError, match="comes twice"):
        load_config(None, ["tune={space: {meta.steps: {choice: [1]}, meta.steps: {choice: [2]}}}"])


def test_anchors_and_merges_are_read(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("tune:\n  space:\n    meta.inner_lr: &a {choice: [1, 2]}\n    meta.prompt_lr: {<<: *a}\n")
    assert load_config(path).tune.space["meta.prompt_lr"].choice == [1.0, 2.0]


def test_classes_and_words_of_a_task_are_text() -> None:
    task = parse_task(
        "name: t\npatterns: ['{a} <X>']\nlabel_words: [no, yes, 1.10, 2024-01-31]\n"
        "folder: {classes: [01, 1.10, no, 2024-01-31]}\n",
        "t",
    )
    assert task.label_words == ["no", "yes", "1.10", "2024-01-31"]
    assert task.folder.classes == ["01", "1.10", "no", "2024-01-31"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["corpus.packages=[torch]"], r"corpus.packages=\['torch'\]: has no effect with corpus.format=auto; needs corpus"),
        (["corpus.format=package_docs", "corpus.paths=[a]"], r"corpus.paths=\['a'\]: has no effect with"),
        (["train.shard_size=2"], "train.shard_size=2: has no effect with train.sharding=none; needs train.sharding=hybrid"),
        (["backbone.tokenizer_revision=a"], "backbone.tokenizer_revision=a: has no effect without backbone.tokenizer"),
        (["curriculum={mode: mixup, m: 3}"], "curriculum.m=3.0: has no effect with curriculum.mode=mixup"),
    ],
)
def test_a_setting_of_the_command_line_that_has_no_effect_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        load_config(None, overrides)


@pytest.mark.parametrize(
    ("written", "nearest"),
    [("klingon", ""), ("german", "de"), ("xx", ""), ("''", ""), ("", ""), ("Portugese", "pt"), ("e n", "en")],
)
def test_what_is_no_language_is_refused_with_the_nearest(written: str, nearest: str) -> None:
    with pytest.raises(UserError, match=r"^corpus\.language=.*: must be the code of a language, for example ") as caught:
        load_config(None, [f"corpus.language={written}"])
    assert nearest in str(caught.value).partition("for e")[2]


@pytest.mark.parametrize("code", ["no", "en", "pt-BR", "zh-hans", "sr-Latn", "tlh"])
def test_codes_of_languages_are_taken(code: str) -> None:
    assert load_config(None, [f"corpus.language={code}"]).corpus.language == code


def test_paths_of_the_command_line_replace_the_packages_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("corpus: {format: package_docs, packages: [torch]}\n")
    assert load_config(path).corpus.format == "package_docs"
    config = load_config(path, ["corpus.paths=[my-texts]"])
    assert (config.corpus.format, config.corpus.paths) == ("auto", ["my-texts"])
