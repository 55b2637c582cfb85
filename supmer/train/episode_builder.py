"""The actor that builds episodes. It must not import torch: builders are many, and each would pay for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import pyarrow as pa

from supmer.config import Config
from supmer.corpus.store import TaskStore
from supmer.tasks.codec import encode
from supmer.tasks.sampler import EpisodeSampler
from supmer.tasks.vocabulary import TaskVocabulary


class EpisodeBuilder:
    """Turns a block of meta-steps into the encoded episodes of `slots` of each step, in order."""

    def __init__(self, store_uri: str, vocabulary: TaskVocabulary, config: Config, slots: Sequence[int]) -> None:
        self._store_uri = store_uri
        self._vocabulary = vocabulary
        self._config = config
        self._slots = slots

    @cached_property
    def _sampler(self) -> EpisodeSampler:
        # Not made in __init__: Ray hands on the type of an actor's error only when a call failed, not its creation.
        return EpisodeSampler(TaskStore.open(self._store_uri), self._vocabulary, self._config)

    def __call__(self, steps: pa.Table) -> pa.Table:
        return encode(self._sampler.episode(step, slot) for step in steps["step"].to_pylist() for slot in self._slots)
