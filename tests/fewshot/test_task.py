from __future__ import annotations

from pathlib import Path

import pytest

from supmer.errors import UserError
from supmer.fewshot.task import builtin_task_names, load_task, parse_task

GOOD = "name: mine\npatterns: ['{a} <X> {b}']\nlabel_words: [bad, good]\n"

METHOD_TASKS = {
    "sst-2": ["terrible", "great"],
    "mr": ["terrible", "great"],
    "cr": ["terrible", "great"],
    "sst-5": ["terrible", "bad", "okay", "good", "great"],
    "subj": ["subjective", "objective"],
    "trec": ["description", "entity", "expression", "human", "location", "number"],
    "boolq": ["no", "yes"],
    "rte": ["yes", "no"],
    "cb": ["yes", "no", "maybe"],
    "wic": ["No", "Yes"],
    "qnli": ["Yes", "No"],
    "qqp": ["No", "Yes"],
    "mrpc": ["No", "Yes"],
    "race-m": ["A", "B", "C", "D"],
    "race-h": ["A", "B", "C", "D"],
}


def test_the_tasks_of_the_method_come_with_the_package() -> None:
    assert set(METHOD_TASKS) | {"library-docs"} == set(builtin_task_names())
    for name, words in METHOD_TASKS.items():
        task = load_task(name)
        assert task.label_words == words
        assert task.hub is not None and task.hub.revision


def test_fields_are_the_placeholders_of_all_patterns() -> None:
    assert parse_task(GOOD, "mine").fields == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a mapping"),
        ("a: [", "not readable as YAML"),
        (GOOD.replace("name: mine\n", ""), "name: is required"),
        (GOOD + "lable: x\n", "lable: unknown setting; did you mean label_words?"),
        (GOOD.replace("<X>", "X"), "each pattern must contain <X> exactly once"),
        (GOOD.replace("<X>", "<X> <X>"), "each pattern must contain <X> exactly once"),
        (GOOD.replace("{a} <X> {b}", "<X>"), r"each pattern must contain a \{field\}"),
        (GOOD.replace("good", "bad"), "must be distinct, 'bad' is repeated"),
        (GOOD.replace("good", "' '"), "label_words"),
        (GOOD.replace("good", "''"), "label_words"),
        (GOOD.replace("bad, good", "bad"), "label_words"),
        (GOOD + "metric: f2\n", "metric.*: Input should be 'accuracy', 'macro_f1' or 'f1'"),
        (GOOD + "metric: [accuracy, f2]\n", "metric.*: Input should be 'accuracy', 'macro_f1' or 'f1'"),
        (GOOD.replace("good", "good, best") + "metric: f1\n", "metric: f1 is of class 1 of two"),
        (GOOD + "further_words: [[okay]]\n", "further_words: needs 2 lists, one per label word"),
        (GOOD + "label_weights: {best: 2}\n", "label_weights: 'best' must be one of the label words: bad, good"),
        (GOOD + "label_weights: {good: 0}\n", "label_weights.good=0.0: must be positive and finite"),
        (GOOD + "label_weights: {good: -1}\n", "label_weights.good=-1.0: must be positive and finite"),
        (GOOD + "label_weights: {good: .nan}\n", "label_weights.good=nan: must be positive and finite"),
        (GOOD + "label_weights: {good: .inf}\n", "label_weights.good=inf: must be positive and finite"),
        (GOOD + "label_weights: {good: much}\n", "label_weights.good=much: must be a number"),
        (GOOD + "label_weights: [1, 2]\n", "label_weights: must be `balanced` or a weight for each label word"),
        (GOOD + "label_weights: even\n", "label_weights: must be `balanced` or a weight for each label word"),
        (GOOD + "truncate: [c]\n", "truncate=c: must be a field of the patterns: a, b"),
        (GOOD + "folder: {classes: [1, 2, 3]}\n", "classes: needs 2 values"),
    ],
)
def test_each_mistake_in_a_task_file_is_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_task(text, "mine.yaml")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("task mine.yaml: ")


def test_a_task_that_is_not_there_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"fewshot.tasks=sst2: .*sst-2"):
        load_task("sst2")
    with pytest.raises(UserError, match="no readable file there"):
        load_task(str(tmp_path / "none.yaml"))


def test_a_relative_folder_is_taken_from_the_files_own(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(GOOD + "folder: {path: data}\n")
    assert load_task(str(tmp_path / "mine.yaml")).folder.path == str(tmp_path / "data")
