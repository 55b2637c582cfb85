"""S3 and services with its API: where they are, how long they may fail, and what their errors mean."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from pyarrow import fs

from supmer.errors import UserError

MAX_ATTEMPTS = 10
"""Of one request. The pauses between them double from a second to twenty: a service may be away for about a minute."""

CONNECT_SECONDS, SILENCE_SECONDS = 5.0, 30.0
"""A request without an answer for so long counts as failed and is sent again."""

BROKEN_ANSWERS = ("AWS Error INTERNAL_FAILURE ", "AWS Error NETWORK_CONNECTION ")
"""Errors by which the client gives up when an answer is lost, or is longer than the object that it reads (an error page)."""
AT_ONCE_SECONDS = 5.0
MAX_READS, FIRST_PAUSE_SECONDS = 6, 0.2

Result = TypeVar("Result")

OPTIONS = ("endpoint_override", "region", "scheme")
"""Options that a URI may end in: ``s3://bucket/folder?region=eu-west-1``."""

ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")

MEANINGS = {
    "NO_SUCH_BUCKET": "there is no such bucket",
    "INVALID_ACCESS_KEY_ID": "the service does not know the access key (AWS_ACCESS_KEY_ID, or the profile or role in use)",
    "SIGNATURE_DOES_NOT_MATCH": "the secret key is wrong (AWS_SECRET_ACCESS_KEY, or the profile or role in use)",
    "ACCESS_DENIED": "access denied: the credentials (AWS_ACCESS_KEY_ID, or the profile or role in use) are wrong or lack "
    "this right",
    "NETWORK_CONNECTION": "the service cannot be reached",
}
"""The service's answers that a user can act on."""


class PatientS3(fs.S3FileSystem):  # type: ignore[misc]  # pyarrow is untyped here
    """pyarrow's S3 with its standard retries, exponential back-off with jitter, but more of them.

    It travels to other processes by its options: pyarrow's own way would leave the number of attempts behind.
    """

    def __init__(self, **options: str) -> None:
        self._options = options
        super().__init__(
            **options,
            connect_timeout=CONNECT_SECONDS,
            request_timeout=SILENCE_SECONDS,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=MAX_ATTEMPTS),
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(PatientS3, **self._options), ()


def resolve(uri: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of an ``s3://`` URI and the path inside it, ``bucket/folder``.

    Credentials are those of the AWS tools: environment variables, profiles, roles of the machine. The end point is the
    option `endpoint_override`, else AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, else Amazon's for the bucket's region.

    Raises:
        UserError: an option of the URI is unknown.
        OSError: the bucket's region cannot be found.
    """
    parts = urlsplit(uri)
    options = dict(parse_qsl(parts.query))
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise UserError(f"{uri}: option {unknown[0]} is unknown, must be one of {', '.join(OPTIONS)}")
    endpoint = next((os.environ[name] for name in ENDPOINT_VARIABLES if os.environ.get(name)), None)
    if endpoint:
        options.setdefault("endpoint_override", endpoint)
    return _connect(parts.netloc, tuple(sorted(options.items()))), (parts.netloc + parts.path).rstrip("/")


def is_from_service(error: OSError) -> bool:
    """Return whether the service, or the way to it, failed; a missing object is a FileNotFoundError instead."""
    return "AWS Error " in str(error)


def meaning(error: OSError) -> str | None:
    """Say in a user's words what the service answered; None if this is another kind of error."""
    text = str(error)
    return next((words for code, words in MEANINGS.items() if f"AWS Error {code} " in text), None)


@lru_cache
def _connect(bucket: str, options: tuple[tuple[str, str], ...]) -> PatientS3:
    given = dict(options)
    if not {"region", "endpoint_override"} & set(given):
        given["region"] = fs.resolve_s3_region(bucket)
    return PatientS3(**given)


def read_again(read: Callable[[], Result]) -> Result:
    """Return what `read` returns; where the client gave up at once, try again after pauses that double.

    Raises:
        OSError: as `read` does, for other reasons or the last time.
    """
    for number in range(MAX_READS - 1):
        started = time.monotonic()
        try:
            return read()
        except OSError as error:
            gave_up_at_once = time.monotonic() - started < AT_ONCE_SECONDS
            if not gave_up_at_once or not any(answer in str(error) for answer in BROKEN_ANSWERS):
                raise
        time.sleep(FIRST_PAUSE_SECONDS * 2**number)
    return read()
