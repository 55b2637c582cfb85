"""Episodes of every kind on made-up stores: true to the definitions, disjoint, and the same whoever asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_tasks import MemoryStore, made_up_vocabulary, synthetic_store

from supmer.config import Config, TaskKind
from supmer.config.method import PUBLISHED_KINDS
from supmer.config.values import validate
from supmer.corpus.unit import Unit, UnitKey
from supmer.errors import UserError
from supmer.tasks.episode import NO_CENTROID, Episode, Example
from supmer.tasks.sampler import EpisodeSampler

VOCABULARY = made_up_vocabulary()

kinds = st.sampled_from(PUBLISHED_KINDS)
places = st.integers(0, 10**6)


def make_config(seed: int = 0, **tasks: object) -> Config:
    values = {"num_support": 7, "num_query": 5, "max_length": 80, "max_option_tokens": 12, **tasks}
    return Config.model_validate(
        {
            "run": {"seed": seed},
            "tasks": values,
            "prompt": {"length": 5},
            "train": {"max_tokens_per_microbatch": 512},
        }
    )


@cache
def store() -> MemoryStore:
    return synthetic_store()


@cache
def units_by_first_token() -> dict[int, Unit]:
    return {int(unit.tokens[0]): unit for split in ("train", "validation") for unit in store().all_units(split)}


def shown(row: Example) -> list[Unit]:
    """The units a row shows, in their order, found by their first tokens."""
    return [units_by_first_token()[int(token)] for token in row.input_ids if token >= 1000]


def rows_of(episode: Episode) -> dict[str, tuple[Example, ...]]:
    return {"support": episode.support, "query": episode.query, "augmentation": episode.augmentation}


def keys_of(rows: Iterable[Example]) -> set[UnitKey]:
    return set().union(*(row.sources for row in rows))


def sample(kind: TaskKind, seed: int, step: int, slot: int, **tasks: object) -> Episode:
    return EpisodeSampler(store(), VOCABULARY, make_config(seed, kinds=[kind], **tasks)).episode(step, slot)


def is_adjacent(one: Unit, other: Unit) -> bool:
    return one.document == other.document and abs(one.position - other.position) == 1


def is_apart(one: Unit, other: Unit) -> bool:
    return one.document == other.document and abs(one.position - other.position) > 1


def check_nsp(row: Example, clusters: tuple[int, ...]) -> None:
    anchor, partner = shown(row)
    assert anchor.cluster == clusters[0]
    assert row.label == (0 if is_adjacent(anchor, partner) else 2 if is_apart(anchor, partner) else 1)


def check_nss(row: Example, clusters: tuple[int, ...]) -> None:
    anchor, *options = shown(row)
    assert anchor.cluster == clusters[0]
    assert len({option.key for option in options}) == 6
    assert [is_adjacent(anchor, option) for option in options] == [number == row.label for number in range(6)]
    assert sum(is_apart(anchor, option) for option in options) == 1
    assert all(option.cluster == clusters[0] for option in options if option.document != anchor.document)


def check_scsp(row: Example, clusters: tuple[int, ...]) -> None:
    anchor, partner = shown(row)
    assert anchor.cluster == clusters[0] and anchor.key != partner.key
    assert row.label == (0 if partner.cluster == anchor.cluster else 1)


def check_scss(row: Example, clusters: tuple[int, ...]) -> None:
    anchor, *options = shown(row)
    assert anchor.cluster == clusters[0] and anchor.key not in {option.key for option in options}
    assert [option.cluster == clusters[0] for option in options] == [number == row.label for number in range(4)]
    assert len({option.key for option in options}) == 4


def check_scc(row: Example, clusters: tuple[int, ...]) -> None:
    (sentence,) = shown(row)
    assert sentence.cluster == clusters[row.label]
    positions = np.flatnonzero(row.centroid_ids != NO_CENTROID)
    assert row.centroid_ids[positions].tolist() == list(clusters)
    for position, mark in zip(positions, VOCABULARY.letter_marks, strict=False):
        assert row.input_ids[position] == VOCABULARY.placeholder
        assert row.input_ids[position - len(mark) : position].tolist() == mark.tolist()


CHECKS = {"nsp": check_nsp, "nss": check_nss, "scsp": check_scsp, "scss": check_scss, "scc": check_scc}
NUM_LABELS = {"nsp": 3, "nss": 6, "scsp": 2, "scss": 4, "scc": 4}


@given(st.integers(0, 2**40), places, places, st.integers(2, 6))
def test_topic_words_label_sentences_that_hold_none_of_them(seed: int, step: int, slot: int, num_topics: int) -> None:
    num_topics = min(num_topics, 3)  # of seven clusters with words, three are left for the augmentation
    episode = sample("ctw", seed, step, slot, num_topics=num_topics)
    assert 2 <= len(set(episode.clusters)) == len(set(episode.augmentation_clusters)) <= num_topics
    assert not {7, *episode.clusters} & set(episode.augmentation_clusters) and 7 not in episode.clusters
    for name, rows in rows_of(episode).items():
        clusters = episode.augmentation_clusters if name == "augmentation" else episode.clusters
        words = {row.label: int(row.target_ids[1]) for row in rows}
        counts = Counter(row.label for row in rows)
        assert max(counts.values()) - min(counts[label] for label in range(len(clusters))) <= 1
        for row in rows:
            (sentence,) = shown(row)
            assert sentence.cluster == clusters[row.label]
            assert row.target_ids.tolist() == [2, words[row.label], 3]  # one word a cluster in all of a set
            assert words[row.label] in (100 + sentence.cluster, 120 + sentence.cluster)
            forms = {form for word in words.values() for form in (word, word + 50)}
            assert forms.isdisjoint(sentence.tokens.tolist())
            assert row.input_ids.tolist()[-2:] in ([22, 2], [24, 2])
    support, query = ({int(row.target_ids[1]) for row in rows} for rows in (episode.support, episode.query))
    assert support == query


def test_right_options_come_from_both_sides() -> None:
    rows = [row for step in range(40) for row in sample("nss", 0, step, 0).query]
    sides = Counter(shown(row)[1 + row.label].position - shown(row)[0].position for row in rows)
    assert set(sides) == {-1, 1}
    assert 0.35 < sides[1] / len(rows) < 0.65


@given(kinds, st.integers(0, 2**40), places, places)
def test_rows_are_what_their_labels_say(kind: TaskKind, seed: int, step: int, slot: int) -> None:
    episode = sample(kind, seed, step, slot)
    targets = VOCABULARY.pair_targets if kind in ("nsp", "scsp") else VOCABULARY.letter_targets
    for name, rows in rows_of(episode).items():
        clusters = episode.augmentation_clusters if name == "augmentation" else episode.clusters
        for row in rows:
            CHECKS[kind](row, clusters)
            assert row.target_ids.tolist() == targets[row.label].tolist()
            assert row.sources == {unit.key for unit in shown(row)}


@given(kinds, places, st.integers(1, 20), st.integers(1, 20))
def test_sizes_and_balance(kind: TaskKind, step: int, num_support: int, num_query: int) -> None:
    episode = sample(kind, 0, step, 0, num_support=num_support, num_query=num_query)
    assert (len(episode.support), len(episode.query), len(episode.augmentation)) == (num_support, num_query, num_query)
    for rows in rows_of(episode).values():
        counts = Counter(row.label for row in rows)
        assert set(counts) <= set(range(NUM_LABELS[kind]))
        assert max(counts.values()) - min(counts[label] for label in range(NUM_LABELS[kind])) <= 1


@given(kinds, places, st.integers(69, 120))
def test_rows_fit_and_keep_what_must_survive(kind: TaskKind, step: int, max_length: int) -> None:
    episode = sample(kind, 0, step, 0, max_length=max_length)
    for row in (*episode.support, *episode.query, *episode.augmentation):
        assert len(row.input_ids) == len(row.centroid_ids) <= max_length - 5
        assert {row.input_ids.dtype, row.centroid_ids.dtype, row.target_ids.dtype} == {np.dtype(np.int32)}
        if kind in ("nsp", "scsp"):
            (position,) = np.flatnonzero(row.input_ids == VOCABULARY.pair_middle[0])
            assert 0 < position < len(row.input_ids) - 1
        else:
            assert row.input_ids[-len(VOCABULARY.ending) :].tolist() == VOCABULARY.ending.tolist()


@given(kinds, places, places)
def test_sets_share_no_sentence_and_domains_no_cluster(kind: TaskKind, step: int, slot: int) -> None:
    episode = sample(kind, 0, step, slot, num_support=12, num_query=12)
    for one, other in combinations(rows_of(episode).values(), 2):
        assert not keys_of(one) & keys_of(other)
    assert not set(episode.clusters) & set(episode.augmentation_clusters)
    assert len(set(episode.clusters)) == len(set(episode.augmentation_clusters)) == (4 if kind == "scc" else 1)


@given(kinds, places)
def test_splits_do_not_mix(kind: TaskKind, step: int) -> None:
    sampler = EpisodeSampler(store(), VOCABULARY, make_config(kinds=[kind]))
    held_out = {unit.document for unit in store().all_units("validation")}
    for episode, is_validation in (
        (sampler.episode(step, 0), False),
        (sampler.episode(step, 0, "validation"), True),
        (sampler.validation_episode(kind, step), True),
    ):
        documents = {key.document for rows in rows_of(episode).values() for key in keys_of(rows)}
        assert documents <= held_out if is_validation else not documents & held_out


def test_episodes_do_not_depend_on_who_asks_or_when() -> None:
    config = make_config(seed=3)
    wanted = [(step, slot) for step in range(6) for slot in range(4)]
    one, other = (EpisodeSampler(store(), VOCABULARY, config) for _ in range(2))
    forwards = {place: fingerprint(one.episode(*place)) for place in wanted}
    other.validation_episode("scss", 0)
    backwards = {place: fingerprint(other.episode(*place)) for place in reversed(wanted)}
    assert forwards == backwards
    assert len(set(forwards.values())) == len(wanted)


def test_seed_split_step_slot_and_index_all_matter() -> None:
    sampler = EpisodeSampler(store(), VOCABULARY, make_config(kinds=["nss"]))
    other_seed = EpisodeSampler(store(), VOCABULARY, make_config(seed=1, kinds=["nss"]))
    episodes = [sampler.episode(*place) for place in ((0, 0), (0, 1), (1, 0), (0, 0, "validation"))]
    episodes += [sampler.validation_episode("nss", index) for index in range(3)]
    episodes += [other_seed.episode(0, 0), other_seed.validation_episode("nss", 0)]
    assert len({fingerprint(episode) for episode in episodes}) == len(episodes)


def test_episodes_stay_the_same_over_versions() -> None:
    sampler = EpisodeSampler(store(), VOCABULARY, make_config())
    assert [sampler.kind(step) for step in range(6)] == ["scsp", "scss", "nsp", "nsp", "nsp", "scc"]
    assert [sampler.episode(step, 1).clusters for step in range(3)] == [(7,), (1,), (2,)]


def test_kinds_are_shared_by_slots_and_drawn_evenly() -> None:
    sampler = EpisodeSampler(store(), VOCABULARY, make_config())
    assert len({sampler.episode(5, slot).kind for slot in range(6)}) == 1
    counts = Counter(sampler.kind(step) for step in range(5000))
    assert set(counts) == set(PUBLISHED_KINDS)
    assert all(880 < count < 1120 for count in counts.values())


@settings(max_examples=30)
@given(kinds, st.integers(0, 50), st.integers(2, 4))
def test_small_stores_host_small_episodes(kind: TaskKind, seed: int, num_rows: int) -> None:
    small = synthetic_store(num_documents=32, num_clusters=4, seed=seed)
    config = make_config(kinds=[kind], num_support=num_rows, num_query=num_rows, num_options=2, num_options_nss=3)
    episode = EpisodeSampler(small, VOCABULARY, config).validation_episode(kind, seed)
    assert not keys_of(episode.support) & keys_of(episode.query)


@pytest.mark.parametrize("kind", PUBLISHED_KINDS)
def test_a_split_that_cannot_host_a_kind_is_named(kind: TaskKind) -> None:
    tiny = synthetic_store(num_documents=4, num_clusters=3)
    sampler = EpisodeSampler(tiny, VOCABULARY, make_config(kinds=[kind], num_support=64))
    with pytest.raises(
        UserError, match=f"tasks.kinds={kind}: the store's validation split cannot make an episode of {kind}"
    ):
        sampler.validation_episode(kind, 0)


def test_too_many_options_are_refused() -> None:
    with pytest.raises(UserError, match=r"tasks\.num_options_nss=9: must be at most 8"):
        EpisodeSampler(store(), VOCABULARY, make_config(kinds=["nss"], num_options_nss=9, max_length=128))
    EpisodeSampler(store(), VOCABULARY, make_config(kinds=["nsp"], num_options_nss=9, max_length=128))


def test_a_range_of_options_is_drawn_from_once_an_episode() -> None:
    """As Unified PPT asks for: all rows of an episode have one number of options, and all numbers come."""
    config = make_config(kinds=["nss"], num_options_nss=[2, 5])
    sampler = EpisodeSampler(store(), VOCABULARY, config)
    seen: Counter[int] = Counter()
    for step in range(40):
        episode = sampler.episode(step, 0)
        numbers = {len(shown(row)) - 1 for one_set in rows_of(episode).values() for row in one_set}
        assert len(numbers) == 1
        seen[numbers.pop()] += 1
    assert set(seen) == {2, 3, 4, 5}
    same = EpisodeSampler(store(), VOCABULARY, make_config(kinds=["nss"], num_options_nss=[4, 4])).episode(3, 1)
    fixed = EpisodeSampler(store(), VOCABULARY, make_config(kinds=["nss"], num_options_nss=4)).episode(3, 1)
    assert fingerprint(same) == fingerprint(fixed)


@pytest.mark.parametrize("wrong", [1, 27, [4], [5, 4], [1, 4], [2, 3, 4], [2, 27]])
def test_ranges_of_options_that_cannot_be(wrong: object) -> None:
    with pytest.raises(UserError, match=r"tasks\.num_options_nss=.*a number from 2 to 26, or two of them"):
        validate({"tasks": {"num_options_nss": wrong}})


def fingerprint(episode: Episode) -> tuple[object, ...]:
    rows = (*episode.support, *episode.query, *episode.augmentation)
    return (episode.kind, episode.clusters, *(row.input_ids.tobytes() + row.target_ids.tobytes() for row in rows))
