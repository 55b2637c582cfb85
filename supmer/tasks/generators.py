"""The self-supervised task kinds, five published and one of our own, as pure functions of (generator, units) (section 2).

A generator makes one set of rows (support, query or augmentation) with balanced labels in random order. It takes anchors
in the order of the pool, each once, and passes over units that lack a neighbour the row needs. Other sentences of the
pool that complete a row (partners from the same cluster, wrong options from other documents of the domain or from other
clusters) are taken in turn from its end, so they recur within the set only when the pool is small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from supmer.config import TaskKind
from supmer.corpus.topics import TopicWord
from supmer.corpus.unit import Unit, UnitKey
from supmer.tasks.episode import Example
from supmer.tasks.rows import RowLimits, Segment, choice_row, cluster_row, pair_row, topic_row
from supmer.tasks.vocabulary import TaskVocabulary

YES, NO, MAYBE = 0, 1, 2
"""Label indices of the sentence-pair format."""

UnitTest = Callable[[Unit], bool]


class NotEnoughUnits(LookupError):  # noqa: N818 - an ordinary outcome on small stores, answered by a larger pool
    """The pool cannot fill the set; a larger or another one may."""


@dataclass(frozen=True)
class UnitPool:
    """Units that one set is made from, in random order.

    `units` belong to `clusters`, the domain: one cluster, or for `scc` the classes in the order of their letters.
    `others` belong to other clusters (needed by `scsp` and `scss`). `topics` are the words of `clusters` and `ending` what
    asks for them (needed by `ctw`).
    """

    clusters: tuple[int, ...]
    units: Sequence[Unit]
    others: Sequence[Unit] = ()
    topics: tuple[TopicWord, ...] = ()
    ending: int = 0


@dataclass(frozen=True)
class SetShape:
    """Number of rows of a set, number of options of its multi-choice rows, and the rows' lengths."""

    num_rows: int
    num_options: int
    limits: RowLimits


Generator = Callable[[np.random.Generator, UnitPool, TaskVocabulary, SetShape], list[Example]]


def next_sentence_pairs(
    rng: np.random.Generator, pool: UnitPool, vocabulary: TaskVocabulary, shape: SetShape
) -> list[Example]:
    """`nsp`: adjacent (before or after) is yes, same document but not adjacent is maybe, other document is no."""
    anchors, turns = list(pool.units), _Turns(pool.units)
    has_partner: dict[int, UnitTest] = {YES: _has_adjacent, MAYBE: _has_elsewhere, NO: _any_unit}
    rows = []
    for label in balanced_labels(rng, shape.num_rows, num_classes=3):
        anchor = _take_anchor(anchors, has_partner[label])
        if label == YES:
            partner = _adjacent(rng, anchor)
        elif label == MAYBE:
            partner = _elsewhere(anchor)
        else:
            (partner,) = turns.take(1, _of_another_document(anchor))
        rows.append(pair_row(_itself(anchor), partner, label, vocabulary, shape.limits))
    return rows


def next_sentence_choices(
    rng: np.random.Generator, pool: UnitPool, vocabulary: TaskVocabulary, shape: SetShape
) -> list[Example]:
    """`nss`: the right option is adjacent; one wrong one is of the same document, the rest of other documents."""
    anchors, turns = list(pool.units), _Turns(pool.units)
    rows = []
    for label in balanced_labels(rng, shape.num_rows, shape.num_options):
        anchor = _take_anchor(anchors, _has_adjacent_and_elsewhere)
        wrong = [_elsewhere(anchor), *turns.take(shape.num_options - 2, _of_another_document(anchor))]
        options = _options(rng, _adjacent(rng, anchor), wrong, label)
        rows.append(choice_row(_itself(anchor), options, label, vocabulary, shape.limits))
    return rows


def same_cluster_pairs(
    rng: np.random.Generator, pool: UnitPool, vocabulary: TaskVocabulary, shape: SetShape
) -> list[Example]:
    """`scsp`: same cluster is yes, other cluster is no."""
    anchors, same, other = list(pool.units), _Turns(pool.units), _Turns(pool.others)
    rows = []
    for label in balanced_labels(rng, shape.num_rows, num_classes=2):
        anchor = _take_anchor(anchors, _any_unit)
        (partner,) = same.take(1, _other_than(anchor)) if label == YES else other.take(1, _any_unit)
        rows.append(pair_row(_itself(anchor), partner, label, vocabulary, shape.limits))
    return rows


def same_cluster_choices(
    rng: np.random.Generator, pool: UnitPool, vocabulary: TaskVocabulary, shape: SetShape
) -> list[Example]:
    """`scss`: the right option shares the anchor's cluster, the wrong ones are of other clusters."""
    anchors, same, other = list(pool.units), _Turns(pool.units), _Turns(pool.others)
    rows = []
    for label in balanced_labels(rng, shape.num_rows, shape.num_options):
        anchor = _take_anchor(anchors, _any_unit)
        (right,) = same.take(1, _other_than(anchor))
        options = _options(rng, right, other.take(shape.num_options - 1, _any_unit), label)
        rows.append(choice_row(_itself(anchor), options, label, vocabulary, shape.limits))
    return rows


