"""Whether the hub has to be asked for a model, and whether the hub answers."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from supmer.errors import one_line

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 9.0
"""Time for the hub to answer: the client's own retries take half a minute where there is no network."""
REPOSITORY = re.compile(r"[\w.-]+(/[\w.-]+)?")
COMMIT = re.compile(r"[0-9a-f]{40}")


class HubUnreachableError(Exception):
    """The hub does not answer, or does not know the model."""


@lru_cache(maxsize=32)
def only_cached(name: str, revision: str | None, file: str = "config.json") -> str | None:
    """Return None if a model is to be read from its folder or the hub, else why only the hub's cache can be read.

    Raises:
        HubUnreachableError: the hub answers that there is no such model or revision, or the name is none of the hub's.
    """
    if Path(name).is_dir():
        return None
    if not REPOSITORY.fullmatch(name):
        raise HubUnreachableError("there is no such folder")
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    if revision and COMMIT.fullmatch(revision) and isinstance(try_to_load_from_cache(name, file, revision=revision), str):
        return None  # every file of a commit that is cached is found without asking
    logger.info("looking for %s on the hub", name)
    url = hf_hub_url(name, file, revision=revision, endpoint=constants.ENDPOINT)
    error = error_of(lambda: get_hf_file_metadata(url, timeout=ANSWER_SECONDS))
    if isinstance(error, RepositoryNotFoundError):
        raise HubUnreachableError("the hub has no such model; a private or gated one needs HF_TOKEN") from error
    if isinstance(error, RevisionNotFoundError):
        raise HubUnreachableError(f"the hub's model has no revision {revision}") from error
    if error is None or isinstance(error, EntryNotFoundError):  # the hub answers; what lacks is said by whoever reads
        return None
    if isinstance(error, HfHubHTTPError):
        return f"{constants.ENDPOINT} answers {error.response.status_code}"
    return one_line(error)[:150]


def error_of(ask: Callable[[], object]) -> Exception | None:
    """Return the error that asking the hub raises, TimeoutError where no answer comes within ANSWER_SECONDS, else None."""
    errors: list[Exception] = []

    def run() -> None:
        try:
            ask()
        except Exception as error:  # the HTTP client's own kinds among them, which change between releases
            errors.append(error)

    # A thread, because no timeout of a client covers the resolution of names; a daemon, because nobody waits for the rest.
    asking = threading.Thread(target=run, daemon=True)
    asking.start()
    asking.join(ANSWER_SECONDS)
    if asking.is_alive():
        return TimeoutError(f"no answer from {constants.ENDPOINT} within {ANSWER_SECONDS:g} seconds")
    return next(iter(errors), None)
