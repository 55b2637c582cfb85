"""Configurations that are damaged, or made to do harm: each is read, or refused in one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from mutations import mutants

from supmer.cli import load_config
from supmer.errors import UserError

NUM_MUTANTS = 1000
CONFIGS = Path(__file__).resolve().parents[1] / "configs"

pytestmark = [pytest.mark.slow]


def refusal(read: Callable[[], object]) -> str | None:
    """Return what a user is told, None if the file was read; any other error than a user's is one of the program."""
    try:
        read()
    except UserError as error:
        return str(error)
    return None


def test_configurations(tmp_path: Path) -> None:
    original = (CONFIGS / "quickstart.yaml").read_bytes()
    path = tmp_path / "config.yaml"
    outcomes: Counter[str] = Counter()
    for content in mutants(original, NUM_MUTANTS):
        path.write_bytes(content)
        refused = refusal(lambda: load_config(path))
        assert refused is None or "\n" not in refused
        outcomes["refused" if refused else "read"] += 1
    assert min(outcomes["read"], outcomes["refused"]) > NUM_MUTANTS / 20, outcomes


@pytest.mark.parametrize(
    "content",
    [
        "[" * 50_000,
        "run: {name: !!python/object/apply:os.system [id]}",
        "run: {seed: " + "9" * 5000 + "}",
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{k}: &{k} [{','.join(['*' + j] * 9)}]\n" for j, k in zip("abcdefgh", "bcdefghi")),  # noqa: B905
        "run: {name: '${run.name}'}",
        "base: config.yaml",
        "? {a: b}\n: c",
    ],
    ids=["nested", "object", "digits", "aliases", "self-reference", "own-base", "odd-key"],
)
def test_hostile_configurations_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(UserError):
        load_config(path)