def cluster_classes(rng: np.random.Generator, pool: UnitPool, vocabulary: TaskVocabulary, shape: SetShape) -> list[Example]:
    """`scc`: the letter of the sentence's cluster among `pool.clusters`."""
    sentences = list(pool.units)
    rows = []
    for label in balanced_labels(rng, shape.num_rows, len(pool.clusters)):
        sentence = _take_anchor(sentences, _of_cluster(pool.clusters[label]))
        rows.append(cluster_row(_itself(sentence), pool.clusters, label, vocabulary, shape.limits))
    return rows


def topic_words(rng: np.random.Generator, pool: UnitPool, vocabulary: TaskVocabulary, shape: SetShape) -> list[Example]:
    """`ctw`: the word of the sentence's cluster; no sentence holds one of the words, which could be copied."""
    sentences = list(pool.units)
    words = frozenset(form for topic in pool.topics for form in topic.forms)
    rows = []
    for label in balanced_labels(rng, shape.num_rows, len(pool.clusters)):
        sentence = _take_anchor(sentences, _of_cluster_without(pool.clusters[label], words))
        fixed = vocabulary.topic_endings[pool.ending]
        rows.append(topic_row(_itself(sentence), pool.topics[label].token, label, fixed, vocabulary, shape.limits))
    return rows


GENERATORS: dict[TaskKind, Generator] = {
    "nsp": next_sentence_pairs,
    "nss": next_sentence_choices,
    "scsp": same_cluster_pairs,
    "scss": same_cluster_choices,
    "scc": cluster_classes,
    "ctw": topic_words,
}


def balanced_labels(rng: np.random.Generator, num_rows: int, num_classes: int) -> list[int]:
    """Return `num_rows` labels in random order whose counts differ by at most one."""
    labels: list[int] = rng.permutation(np.resize(rng.permutation(num_classes), num_rows)).tolist()
    return labels


class _Turns:
    """Units handed out in turn, over and over, the last one first: anchors are taken from the other end."""

    def __init__(self, units: Sequence[Unit]) -> None:
        self._units = units[::-1]
        self._next = 0

    def take(self, count: int, accepts: UnitTest) -> list[Segment]:
        """Return `count` different units that are accepted, within one turn through all of them."""
        taken: list[Segment] = []
        for _ in range(len(self._units)):
            if len(taken) == count:
                break
            unit = self._units[self._next]
            self._next = (self._next + 1) % len(self._units)
            if accepts(unit):
                taken.append(_itself(unit))
        if len(taken) < count:
            raise NotEnoughUnits(f"{count} sentences needed to complete a row, {len(taken)} found")
        return taken


def _take_anchor(units: list[Unit], accepts: UnitTest) -> Unit:
    for index, unit in enumerate(units):
        if accepts(unit):
            return units.pop(index)
    raise NotEnoughUnits("too few sentences with the neighbours that a row needs")


def _options(rng: np.random.Generator, right: Segment, wrong: list[Segment], label: int) -> list[Segment]:
    """Return the wrong options in random order with the right one at position `label`."""
    options = [wrong[index] for index in rng.permutation(len(wrong))]
    options.insert(label, right)
    return options


def _any_unit(unit: Unit) -> bool:
    return True


def _has_adjacent(unit: Unit) -> bool:
    return unit.before is not None or unit.after is not None


def _has_elsewhere(unit: Unit) -> bool:
    return unit.elsewhere is not None


def _has_adjacent_and_elsewhere(unit: Unit) -> bool:
    return _has_adjacent(unit) and _has_elsewhere(unit)


def _of_another_document(anchor: Unit) -> UnitTest:
    return lambda unit: unit.document != anchor.document


def _other_than(anchor: Unit) -> UnitTest:
    return lambda unit: unit.key != anchor.key


def _of_cluster(cluster: int) -> UnitTest:
    return lambda unit: unit.cluster == cluster


def _of_cluster_without(cluster: int, tokens: frozenset[int]) -> UnitTest:
    return lambda unit: unit.cluster == cluster and tokens.isdisjoint(unit.tokens.tolist())


def _itself(unit: Unit) -> Segment:
    return Segment(unit.tokens, unit.key)


def _adjacent(rng: np.random.Generator, unit: Unit) -> Segment:
    """Return the unit before or after, by an even chance where there are both."""
    take_after = unit.before is None or (unit.after is not None and rng.random() < 0.5)
    tokens = unit.after if take_after else unit.before
    assert tokens is not None
    return Segment(tokens, UnitKey(unit.document, unit.position + (1 if take_after else -1)))


def _elsewhere(unit: Unit) -> Segment:
    assert unit.elsewhere is not None
    return Segment(unit.elsewhere, UnitKey(unit.document, unit.elsewhere_position))
