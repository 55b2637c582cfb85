from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path
from random import Random

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supmer.errors import UserError
from supmer.fewshot.data import Row, draw_split, load_rows
from supmer.fewshot.task import FolderSource, HubSource, Task, load_task, parse_task


def test_rows_of_race_are_read_from_their_list_of_options(tmp_path: Path) -> None:
    task = load_task("race-m")
    assert task.hub is not None
    here = FolderSource(path=str(tmp_path), **task.hub.model_dump(include={"columns", "label", "classes"}))
    row = {"article": "A text .", "question": "Which ?", "options": ["a", "b", "c", "d"], "answer": "C"}
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    (read,) = load_rows(task.model_copy(update={"folder": here}), None).train
    assert (read.fields["first"], read.fields["fourth"], read.label) == ("a", "d", 2)


LABEL_CHECKS = {
    # One sentence whose class is beyond doubt, with the label word it must have (the data's numbering is asserted by it).
    "boolq": ({"question": "is there such a thing as green onyx"}, "yes"),
    "cb": ({"premise": "Valence the void-brain", "hypothesis": "Valence was helping"}, "no"),
    "rte": ({"premise": "Yet, we now are discovering", "hypothesis": "Bacteria is winning the war"}, "yes"),
    "qnli": ({"question": "What came into force after the new constitution was herald?"}, "Yes"),
    "qqp": ({"question1": "How do I reset my Gmail password when"}, "Yes"),
    "mrpc": ({"sentence1": "He said the foodservice pie business"}, "Yes"),
    "wic": ({"word": "class", "sentence1": "An emerging professional class."}, "No"),
    "sst-2": ({"text": "no movement , no yuks"}, "terrible"),
    "mr": ({"text": "simplistic , silly and tedious"}, "terrible"),
    "sst-5": ({"text": "a gob of drivel so sickly sweet"}, "terrible"),
    "subj": ({"text": "smart and alert , thirteen conversations"}, "subjective"),
    "trec": ({"text": "How far is it from Denver to Aspen"}, "number"),
}


@pytest.mark.parametrize("name", LABEL_CHECKS)
def test_label_numbers_mean_what_the_words_say(name: str, shared: Path) -> None:
    task = load_task(name)
    rows = load_rows(task, str(shared / "tasks"))
    fields, word = LABEL_CHECKS[name]
    labels = {
        row.label
        for row in (*rows.train, *rows.test)
        if all(row.fields[field].startswith(start) for field, start in fields.items())
    }
    assert {task.label_words[label] for label in labels} == {word}


def task_with(**changes: object) -> Task:
    values = {"name": "mine", "patterns": ["{a} <X> {b}"], "label_words": ["bad", "good"], **changes}
    return parse_task(json.dumps(values), "mine.yaml")


def write(folder: Path, rows: list[object], split: str = "train") -> None:
    folder.mkdir(exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")


def good_rows(number: int = 4) -> list[object]:
    return [{"a": f"left {i}", "b": "right", "label": i % 2} for i in range(number)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"a": "x", "label": 0}, r"train.jsonl row 2: no column 'b'; it has a, label"),
        ({"a": "x", "b": "y"}, "no column 'label'"),
        ({"a": "x", "b": "y", "label": 2}, "label=2: must be one of '0', '1'"),
        ({"a": "x", "b": "y", "label": True}, "label=True: must be one of '0', '1'"),
        ({"a": "x", "b": "y", "label": None}, "label=None: must be one of '0', '1'"),
        ({"a": "x", "b": " ", "label": 0}, "row 2: field 'b' is empty"),
        ({"a": "x", "b": ["y"], "label": 0}, "must be text"),
        ([1], "1 of 2 rows cannot be read, must be at most 10% .*not JSON objects, at train.jsonl:2"),
    ],
)
def test_each_bad_row_is_one_clear_line(tmp_path: Path, row: object, message: str) -> None:
    write(tmp_path / "mine", [*good_rows(1), row])
    with pytest.raises(UserError, match=message) as caught:
        load_rows(task_with(), str(tmp_path))
    assert "\n" not in str(caught.value) and str(caught.value).startswith("task mine: ")


def test_missing_files_and_missing_data_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"task mine: no file .*train.jsonl"):
        load_rows(task_with(), str(tmp_path))
    with pytest.raises(UserError, match=r"has no data; give folder.path or hub"):
        load_rows(task_with(), None)
    write(tmp_path / "mine", [])
    with pytest.raises(UserError, match="has no train rows"):
        load_rows(task_with(), str(tmp_path))


