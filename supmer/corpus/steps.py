"""Where the steps of a preparation run: a small corpus in threads of this process, any other in Ray tasks.

A step calls one function for many parts of the corpus; the function reads and writes files, so nothing depends on where it
runs. A small corpus is prepared sooner than the processes for it would have started: each imports for seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from threadpoolctl import threadpool_limits

from supmer.config import CorpusConfig
from supmer.progress import Progress

SMALL_BYTES = 8_000_000
"""Of files, compressed or not. On two cores Ray Data needs 15 s more at first, and is then twice as fast as one process."""


def is_small(corpus: CorpusConfig, sources: Mapping[str, Any]) -> bool:
    """Return whether this process is to prepare a corpus alone; `sources` are those of `describe_sources`.

    Not where there are GPUs or other machines to work on, nor where `corpus.embedders` asks for actors.
    """
    if corpus.embedders is not None or os.environ.get("RAY_ADDRESS"):
        return False
    import torch

    small = corpus.format == "package_docs" or sources.get("bytes", SMALL_BYTES + 1) <= SMALL_BYTES
    return small and not torch.cuda.is_available()


def num_cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_step(
    progress: Progress, function: Callable[..., Any], shared: Sequence[Any], parts: Sequence[tuple[Any, ...]], here: bool
) -> list[Any]:
    """Return what `function(*shared, *part)` returns for each part, in order.

    Args:
        progress: the step's; a part counts as one that is done.
        function: may run in another process.
        shared: arguments that all parts have in common, sent once.
        parts: the other arguments of each part.
        here: in threads of this process, with one thread for each matrix product; else in Ray tasks where data is prepared.
    """
    results: list[Any] = []
    if here:
        with progress, threadpool_limits(1), ThreadPoolExecutor(num_cores()) as threads:
            try:
                for done in [threads.submit(function, *shared, *part) for part in parts]:
                    results.append(done.result())
                    progress.add(1)
            except BaseException:
                threads.shutdown(cancel_futures=True)
                raise
        return results
    import ray

    from supmer.placement import on_data_nodes

    task, references = on_data_nodes(function), [ray.put(value) for value in shared]
    with progress:
        pending = tasks = [task.remote(*references, *part) for part in parts]
        while pending:
            done, pending = ray.wait(pending, num_returns=len(pending), timeout=1)
            ray.get(done)  # raises the error of a task that failed, without waiting for the others
            progress.add(len(done))
        results = ray.get(tasks)
    return results
