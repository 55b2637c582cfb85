"""Episodes as a pure function of (seed, split, meta-step, slot) (section 2)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from supmer.config import TASK_KINDS, Config, TaskKind
from supmer.corpus.topics import TopicWord
from supmer.corpus.unit import UnitKey
from supmer.errors import UserError
from supmer.tasks.episode import Episode, Example
from supmer.tasks.generators import GENERATORS, NotEnoughUnits, SetShape
from supmer.tasks.pools import PoolDraw, UnitStore, kind_needs
from supmer.tasks.rows import RowLimits
from supmer.tasks.vocabulary import TaskVocabulary

if TYPE_CHECKING:  # reads files, by pyarrow
    from supmer.corpus.manifest import Split

SPLIT_KEYS: dict[Split, int] = {"train": 0, "validation": 1}
KIND_STREAM, EPISODE_STREAM, VALIDATION_STREAM = 0, 1, 2
"""First spawn keys of the random streams below the run's seed. Other values here mean other episodes for every seed."""

OVERDRAW = (1.25, 5.0)
"""A first and a second attempt at a cluster: units drawn, as a multiple of what the sets show."""


class EpisodeSampler:
    """Draws episodes from a store. Who asks, and what was asked before, makes no difference to an episode.

    Raises:
        UserError: multi-choice rows need more letters than the tokenizer tells apart, or more room than a row has.
    """

    def __init__(self, store: UnitStore, vocabulary: TaskVocabulary, config: Config) -> None:
        self._store = store
        self._sizes = {split: {c: store.size(split, c) for c in sorted(store.clusters(split))} for split in SPLIT_KEYS}
        self._vocabulary = vocabulary
        self._seed = config.run.seed
        self._tasks = config.tasks
        self._limits = RowLimits(config.max_input_tokens, config.tasks.max_option_tokens)
        for setting in _option_settings(self._tasks.kinds):
            most = self._tasks.range_nss[1] if setting == "num_options_nss" else self._tasks.num_options
            _check_options(setting, most, vocabulary, config.max_input_tokens)

    def kind(self, step: int, split: Split = "train") -> TaskKind:
        """Return the kind of all episodes of a meta-step."""
        rng = self._generator(KIND_STREAM, SPLIT_KEYS[split], step)
        return self._tasks.kinds[int(rng.integers(len(self._tasks.kinds)))]

    def episode(self, step: int, slot: int, split: Split = "train") -> Episode:
        """Return the episode of one slot of a meta-batch.

        Raises:
            UserError: the split cannot host the kind of this step.
        """
        rng = self._generator(EPISODE_STREAM, SPLIT_KEYS[split], step, slot)
        return self._draw_episode(self.kind(step, split), split, rng, step, slot)

    def validation_episode(self, kind: TaskKind, index: int) -> Episode:
        """Return one of the run's fixed validation episodes; its `step` is 0 and its `slot` is `index`.

        Raises:
            UserError: the validation split cannot host the kind.
        """
        rng = self._generator(VALIDATION_STREAM, TASK_KINDS.index(kind), index)
        return self._draw_episode(kind, "validation", rng, 0, index)

    def _generator(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=stream))

    def _draw_episode(self, kind: TaskKind, split: Split, rng: np.random.Generator, step: int, slot: int) -> Episode:
        num_options = self._num_options(kind, rng)
        needs, able = kind_needs(kind, self._tasks, num_options), self._sizes[split]
        if needs.words:
            able = {cluster: size for cluster, size in able.items() if self._store.topic_words(cluster)}
            needs = replace(needs, num_clusters=int(rng.integers(2, needs.num_clusters + 1)))
        draw = PoolDraw(self._store, split, able, needs, num_options, rng)
        sizes = (self._tasks.num_support, self._tasks.num_query)
        clusters, (support, query) = self._draw_sets(kind, draw, sizes)
        shown = frozenset().union(*(row.sources for row in support + query))
        augmentation_clusters, (augmentation,) = self._draw_sets(kind, draw, sizes[1:], taken=shown, other_than=clusters)
        return Episode(
            kind=kind,
            step=step,
            slot=slot,
            clusters=clusters,
            augmentation_clusters=augmentation_clusters,
            support=support,
            query=query,
            augmentation=augmentation,
        )

    def _draw_sets(
        self,
        kind: TaskKind,
        draw: PoolDraw,
        set_sizes: Sequence[int],
        taken: Collection[UnitKey] = frozenset(),
        other_than: Collection[int] = (),
    ) -> tuple[tuple[int, ...], list[tuple[Example, ...]]]:
        """Return a domain and its sets. Clusters that turn out unable to fill them are passed over."""
        for clusters in draw.domains(set_sizes, other_than):
            topics, ending = self._draw_words(draw, clusters) if draw.needs.words else ((), 0)
            for overdraw in OVERDRAW:
                pools = [replace(x, topics=topics, ending=ending) for x in draw.pools(clusters, set_sizes, taken, overdraw)]
                try:
                    rows = [
                        GENERATORS[kind](
                            draw.rng, pool, self._vocabulary, SetShape(num_rows, draw.num_options, self._limits)
                        )
                        for pool, num_rows in zip(pools, set_sizes, strict=True)
                    ]
                except NotEnoughUnits:
                    continue
                return clusters, [tuple(one_set) for one_set in rows]
        raise UserError(self._cannot_host(kind, draw))

    def _draw_words(self, draw: PoolDraw, clusters: Sequence[int]) -> tuple[tuple[TopicWord, ...], int]:
        """Return one of the words of each cluster, and the number of what asks for them."""
        listed = [self._store.topic_words(cluster) for cluster in clusters]
        topics = tuple(words[int(draw.rng.integers(len(words)))] for words in listed)
        return topics, int(draw.rng.integers(len(self._vocabulary.topic_endings)))

    def _num_options(self, kind: TaskKind, rng: np.random.Generator) -> int:
        fewest, most = self._tasks.range_nss if kind == "nss" else (self._tasks.num_options, self._tasks.num_options)
        return fewest if fewest == most else int(rng.integers(fewest, most + 1))

    def _cannot_host(self, kind: TaskKind, draw: PoolDraw) -> str:
        needs, sizes = draw.needs, sorted(draw.sizes.values(), reverse=True)
        num_units = -(-(self._tasks.num_support + self._tasks.num_query) // needs.num_clusters)
        neighbours = " with neighbours, from several documents" if needs.neighbours else ""
        neighbours += " and topic words of their own" if needs.words else ""
        return (
            f"tasks.kinds={','.join(self._tasks.kinds)}: the store's {draw.split} split cannot make an episode of {kind}, "
            f"which takes {2 * needs.num_clusters} clusters, {needs.num_clusters} of them with {num_units} or more units"
            f"{neighbours}; it has {len(sizes)} clusters, the largest of {sizes[:5]} units. Give more text, fewer "
            "clusters.num_clusters, a smaller tasks.num_support or tasks.num_query, or leave the kind out"
        )


def _option_settings(kinds: Sequence[TaskKind]) -> list[str]:
    settings = {"nss": "num_options_nss", "scss": "num_options", "scc": "num_options"}
    return sorted({settings[kind] for kind in kinds if kind in settings})


def _check_options(setting: str, num_options: int, vocabulary: TaskVocabulary, max_input_tokens: int) -> None:
    if num_options > len(vocabulary.letter_targets):
        raise UserError(
            f"tasks.{setting}={num_options}: must be at most {len(vocabulary.letter_targets)}, the letters from A on that "
            "the tokenizer encodes with different first tokens"
        )
    needed = vocabulary.question_tokens(num_options) + num_options + 1
    if needed > max_input_tokens:
        raise UserError(
            f"tasks.{setting}={num_options}: a row of so many options takes {needed} tokens without any text, "
            f"tasks.max_length - prompt.length leaves {max_input_tokens}"
        )
