"""The one exception that means "the user can mend this"."""

from __future__ import annotations


class UserError(ValueError):
    """A user's mistake, told in one line that names the setting, its value and what is allowed.

    Every `pipeline/` script prints the message to stderr without a traceback and exits with code 2.
    """


class DivergedError(UserError):
    """A run whose numbers are no longer finite: nothing is wrong with its settings but what they lead to."""


def describe_setting(setting: str, value: object, allowed: str) -> str:
    """Return the canonical one-line message, for example ``tasks.num_support=0: must be at least 1``."""
    return f"{setting}={value}: {allowed}"
