"""The examples in docstrings give what they say, and every public name has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path

import pytest
import torch

import supmer
from supmer.meta.objective import meta_gradients
from supmer.model.regularizer import GradientRegularizer
from supmer.tasks.episode import Episode, Example

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "supmer").rglob("*.py")
    if ">>>" in path.read_text()
)
PUBLIC = [getattr(supmer, name) for name in supmer.__all__ if name != "__version__"]
METHOD = [meta_gradients, GradientRegularizer, Episode, Example]
"""What docs/api.md shows besides."""


@pytest.mark.parametrize("module", MODULES)
def test_examples_of_a_module(module: str) -> None:
    torch.manual_seed(0)
    imported = importlib.import_module(module)
    for test in doctest.DocTestFinder().find(imported):
        said: list[str] = []
        failed = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append).failed
        assert not failed, "".join(said)


@pytest.mark.parametrize("public", [*PUBLIC, *METHOD], ids=lambda public: public.__name__)
def test_public_names_have_an_example(public: object) -> None:
    documentation = inspect.getdoc(public) or ""
    assert ">>> " in documentation
