"""The command line that all jobs share: ``--config FILE [section.key=value ...]``."""

from __future__ import annotations

import argparse
import logging
import os
import select
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn

from argcomplete.completers import FilesCompleter

from supmer import storage
from supmer.config import Config
from supmer.config.effects import fields
from supmer.config.load import load_config, settings_without_effect, shipped_names, to_yaml
from supmer.config.text import sections_help
from supmer.errors import UserError, causes, one_line, setting_error
from supmer.progress import ConsoleHandler
from supmer.redaction import RedactingFormatter, redact

logger = logging.getLogger(__name__)

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_NO_READER = 141
"""As a shell says of a process that SIGPIPE has ended."""


class JobParser(argparse.ArgumentParser):
    """A parser that reports a wrong argument like any other user's mistake: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def job_parser(description: str) -> JobParser:
    """Return the parser with the arguments that every job takes; a job may add its own."""
    parser = JobParser(
        description=description,
        epilog=sections_help(Config),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    file = parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"YAML file, or one that is shipped: {', '.join(shipped_names())}; without it the defaults below hold",
    )
    parser.add_argument("--print-config", action="store_true", help="print the resolved YAML and exit")
    settings = parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="settings that replace the file's"
    )
    # What a shell completes (argcomplete).
    file.completer = lambda prefix, **_: [*shipped_names(), *FilesCompleter(["yaml"])(prefix)]  # type: ignore[attr-defined]
    settings.completer = lambda **_: [f"{name}=" for name, _ in fields(Config)]  # type: ignore[attr-defined]
    return parser


Run = Callable[[Config, argparse.Namespace], int | None]
"""What a job does with the configuration and its own options; returns the exit code, None for 0."""


class Job(NamedTuple):
    """The command of a job, `supmer JOB` and `python pipeline/JOB.py`.

    Attributes:
        about: the help.
        run: what it does.
        add_options: adds the options that it alone has.
        has_settings: whether it takes ``--config FILE [section.key=value ...]``; `run` gets the defaults if not.
    """

    about: str | None
    run: Run
    add_options: Callable[[argparse.ArgumentParser], object] = lambda parser: None
    has_settings: bool = True

    def build_parser(self) -> JobParser:
        """Return the parser of the command line."""
        if self.has_settings:
            parser = job_parser(self.about or "")
        else:
            parser = JobParser(
                description=self.about, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
            )
        self.add_options(parser)
        return parser

    def main(self) -> None:
        """Do what the command line asks for, and exit."""
        if self.has_settings:
            run_job(self.run, self.build_parser())
        with users_mistakes_in_one_line():
            sys.exit(self.run(Config(), self.build_parser().parse_args()))


def run_job(job: Run, parser: argparse.ArgumentParser) -> NoReturn:
    """Parse the command line, load the configuration, run `job(config, arguments)` and exit with its code."""
    with users_mistakes_in_one_line():
        arguments = parser.parse_intermixed_args()
        config = load_config(arguments.config, arguments.overrides)
        if arguments.print_config:
            sys.stdout.write(to_yaml(config))
            sys.exit(0)
        _configure_logging(config.log.level)
        give_home()
        for line in settings_without_effect(config, arguments.config):
            logger.info(line)
        sys.exit(job(config, arguments) or 0)


@contextmanager
def users_mistakes_in_one_line() -> Iterator[None]:
    """End the process with one line and exit code 2 at a user's mistake in the block, with 130 at Ctrl-C.

    Where the reader of the output has gone, as `head` does, the process ends without a word.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        if _has_reader():  # so it was another pipe
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where what is still buffered goes at the end
        sys.exit(EXIT_NO_READER)
    except Exception as error:
        line = _line_for_user(error)
        if line is None:
            raise
        sys.stderr.write(f"error: {redact(line)}\n")
        sys.exit(EXIT_USER_ERROR)


def _has_reader() -> bool:
    """Return whether somebody still reads stdout."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # errors are told of without being asked for
    return not poll.poll(0)


def _line_for_user(error: Exception) -> str | None:
    """Return the line for a user's mistake, or for a disk or service that refused; None for a fault of the program."""
    for cause in causes(error):
        if isinstance(cause, UserError):
            return one_line(cause)
        if isinstance(cause, OSError) and storage.is_known(cause):
            return f"{cause.filename}: {storage.reason(cause)}" if cause.filename else storage.reason(cause)
    return None


def give_home() -> None:
    """Give a user without a home, as containers have, a folder for what libraries keep there; Ray would not start."""
    home = os.path.expanduser("~")
    if os.path.isabs(home) and os.access(home, os.W_OK | os.X_OK):
        return
    folder = Path(tempfile.gettempdir(), f"supmer-home-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise setting_error("HOME", home, f"must be a folder that can be written to, and {folder} belongs to another user")
    logger.info("HOME=%s cannot be written to: caches go to %s", home, folder)
    os.environ["HOME"] = str(folder)


def _configure_logging(level: str) -> None:
    handler = ConsoleHandler()
    handler.setFormatter(RedactingFormatter())
    # Other libraries log their own affairs at info, such as matplotlib's cache of fonts.
    logging.basicConfig(level=logging.DEBUG if level == "debug" else logging.WARNING, handlers=[handler])
    logging.getLogger("supmer").setLevel(level.upper())
    # It logs each try to reach the hub twice; the caller logs the outcome.
    logging.getLogger("huggingface_hub.utils._http").setLevel(logging.ERROR)
