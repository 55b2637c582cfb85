"""Writes what the tutorial works with, from the documentation of Python's own library: 50 text files, and a labelled task.

    python docs/standard_library.py

`my-texts/` holds the text of one module in each file. `my-task/` holds sentences on other modules with what they are about
(numbers, files, text or network), and `rows.jsonl` a few of them without.
"""

from __future__ import annotations

import importlib
import inspect
import json
import random
from pathlib import Path
from types import ModuleType

TEXTS = """argparse array ast base64 bdb calendar cmd code collections concurrent.futures configparser contextlib copy
dataclasses datetime dis enum functools gc getopt graphlib heapq inspect io itertools json linecache locale
logging mailbox mimetypes operator optparse pickle pkgutil platform plistlib pstats queue sched selectors
shelve site sqlite3 struct subprocess threading timeit tokenize types"""

TASK = {
    "numbers": "cmath decimal fractions math random statistics",
    "files": "filecmp fileinput glob os pathlib shutil tarfile tempfile zipfile",
    "text": "codecs csv difflib html html.parser re string stringprep textwrap unicodedata",
    "network": "ftplib http.client imaplib poplib smtplib socket socketserver ssl urllib.parse urllib.request",
}


def public(owner: object) -> list[object]:
    """Return the functions and classes of a module, or the methods of a class, that are meant for others."""
    return [thing for name, thing in vars(owner).items() if not name.startswith("_") and callable(thing)]


def documentation(module: ModuleType) -> list[str]:
    """Return what a module, its public functions and classes, and their methods say about themselves."""
    things = [module, *public(module)]
    things += [method for thing in things if inspect.isclass(thing) for method in public(thing)]
    return list(filter(None, map(inspect.getdoc, things)))


def main() -> None:
    texts, task = Path("my-texts"), Path("my-task")
    texts.mkdir(exist_ok=True)
    for name in TEXTS.split():
        (texts / f"{name}.txt").write_text("\n\n".join(documentation(importlib.import_module(name))))
    found: dict[str, str] = {}
    for topic, names in TASK.items():
        for name in names.split():
            for text in documentation(importlib.import_module(name)):
                sentence = " ".join(text.split("\n\n")[0].split())
                if 5 <= len(sentence.split()) <= 40:
                    found.setdefault(sentence, topic)
    rows = [{"text": text, "about": topic} for text, topic in found.items()]
    random.Random(0).shuffle(rows)
    task.mkdir(exist_ok=True)
    for path, part in ((task / "train.jsonl", rows[:300]), (task / "test.jsonl", rows[300:500])):
        path.write_text("".join(json.dumps(row) + "\n" for row in part))
    Path("rows.jsonl").write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in rows[500:503]))
    print(f"{len(TEXTS.split())} texts in {texts}, 300 and 200 rows in {task}, 3 in rows.jsonl")


if __name__ == "__main__":
    main()