def test_a_few_broken_rows_are_counted_and_more_are_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "mine", [*good_rows(9), "{nonsense", *good_rows(9)])
    write(tmp_path / "mine", good_rows(2), "test")
    with caplog.at_level(logging.WARNING):
        rows = load_rows(task_with(), str(tmp_path))
    assert (len(rows.train), rows.num_skipped_train, rows.num_skipped_test) == (18, 1, 0)
    assert "1 rows of" in caplog.text and "train.jsonl:10" in caplog.text
    write(tmp_path / "mine", [*good_rows(4), "{nonsense"], "test")
    with pytest.raises(UserError, match=r"test.jsonl: 1 of 5 rows cannot be read, must be at most 10% .*test.jsonl:5"):
        load_rows(task_with(), str(tmp_path))
    (tmp_path / "mine" / "test.jsonl").write_bytes(b'{"a": "x", "b": "caf\xe9", "label": 0}\n')
    with pytest.raises(UserError, match=r"folder.encoding names another"):
        load_rows(task_with(), str(tmp_path))
    rows = load_rows(task_with(folder={"encoding": "latin-1"}), str(tmp_path))
    assert rows.test == [Row({"a": "x", "b": "café"}, 0)]


def save_rows(path: Path, rows: list[dict[str, object]]) -> None:
    """Write rows as the name of the file says."""
    table = pa.Table.from_pylist(rows)
    kind = "".join(path.suffixes)
    if kind == ".csv":
        table.to_pandas().to_csv(path, index=False)
    elif kind == ".tsv":
        path.write_text("".join("\t".join(map(str, row)) + "\n" for row in [rows[0], *(row.values() for row in rows)]))
    elif kind == ".txt":
        table.to_pandas().to_csv(path, index=False, sep=";")
    elif kind == ".parquet":
        pq.write_table(table, path)
    elif kind == ".json":
        path.write_text(json.dumps(rows, indent=2))
    elif kind == ".jsonl.gz":
        path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    else:
        datasets.Dataset.from_list(rows).save_to_disk(path)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt", "a.parquet", "a.json", "a.jsonl.gz", "saved", "a"])
def test_rows_of_all_formats(tmp_path: Path, name: str) -> None:
    write(tmp_path / "mine", good_rows(2), "test")
    rows: list[dict[str, object]] = [{"a": f'"left" {i}, and', "b": "right", "label": i % 2} for i in range(12)]
    if name == "a":
        (tmp_path / "mine" / "a").write_text("\n".join(map(json.dumps, rows)))
    else:
        save_rows(tmp_path / "mine" / name, rows)
    loaded = load_rows(task_with(folder={"train": name}), str(tmp_path))
    assert loaded.train == [Row({"a": row["a"], "b": "right"}, int(str(row["label"]))) for row in rows]


def test_a_table_without_a_column_or_with_two_of_a_name_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "mine", good_rows(2), "test")
    task = task_with(folder={"train": "train.csv"})
    for header, message in [
        ("a,b,b,label", "2 columns 'b'; it has a, b, b, label"),
        ("a,x,y,label", "no column 'b'; it has a"),
    ]:
        (tmp_path / "mine" / "train.csv").write_text(f"{header}\nx,y,z,0\n")
        with pytest.raises(UserError, match=message):
            load_rows(task, str(tmp_path))
    (tmp_path / "mine" / "train.csv.gz").write_bytes(gzip.compress(b"a,b,label\n" + b"x,y,0\n" * 9999)[:-40])
    with pytest.raises(UserError, match="cannot be read to its end"):
        load_rows(task_with(folder={"train": "train.csv.gz"}), str(tmp_path))


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "null"])
def test_what_is_no_number_is_an_empty_field(tmp_path: Path, text: str) -> None:
    write(tmp_path / "mine", [*good_rows(2), '{"a": ' + text + ', "b": "y", "label": 1}'])
    write(tmp_path / "mine", good_rows(2), "test")
    with pytest.raises(UserError, match="row 3: field 'a' is empty"):
        load_rows(task_with(), str(tmp_path))
    assert load_rows(task_with(empty_rows="skip"), str(tmp_path)).num_skipped_train == 1


def test_half_a_letter_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "mine", ['{"a": "cut \\ud83d", "b": "y", "label": 1}'])
    write(tmp_path / "mine", good_rows(2), "test")
    assert load_rows(task_with(), str(tmp_path)).train == [Row({"a": "cut \ufffd", "b": "y"}, 1)]
    assert "half a letter" in caplog.text


