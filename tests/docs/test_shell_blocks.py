"""Every shell block of the README and of docs/ is run here, in one folder and in order, or says what it needs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FIRST = [ROOT / "docs" / name for name in ("tutorial.md", "index.md")]
"""These make the text, the task and the runs that the other pages use."""
NEEDS = {"browser", "cluster", "data", "docker", "gpus", "network", "setup"}
"""What a block may need that a test has not: text and tasks that are not in the repository, `setup` what CI does itself."""
COMMAND = re.compile(r"    (?:supmer|python|make|pip|export|source|curl|ray|kubectl|docker|git) [-\w]")


class Block(NamedTuple):
    """A shell block, its page and line, and the reason for not running it."""

    page: Path
    line: int
    needs: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks in bash; the info string may have a class `.needs-...`."""
    text, found = page.read_text(), []
    for match in re.finditer(r"^( *)```bash(?: \{\.needs-(\w+)\})?\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE):
        found.append(Block(page, text[: match.start()].count("\n") + 1, match[2] or "", match[3]))
    return found


BLOCKS = [block for page in [*FIRST, *(page for page in PAGES if page not in FIRST)] for block in blocks_of(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_command_hides_in_another_kind_of_block(page: Path) -> None:
    text = re.sub(r"^( *)```(bash|python|yaml).*?^\1```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert [line for line in text.splitlines() if COMMAND.match(line)] == []
    for fenced in re.findall(r"^ *```\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE):
        assert not COMMAND.match(f"    {fenced}")


def test_blocks_need_what_is_known_here() -> None:
    assert {block.needs for block in BLOCKS if block.needs} <= NEEDS
    assert sum(not block.needs for block in BLOCKS) > 15


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(900)
@pytest.mark.parametrize("block", [block for block in BLOCKS if not block.needs], ids=lambda block: block.name)
def test_block_runs(block: Block, folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
