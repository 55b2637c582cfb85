"""What the documentation names is there: files, functions, links."""

from __future__ import annotations

import ast
import re
import shlex
from itertools import takewhile
from pathlib import Path

import pytest

from supmer.config.load import load_config
from supmer.jobs.command import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted(path for folder in ("docs", "experiments") for path in (ROOT / folder).rglob("*.md"))]


def names_in(path: Path) -> set[str]:
    """Return functions, classes and methods (as `Class.method`) of a file."""
    tree = ast.parse(path.read_text())
    found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return found


def test_the_way_to_the_gradient_names_what_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    pointers = re.findall(r"`([a-z_/]+\.py):([A-Za-z_.]+)`", text)
    assert len(pointers) > 10
    assert [pointer for pointer in pointers if pointer[1] not in names_in(ROOT / "supmer" / pointer[0])] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []
    if (docs := ROOT / "docs") in page.parents:  # the site has nothing from outside
        assert [target for target in local if docs not in (page.parent / target).resolve().parents] == []


def commands(page: Path) -> list[list[str]]:
    """Return the commands of jobs in a page's blocks, split as a shell does."""
    text = page.read_text().replace("\\\n", " ")
    lines = [*re.findall(r"^    (\S.*)$", text, re.MULTILINE)]
    lines += [
        line
        for block in re.findall(r"^```(?:bash[^\n]*)?\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
    ]
    found = re.findall(r"^(?:supmer ([a-z-]+)|python pipeline/([a-z_]+)\.py) (.*)$", "\n".join(lines), re.MULTILINE)
    words = [[job or script.replace("_", "-"), *shlex.split(rest, comments=True)] for job, script, rest in found]
    return [list(takewhile(lambda word: word not in ("&", "&&", "|", ">"), command)) for command in words]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_such_as_the_jobs_take(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options, shipped configurations and settings; what a command does is tested with its job."""
    monkeypatch.chdir(ROOT)
    for job, *arguments in commands(page):
        if "..." in " ".join(arguments) or "--help" in arguments:
            continue
        parser = COMMANDS[job].build_parser()
        if job in ("compare", "config", "export"):  # without settings
            parser.parse_args(arguments)
            continue
        given = parser.parse_intermixed_args(arguments)
        config = None if given.config in ("FILE", "my.yaml", None) else given.config
        load_config(config, given.overrides)
