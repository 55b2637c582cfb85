"""Data sets that `datasets` streams, here from folders of files as the hub stores them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from supmer.config import CorpusConfig
from supmer.corpus.hub import describe_hub, hub_shards, read_hub
from supmer.corpus.records import Record
from supmer.errors import UserError
from supmer.readers.skipped import Skipped


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    """Two files of the train split and one of the test split."""
    files = {"train-00000": ["one", "two\x00", " "], "train-00001": ["three"], "test-00000": ["four"]}
    for name, texts in files.items():
        rows = [json.dumps({"body": text, "key": f"k-{text[:3]}"}) for text in texts]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    return tmp_path


def read(config: CorpusConfig) -> tuple[list[Record], Skipped]:
    skipped = Skipped()
    return [record for shard in hub_shards(config) for record in read_hub(shard, config, skipped)], skipped


def settings(folder: Path, **changes: object) -> CorpusConfig:
    return CorpusConfig.model_validate({"format": "hub", "paths": [str(folder)], "text_column": "body", **changes})


def test_a_split_is_streamed_shard_by_shard(data_set: Path) -> None:
    config = settings(data_set)
    assert [(shard.index, shard.num_shards) for shard in hub_shards(config)] == [(0, 2), (1, 2)]
    rows, skipped = read(config)
    assert rows == [(f"{data_set}/train-0#0", "one"), (f"{data_set}/train-0#1", "two"), (f"{data_set}/train-1#0", "three")]
    assert skipped == {"empty_text": 1}
    assert read(settings(data_set, hub_split="test", id_column="key"))[0] == [("k-fou", "four")]


def test_a_changed_file_is_another_data_set(data_set: Path) -> None:
    before = describe_hub(settings(data_set))
    assert describe_hub(settings(data_set)) == before
    (data_set / "train-00001.jsonl").write_text('{"body": "changed", "key": "k"}')
    assert describe_hub(settings(data_set)) != before


def test_a_file_that_breaks_off_is_counted(data_set: Path) -> None:
    config = settings(data_set)
    shards = hub_shards(config)
    (data_set / "train-00001.jsonl").write_text('{"body": "thr')
    skipped = Skipped()
    assert [text for shard in shards for _, text in read_hub(shard, config, skipped)] == ["one", "two"]
    assert skipped == {"empty_text": 1, "broken_files": 1}


def test_what_is_not_there_is_refused(data_set: Path) -> None:
    with pytest.raises(UserError, match=r"corpus.paths=\[\]: must name at least one data set"):
        hub_shards(CorpusConfig(format="hub"))
    with pytest.raises(UserError, match=r"corpus.paths=.*nowhere: cannot be opened as a data set"):
        hub_shards(settings(data_set / "nowhere"))
    with pytest.raises(UserError, match=r"corpus.text_column=text: .* has no such column, only body, key"):
        hub_shards(settings(data_set, text_column="text"))
