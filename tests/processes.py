"""Finding the processes that a job has started."""

from __future__ import annotations

import psutil


def descendants(*words: str, of: int | None = None) -> list[psutil.Process]:
    """Return the running descendants of a process, this one unless said otherwise, whose command lines hold all words.

    Ray names a process after what it runs, such as `ray::ServeReplica:supmer:front`. A process that just ends is left out.
    """
    found = []
    for process in psutil.Process(of).children(recursive=True):
        try:
            title = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if all(word in title for word in words):
            found.append(process)
    return found
