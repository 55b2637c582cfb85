"""Text of labelled tasks is found in units, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supmer.config import CorpusConfig
from supmer.corpus.contamination import ExcludedText, read_excluded, run_keys
from supmer.errors import UserError

words = st.lists(st.sampled_from("abc"), max_size=14)


def holds_run(words: list[str], wanted: list[str], num_words: int) -> bool:
    """Whether `words` holds a run of `num_words` of the wanted words, or all of them if they are fewer (but 8 at least)."""
    size = min(num_words, len(wanted))
    runs = {tuple(wanted[start : start + size]) for start in range(len(wanted) - size + 1)}
    return size >= 8 and any(tuple(words[start : start + size]) in runs for start in range(len(words) - size + 1))


@given(st.lists(words, max_size=6), st.lists(words, max_size=4), st.integers(8, 10))
def test_shared_runs_are_found(texts: list[list[str]], tasks: list[list[str]], num_words: int) -> None:
    excluded = ExcludedText.of_texts((" ".join(task) for task in tasks), num_words)
    restored = ExcludedText.from_table(excluded.to_table())
    found = restored.occurs_in([" ".join(text) for text in texts]).tolist()
    assert found == [any(holds_run(text, task, num_words) for task in tasks) for text in texts]


def test_case_and_punctuation_do_not_hide_a_run() -> None:
    excluded = ExcludedText.of_texts(iter(["One two, three; four five six seven EIGHT."]), 13)
    texts = ["and (one) two three four - five six seven eight nine", "one two three four five six seven", ""]
    assert excluded.occurs_in(texts).tolist() == [True, False, False]


def test_runs_do_not_reach_over_the_end_of_a_text() -> None:
    keys, owners = run_keys([["a", "b"], ["c"], ["d", "e", "f"]], 2)
    assert len(keys) == 3 and owners.tolist() == [0, 2, 2]


def test_all_text_of_a_folder_of_tasks_is_read(tmp_path: Path) -> None:
    sentence = "this row of a task has nine words altogether"
    (tmp_path / "one").mkdir()
    rows = [json.dumps({"label": 1, "a": "short", "b": sentence}), "{broken", json.dumps({"a": None})]
    (tmp_path / "one" / "test.jsonl").write_text("\n".join(rows))
    (tmp_path / "readme.md").write_text("no task")
    excluded = read_excluded(CorpusConfig(exclude_tasks=[str(tmp_path)]))
    assert excluded.occurs_in([f"So {sentence}!", "no task"]).tolist() == [True, False]
    assert not read_excluded(CorpusConfig()).occurs_in([sentence]).any()


def test_paths_without_tasks_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(UserError, match=r"corpus.exclude_tasks=.*: must be a file of rows"):
        read_excluded(CorpusConfig(exclude_tasks=[str(tmp_path)]))
    with pytest.raises(UserError, match=r"corpus.exclude_tasks=.*nothing: no such file or folder"):
        read_excluded(CorpusConfig(exclude_tasks=[str(tmp_path / "nothing")]))
