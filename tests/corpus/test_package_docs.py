"""The docstring corpus: what counts as prose, and that the task's paragraphs are kept out of it."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supmer.corpus.docstring_prose import prose_paragraphs
from supmer.corpus.package_docs import MASK, TASK_LABELS, iter_documents, mask_names, task_rows, task_split
from supmer.errors import UserError

NUMPYDOC = """
    Fit the model to the :class:`~pandas.DataFrame` that the caller
    passes, as described in [1]_ and in the `user guide <https://a.b/c>`_.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        The training input samples of the model.

    The second paragraph of a listing section is a listing too, as here.

    Notes
    -----
    The *running time* of this algorithm grows with ``n`` squared.
    It is not meant for large inputs.

    Examples
    --------
    Here is how the estimator is usually called by its users.

    >>> fit(X).predict(X)
    Anything that follows in the same block is output of the doctest.

    .. plot::

       This code draws one picture of the whole thing.

    ======  ======
    Column  Column with a header
    ======  ======
"""

GOOGLE = """Scale the gradients of all parameters in place by one factor.

Args:
    factor (float): The number that all gradients are multiplied by.

- A list item that is long enough to be taken for prose.

```python
This fenced block would otherwise look like one sentence of prose.
```

Too short.

without a capital letter this line is the rest of something else.
"""


def test_only_prose_survives_numpydoc() -> None:
    assert list(prose_paragraphs(NUMPYDOC)) == [
        "Fit the model to the DataFrame that the caller passes, as described in and in the user guide.",
        "The running time of this algorithm grows with n squared. It is not meant for large inputs.",
        "Here is how the estimator is usually called by its users.",
    ]


def test_only_prose_survives_google_style() -> None:
    assert list(prose_paragraphs(GOOGLE)) == ["Scale the gradients of all parameters in place by one factor."]


@given(st.text())
def test_any_docstring_yields_single_lines(docstring: str) -> None:
    for paragraph in prose_paragraphs(docstring):
        assert paragraph == " ".join(paragraph.split())
        assert len(paragraph.split()) >= 6


@pytest.fixture
def toy_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "toy_docs"
    (folder / "tests").mkdir(parents=True)
    shared = "This very sentence is documented in two modules at once."
    (folder / "__init__.py").write_text(f'"""{shared}"""\nraise RuntimeError("must not be imported")\n')
    (folder / "b.py").write_text(
        'def later():\n    """The second function comes after the class below."""\n\n\n'
        f'class Thing:\n    """{shared}\n\n    A thing has one method that says what it does."""\n\n'
        '    def method(self):\n        """Do what the name of the method says."""\n'
    )
    (folder / "broken.py").write_text('"""This module is not valid Python source code."""\ndef (\n')
    (folder / "escape.py").write_text('"""This module has an invalid escape \\d in its docstring here."""\n')
    (folder / "tests" / "test_b.py").write_text('"""The tests of a package are not part of its corpus."""\n')
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return "toy_docs"


def test_documents_follow_the_source(toy_package: str) -> None:
    documents = list(iter_documents([toy_package]))
    assert [module for module, _ in documents] == ["toy_docs", "toy_docs.b", "toy_docs.escape"]
    assert documents[1][1].split("\n\n") == [
        "The second function comes after the class below.",
        "A thing has one method that says what it does.",
        "Do what the name of the method says.",
    ]


@pytest.mark.parametrize("packages", [["networkx", "no_such_package"], ["os"], ["not-a-name"], []])
def test_missing_package_is_named(packages: list[str]) -> None:
    with pytest.raises(UserError, match=r"corpus\.packages=") as caught:
        next(iter_documents(packages))
    assert packages == [] or packages[-1] in str(caught.value)


def test_names_are_masked() -> None:
    text = "Use pandas.DataFrame, scikit-learn or nx.Graph; spdx and Pandas are words too."
    assert mask_names(text) == f"Use {MASK}, {MASK} or {MASK}; spdx and {MASK} are words too."


@pytest.mark.slow
def test_task_and_corpus_share_no_paragraph() -> None:
    rows = {split: task_rows(split) for split in ("train", "test")}
    corpus = {mask_names(text) for _, prose in iter_documents(list(TASK_LABELS)) for text in prose.split("\n\n")}
    texts = {split: {row["text"] for row in found} for split, found in rows.items()}
    assert texts["train"].isdisjoint(texts["test"])
    assert corpus.isdisjoint(texts["train"] | texts["test"])
    for split, found in rows.items():
        assert len(texts[split]) == len(found), "a paragraph occurs twice"
        assert len(set(Counter(row["label"] for row in found).values())) == 1, "classes are not of one size"
        assert not any(name in row["text"].lower() for row in found for name in ("pandas", "scipy", "sklearn", "networkx"))
    assert len(rows["train"]) >= 4 * 64
    assert len(rows["test"]) >= 4 * 64


def test_split_does_not_depend_on_the_name() -> None:
    words = "Return a graph of {} with as many nodes as the given frame has rows, number {}."
    for number in range(100):
        assert task_split(words.format("pandas", number)) == task_split(words.format("networkx", number))
