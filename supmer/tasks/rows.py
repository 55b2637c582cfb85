"""From pieces of text to one row of each format, cut to length (section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from supmer.corpus.unit import TokenIds, UnitKey
from supmer.tasks.episode import NO_CENTROID, Example
from supmer.tasks.vocabulary import TaskVocabulary


class RowLimits(NamedTuple):
    """Lengths in tokens: of a whole row without its prompt, and of one option of a multi-choice row."""

    max_input_tokens: int
    max_option_tokens: int


class Segment(NamedTuple):
    """A piece of text in a row and the unit it comes from."""

    tokens: TokenIds
    key: UnitKey


def pair_row(first: Segment, second: Segment, label: int, vocabulary: TaskVocabulary, limits: RowLimits) -> Example:
    """Return ``A <X> B``, or for a decoder-only model ``A / B / The answer is`` in three lines."""
    fixed = (vocabulary.start, vocabulary.pair_middle, vocabulary.pair_end)
    left, right = share_room([first.tokens, second.tokens], limits.max_input_tokens - sum(map(len, fixed)))
    parts = [vocabulary.start, left, vocabulary.pair_middle, right, vocabulary.pair_end]
    return _text_row(parts, vocabulary.pair_targets[label], label, (first, second))


def choice_row(
    anchor: Segment, options: Sequence[Segment], label: int, vocabulary: TaskVocabulary, limits: RowLimits
) -> Example:
    """Return ``A ? A. c1 . B. c2 . ... ? The correct one is <X>``."""
    cut = [option.tokens[: limits.max_option_tokens] for option in options]
    room = limits.max_input_tokens - vocabulary.question_tokens(len(options))
    question, *choices = share_room([anchor.tokens, *cut], room)
    parts = [vocabulary.start, question, vocabulary.question_mark]
    for mark, choice in zip(vocabulary.letter_marks, choices, strict=False):
        parts += [mark, choice, vocabulary.full_stop]
    parts.append(vocabulary.ending)
    return _text_row(parts, vocabulary.letter_targets[label], label, (anchor, *options))


def cluster_row(
    sentence: Segment, clusters: Sequence[int], label: int, vocabulary: TaskVocabulary, limits: RowLimits
) -> Example:
    """Return ``S ? A. [c_a] . B. [c_b] . ... ? The correct one is <X>``, each ``[c_i]`` one centroid position."""
    room = limits.max_input_tokens - vocabulary.question_tokens(len(clusters)) - len(clusters)
    parts = [vocabulary.start, sentence.tokens[:room], vocabulary.question_mark]
    placeholder = np.array([vocabulary.placeholder], dtype=np.int32)
    position = sum(map(len, parts))
    positions = []
    for mark, _ in zip(vocabulary.letter_marks, clusters, strict=False):
        positions.append(position + len(mark))
        position += len(mark) + 1 + len(vocabulary.full_stop)
        parts += [mark, placeholder, vocabulary.full_stop]
    parts.append(vocabulary.ending)
    example = _text_row(parts, vocabulary.letter_targets[label], label, (sentence,))
    example.centroid_ids[positions] = clusters
    return example


def topic_row(
    sentence: Segment, topic: int, label: int, fixed: TokenIds, vocabulary: TaskVocabulary, limits: RowLimits
) -> Example:
    """Return ``S This is about <X>``, whose label is the token `topic`; `fixed` is what stands behind the sentence."""
    room = limits.max_input_tokens - len(vocabulary.start) - len(fixed)
    target = np.concatenate([vocabulary.label_start, np.array([topic], dtype=np.int32), vocabulary.label_end])
    return _text_row([vocabulary.start, sentence.tokens[:room], fixed], target, label, (sentence,))


def share_room(texts: Sequence[TokenIds], room: int) -> list[TokenIds]:
    """Cut the ends of the longest texts, to one common length, until all fit into `room` tokens together."""
    lengths = [len(text) for text in texts]
    if sum(lengths) <= room:
        return list(texts)
    limit = room
    for num_shorter, length in enumerate(sorted(lengths)):
        limit = room // (len(texts) - num_shorter)
        if length > limit:
            break
        room -= length
    return [text[:limit] for text in texts]


def _text_row(parts: Sequence[TokenIds], target: TokenIds, label: int, segments: Sequence[Segment]) -> Example:
    input_ids = np.concatenate(parts)
    return Example(
        input_ids=input_ids,
        centroid_ids=np.full(len(input_ids), NO_CENTROID, dtype=np.int32),
        target_ids=target,
        label=label,
        sources=frozenset(segment.key for segment in segments),
    )
