"""Passwords, tokens and keys must not get into logs, messages, configurations or run directories."""

from __future__ import annotations

import logging
import os
import re

HIDDEN = "***"

SECRET_VARIABLE = re.compile(r"(?:_|^)(?:KEY|KEY_ID|TOKEN|SECRET|PASSWORD)$")
"""Names of environment variables that hold secrets: AWS_SECRET_ACCESS_KEY, HF_TOKEN, WANDB_API_KEY and the like."""

SHORTEST_SECRET = 8
"""Shorter values, as of a variable that is only switched on or off, would be found in any text."""

URI_PASSWORD = re.compile(r"(?<=://)[^\s/@:]+:[^\s@]+(?=@)")
SIGNATURE = re.compile(r"(?<=X-Amz-Signature=)\w+|(?<=X-Amz-Security-Token=)[^\s&]+|(?<=X-Amz-Credential=)[^\s&]+")


def redact(text: str) -> str:
    """Hide the values of secret environment variables, and user names and passwords in URIs."""
    values = {value for name, value in os.environ.items() if SECRET_VARIABLE.search(name.upper())}
    for secret in sorted((value for value in values if len(value) >= SHORTEST_SECRET), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return SIGNATURE.sub(HIDDEN, URI_PASSWORD.sub(HIDDEN, text))


class RedactingFormatter(logging.Formatter):
    """Formats records, tracebacks included, as ``HH:MM:SS text``, and hides secrets in them.

    Warnings and errors carry their level; records of other libraries carry the name of the library.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(message)s", datefmt="%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (the base class's name)
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        library = "" if record.name.startswith("supmer") else f"{record.name.partition('.')[0]}: "
        return f"{record.asctime} {level}{library}{record.message}"

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))
