"""The one exception that means "the user can mend this"."""

from __future__ import annotations

from collections.abc import Iterator


class UserError(ValueError):
    """A user's mistake, in one line that names the setting, its value and what is allowed.

    Every `pipeline/` script prints the line to stderr without a traceback and exits with code 2.

    >>> from supmer import load_config
    >>> try:
    ...     load_config(None, ["meta.step=100"])
    ... except UserError as error:
    ...     print(error)
    meta.step: unknown setting; did you mean meta.steps, meta.inner_steps, meta.warmup_steps?
    """


class DivergedError(UserError):
    """A run whose numbers are no longer finite: nothing is wrong with its settings but what they lead to."""


def one_line(error: BaseException) -> str:
    """Return the message of an error, or its class where it has none, in one line of at most 600 letters."""
    return (" ".join(str(error).split()) or type(error).__name__)[:600]


def setting_error(setting: str, value: object, allowed: str) -> UserError:
    """Return the error of a setting that cannot be used, to be raised.

    >>> print(setting_error("tasks.num_support", 0, "must be at least 1"))
    tasks.num_support=0: must be at least 1
    """
    return UserError(f"{setting}={value}: {allowed}")


def users_mistake(error: BaseException) -> UserError | None:
    """Find a user's mistake among the causes of an error that other processes may have passed on."""
    return next((cause for cause in causes(error) if isinstance(cause, UserError)), None)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what caused it. Ray's own errors, also of the class they wrap, are left out for their `cause`."""
    while error is not None:
        wrapped = getattr(error, "cause", None)
        if wrapped is None:
            yield error
        error = wrapped or error.__cause__