def test_columns_and_class_values_are_a_matter_of_the_file(tmp_path: Path) -> None:
    write(tmp_path / "mine", [{"left": " x \n z ", "b": 3, "stars": "low"}, {"left": "x", "b": "y", "stars": "high"}])
    write(tmp_path / "mine", [{"left": "x", "b": "y", "stars": "low"}], "test")
    source = {"columns": {"a": "left"}, "label": "stars", "classes": ["low", "high"]}
    rows = load_rows(task_with(folder=source), str(tmp_path))
    assert rows.train == [Row({"a": "x z", "b": "3"}, 0), Row({"a": "x", "b": "y"}, 1)]


@given(
    counts=st.lists(st.integers(4, 30), min_size=2, max_size=4),
    k=st.integers(1, 4),
    seed=st.integers(0, 5),
    shuffle=st.randoms(),
)
def test_splits_are_disjoint_balanced_and_drawn_by_the_seed(counts: list[int], k: int, seed: int, shuffle: Random) -> None:
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    shuffle.shuffle(labels)
    rows = [Row({"a": str(index)}, label) for index, label in enumerate(labels)]
    task = task_with(label_words=[f"w{i}" for i in range(len(counts))])
    split = draw_split(task, rows, k, seed)
    assert draw_split(task, rows, k, seed) == split
    assert not set(split.train) & set(split.dev)
    for label, count in enumerate(counts):
        num_train, num_dev = (sum(labels[index] == label for index in part) for part in split)
        assert (num_train, num_dev) == ((k, k) if count >= 2 * k else ((count + 1) // 2, count // 2))


def test_fewer_rows_than_k_are_refused() -> None:
    rows = [Row({"a": "x"}, label) for label in (0, 0, 0, 1, 1)]
    with pytest.raises(UserError, match=r"fewshot.k=3: task mine has only 2 train rows of class 1 \('good'\)"):
        draw_split(task_with(), rows, 3, 0)


def write_hub_data(folder: Path, names: list[str]) -> None:
    """Write a data set as the hub holds it: Parquet with class names."""
    features = datasets.Features(
        {"a": datasets.Value("string"), "b": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
    )
    columns = {"a": ["x", "y", "z"], "b": ["p", "q", "r"], "label": [0, 1, 2]}
    for split in ("train", "test"):
        datasets.Dataset.from_dict(columns, features=features).to_parquet(folder / f"{split}.parquet")


def test_the_hubs_class_names_decide_not_its_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    tmp_path = tmp_path / "hub"
    tmp_path.mkdir()
    write_hub_data(tmp_path, ["high", "low", "middle"])
    words = ["bad", "okay", "good"]
    task = task_with(label_words=words, hub={"path": str(tmp_path), "classes": ["low", "middle", "high"]})
    assert [row.label for row in load_rows(task, None).train] == [2, 0, 1]
    wrong = task_with(label_words=words, hub={"path": str(tmp_path), "classes": ["low", "medium", "high"]})
    with pytest.raises(UserError, match=r"hub.classes=.*: must be the data set's names \['high', 'low', 'middle'\]"):
        load_rows(wrong, None)
    unnamed = task_with(label_words=words, hub={"path": str(tmp_path)})
    with pytest.raises(UserError, match=r"hub.classes=None: must be the data set's names"):
        load_rows(unnamed, None)
    with pytest.raises(UserError, match=r"cannot load .* from the hub .*; set fewshot.data_dir"):
        load_rows(task.model_copy(update={"hub": HubSource(path=str(tmp_path), train="dev")}), None)


@pytest.mark.parametrize("label", [None, -1])
def test_a_hub_row_without_a_label_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, label: int | None) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features(
        {"a": datasets.Value("string"), "b": datasets.Value("string"), "label": datasets.ClassLabel(names=["low", "high"])}
    )
    for split in ("train", "test"):
        data = datasets.Dataset.from_dict({"a": ["x", "y"], "b": ["p", "q"], "label": [0, label]}, features=features)
        data.to_parquet(tmp_path / "hub" / f"{split}.parquet")
    task = task_with(hub={"path": str(tmp_path / "hub"), "classes": ["low", "high"]})
    with pytest.raises(UserError, match=rf"train row 1: label={label}: must be one of 'low', 'high'"):
        load_rows(task, None)
