"""Episodes survive the way through Arrow unchanged, in blocks of any size and through a file."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from made_up_tasks import made_up_vocabulary, synthetic_store

from supmer.config import Config
from supmer.tasks.codec import EPISODE_SCHEMA, decode, encode
from supmer.tasks.episode import Episode
from supmer.tasks.sampler import EpisodeSampler


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    sampler = EpisodeSampler(synthetic_store(), made_up_vocabulary(), Config())
    assert {sampler.kind(step) for step in range(12)} == set(Config().tasks.kinds)
    return [sampler.episode(step, slot=step % 3) for step in range(12)]


def assert_same(one: Episode, other: Episode) -> None:
    assert (one.kind, one.step, one.slot) == (other.kind, other.step, other.slot)
    assert (one.clusters, one.augmentation_clusters) == (other.clusters, other.augmentation_clusters)
    for name in ("support", "query", "augmentation"):
        ours, theirs = getattr(one, name), getattr(other, name)
        assert len(ours) == len(theirs)
        for row, twin in zip(ours, theirs, strict=True):
            assert (row.label, row.sources) == (twin.label, twin.sources)
            for ids in ("input_ids", "centroid_ids", "target_ids"):
                np.testing.assert_array_equal(getattr(row, ids), getattr(twin, ids), strict=True)


def test_round_trip(episodes: list[Episode]) -> None:
    table = encode(episodes)
    assert table.schema == EPISODE_SCHEMA and table.num_rows == len(episodes)
    for one, other in zip(episodes, decode(table), strict=True):
        assert_same(one, other)


def test_slices_and_several_chunks(episodes: list[Episode]) -> None:
    table = pa.concat_tables([encode(episodes[:5]), encode(episodes[5:])]).slice(3, 6)
    for one, other in zip(episodes[3:9], decode(table), strict=True):
        assert_same(one, other)


def test_through_a_stream(episodes: list[Episode]) -> None:
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, EPISODE_SCHEMA) as writer:
        writer.write_table(encode(episodes))
    decoded = decode(pa.ipc.open_stream(buffer.getvalue()).read_all())
    for one, other in zip(episodes, decoded, strict=True):
        assert_same(one, other)
        assert other.query[0].input_ids.flags.writeable
