"""Whether a cloud's file system answers, asked in a process of its own before it is used.

pyarrow's client for Azure ends its whole process where credentials are missing; the one for Google Cloud waits for a quarter
of an hour where there is no network.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from functools import lru_cache

logger = logging.getLogger(__name__)

SCHEMES = ("gs", "gcs", "abfs", "abfss", "hf")
"""File systems that are asked; S3's client is given its patience in `supmer.s3`."""

ANSWER_SECONDS = 9.0

ASK = (
    "import sys; from pyarrow import fs; system, path = fs.FileSystem.from_uri(sys.stdin.read()); system.get_file_info(path)"
)


def why_silent(uri: str) -> str | None:
    """Return why the first folder of a URI cannot be looked up (no answer, no credentials, no such host), None if it can."""
    scheme, _, rest = uri.partition("://")
    path, question, options = rest.partition("?")
    return _ask(f"{scheme}://{'/'.join(path.split('/')[:2])}{question}{options}") if scheme in SCHEMES else None


@lru_cache(maxsize=256)
def _ask(uri: str) -> str | None:
    logger.info("looking for %s", uri)
    try:
        # The URI may hold a key, which must not show in the list of processes.
        done = subprocess.run([sys.executable, "-c", ASK], input=uri, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except subprocess.TimeoutExpired:
        return f"no answer within {ANSWER_SECONDS:g} seconds"
    if done.returncode == 0:
        return None
    noise = ("  File ", "See ", "/bin/sh")
    told = [line.strip() for line in done.stderr.splitlines() if line and not line.startswith(noise)]
    return told[-1].removeprefix("what():").strip()[:300] if told else "the file system's client gave up"
