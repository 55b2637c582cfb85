"""English text that every installation has: the docstring prose of installed packages, and a few-shot task made of it.

The task asks which of four libraries a paragraph documents. A hash of the paragraph decides whether it belongs to the
task; those paragraphs are in no document of the corpus, whichever package repeats them.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import re
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Literal, TypedDict

from supmer.corpus.docstring_prose import prose_paragraphs
from supmer.errors import setting_error

TASK_LABELS = {"pandas": "tables", "scipy": "science", "sklearn": "learning", "networkx": "graphs"}
"""Libraries of the task in class order, each with its label word."""

TASK_SHARES = {"train": 0.08, "test": 0.08}
MIN_TASK_WORDS = 12
HASH_SEED = b"supmer package_docs 1"

SKIPPED_FOLDERS = frozenset(
    ("tests", "test", "testing", "_vendor", "vendored", "third_party", "thirdparty_files", "externals")
)

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
"""Fields of a statement that hold statements."""

# What gives the library away by its name alone is hidden; what it is about stays.
OWN_NAMES = re.compile(r"\b(pandas|pd|scipy|sklearn|scikit-learn|scikits?|networkx|nx)\b(\.\w+)*", re.IGNORECASE)
MASK = "this library"


class TaskRow(TypedDict):
    """One paragraph of the few-shot task with the index of its library in TASK_LABELS."""

    text: str
    label: int


def iter_documents(packages: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the dotted path and the prose of each module that has some, in the order of `packages` and of module paths.

    A paragraph that occurs several times is kept where it comes first; paragraphs of the task are left out.

    Raises:
        UserError: a package is not installed, or `packages` is empty.
    """
    if not packages:
        raise setting_error(
            "corpus.packages", "[]", "must name at least one installed package when corpus.format=package_docs"
        )
    folders = {package: package_folder(package) for package in packages}
    seen: set[str] = set()
    for package, folder in folders.items():
        for module, paragraphs in _modules(package, folder):
            kept = [text for text in dict.fromkeys(paragraphs) if text not in seen and task_split(text) is None]
            seen.update(kept)
            if kept:
                yield module, "\n\n".join(kept)


def task_rows(split: Literal["train", "test"]) -> list[TaskRow]:
    """Return the task's rows, as many of each library, in an order that a hash fixes.

    Raises:
        UserError: one of the four libraries is not installed.
    """
    found = {package: _task_paragraphs(package)[split] for package in TASK_LABELS}
    ambiguous = {text for text in set().union(*found.values()) if sum(text in texts for texts in found.values()) > 1}
    by_class = [sorted(texts - ambiguous, key=_digest) for texts in found.values()]
    smallest = min(len(texts) for texts in by_class)
    rows = [TaskRow(text=text, label=label) for label, texts in enumerate(by_class) for text in texts[:smallest]]
    return sorted(rows, key=lambda row: _digest(row["text"]))


def task_split(paragraph: str) -> Literal["train", "test"] | None:
    """Say which split of the task a paragraph belongs to, or None if it belongs to the corpus."""
    if len(paragraph.split()) < MIN_TASK_WORDS:
        return None
    position = int.from_bytes(_digest(mask_names(paragraph))[:8], "big") / 2**64
    if position < TASK_SHARES["train"]:
        return "train"
    return "test" if position < TASK_SHARES["train"] + TASK_SHARES["test"] else None


def mask_names(paragraph: str) -> str:
    """Replace the four libraries' own names, so that they do not give the answer away."""
    return OWN_NAMES.sub(MASK, paragraph)


def package_folder(package: str) -> Path:
    """Return where a package's source lies, without importing it.

    Raises:
        UserError: it is not installed, or is not a package.
    """
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise setting_error("corpus.packages", package, "no package of that name is installed in this environment")
    return Path(next(iter(spec.submodule_search_locations)))


@functools.cache
def _task_paragraphs(package: str) -> Mapping[str | None, set[str]]:
    """Return a package's masked paragraphs by split; None has those of the corpus."""
    found: dict[str | None, set[str]] = {split: set() for split in (*TASK_SHARES, None)}
    for _, paragraphs in _modules(package, package_folder(package)):
        for text in paragraphs:
            found[task_split(text)].add(mask_names(text))
    return found


def _modules(package: str, folder: Path) -> Iterator[tuple[str, Iterator[str]]]:
    """Yield each module's dotted path and prose paragraphs, sorted by path."""
    for file in sorted(folder.rglob("*.py")):
        relative = file.relative_to(folder)
        if not SKIPPED_FOLDERS.intersection(relative.parts):
            parts = [package, *relative.with_suffix("").parts]
            yield ".".join(parts).removesuffix(".__init__"), _paragraphs(file)


def _paragraphs(file: Path) -> Iterator[str]:
    """Yield the prose of a module's docstrings in source order; a file that is no Python source has none."""
    source = file.read_text(encoding="utf-8", errors="replace")
    if '"""' not in source and "'''" not in source:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    # Statements only: walking the expressions too would take most of the time of reading.
    left, documented = deque[ast.AST]([tree]), []
    while left:
        node = left.popleft()
        if isinstance(node, DOCUMENTED) and (docstring := ast.get_docstring(node, clean=False)):
            documented.append((getattr(node, "lineno", 0), docstring))
        for block in BLOCKS:
            left.extend(getattr(node, block, ()))
    for _, docstring in sorted(documented, key=itemgetter(0)):
        yield from prose_paragraphs(docstring)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16, key=HASH_SEED).digest()
