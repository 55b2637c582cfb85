"""Text of labelled tasks kept out of the corpus: what a prompt was meta-trained on must not be in the test that judges it.

A unit is left out if it shares `corpus.exclude_words` words in a row (letters and digits, in lower case) with any text of
a row; a text of fewer words, down to MIN_EXCLUDE_WORDS, is looked for as a whole. Only hashes are kept, 8 bytes each.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from supmer.config import CorpusConfig
from supmer.config.corpus import MIN_EXCLUDE_WORDS
from supmer.errors import one_line, setting_error
from supmer.readers.files import InputFile, list_files
from supmer.readers.rows import READ_ERRORS, ReadOptions, read_rows
from supmer.readers.skipped import SKIP_REASONS, Skipped
from supmer.readers.values import text_of

logger = logging.getLogger(__name__)

Keys = npt.NDArray[np.uint64]

WORD = re.compile(r"\w+")
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""Of the polynomial over the hashes of a run's words; odd, so that no word's bits are lost."""

TEXTS_AT_ONCE = 10_000
EXCLUDED_SCHEMA = pa.schema([("num_words", pa.int32()), ("key", pa.uint64())])


class ExcludedText:
    """Runs of words that must not occur: sorted hashes by the number of words."""

    def __init__(self, keys: Mapping[int, Keys]) -> None:
        self.keys = {size: np.unique(values) for size, values in sorted(keys.items()) if len(values)}

    @classmethod
    def of_texts(cls, texts: Iterator[str], num_words: int) -> ExcludedText:
        """Take all runs of `num_words` words, and the whole of shorter texts."""
        keys: dict[int, list[Keys]] = defaultdict(list)
        while batch := list(islice(texts, TEXTS_AT_ONCE)):
            words = [_words(text) for text in batch]
            for size in range(MIN_EXCLUDE_WORDS, num_words + 1):
                fitting = [one for one in words if len(one) == size or len(one) >= size == num_words]
                keys[size].append(run_keys(fitting, size)[0])
        return cls({size: np.unique(np.concatenate(found)) for size, found in keys.items()})

    @classmethod
    def from_table(cls, table: pa.Table) -> ExcludedText:
        """Read what `to_table` gives."""
        sizes, keys = table["num_words"].to_numpy(), table["key"].to_numpy()
        return cls({int(size): keys[sizes == size] for size in np.unique(sizes)})

    def to_table(self) -> pa.Table:
        """Return the keys as rows of EXCLUDED_SCHEMA."""
        sizes = [np.full(len(keys), size, np.int32) for size, keys in self.keys.items()]
        columns = [np.concatenate([np.empty(0, np.int32), *sizes]), np.concatenate([_NO_KEYS, *self.keys.values()])]
        return pa.table(columns, schema=EXCLUDED_SCHEMA)

    def occurs_in(self, texts: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Tell of each text whether it holds one of the runs."""
        found = np.zeros(len(texts), dtype=np.bool_)
        words = [_words(text) for text in texts] if self.keys else []
        for size, keys in self.keys.items():
            runs, owners = run_keys(words, size)
            places = np.minimum(np.searchsorted(keys, runs), len(keys) - 1)
            found[owners[keys[places] == runs]] = True
        return found


def task_files(config: CorpusConfig) -> tuple[InputFile, ...]:
    """List the files of rows of `corpus.exclude_tasks`; plain text beside them is no task.

    Raises:
        UserError: a path does not exist, or leads to no file of rows.
    """
    files: list[InputFile] = []
    for entry in config.exclude_tasks:
        found = [file for file in list_files([entry], "auto", "corpus.exclude_tasks").files if file.format != "text"]
        if not found:
            allowed = "must be a file of rows (JSON, CSV, Parquet, Arrow) or a folder with some"
            raise setting_error("corpus.exclude_tasks", entry, allowed)
        files += found
    return tuple(files)


def read_excluded(config: CorpusConfig) -> ExcludedText:
    """Return the runs of words of all text in all rows of `corpus.exclude_tasks`; what cannot be read is reported.

    Raises:
        UserError: a path does not exist, or leads to no file of rows.
    """
    skipped = Skipped()

    def texts() -> Iterator[str]:
        for file in task_files(config):
            try:
                for _, _, row in read_rows(file, ReadOptions(config.encoding), (), None, skipped):
                    yield from (text for value in row.values() if (text := text_of(value)))
            except READ_ERRORS as error:
                logger.warning("corpus.exclude_tasks: %s breaks off: %s", file.path, one_line(error)[:200])

    excluded = ExcludedText.of_texts(texts(), config.exclude_words)
    for reason, count in skipped.items():
        where = ", ".join(skipped.places.get(reason, ()))
        logger.warning("corpus.exclude_tasks: %d %s were passed over (%s)", count, SKIP_REASONS.get(reason, reason), where)
    return excluded


def run_keys(words: Sequence[Sequence[str]], size: int) -> tuple[Keys, npt.NDArray[np.int64]]:
    """Return a hash of each run of `size` words within a text, and the index of the text it is in."""
    lengths = np.array([len(one) for one in words], dtype=np.int64)
    num_runs = int(lengths.sum()) - size + 1
    if num_runs <= 0:
        return _NO_KEYS, np.empty(0, dtype=np.int64)
    hashes = np.fromiter((_word_hash(word) for one in words for word in one), np.uint64, num_runs + size - 1)
    keys = np.zeros(num_runs, dtype=np.uint64)
    for offset in range(size):
        keys = keys * MULTIPLIER + hashes[offset : offset + num_runs]
    owners = np.repeat(np.arange(len(words)), lengths)
    is_inside = owners[:num_runs] == owners[size - 1 :]
    return keys[is_inside], owners[:num_runs][is_inside]


_NO_KEYS: Keys = np.empty(0, dtype=np.uint64)


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower())


@lru_cache(maxsize=200_000)
def _word_hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")
