"""Prose paragraphs of a docstring: what a reader would read aloud, without code, tables, parameter lists and markup."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Iterator

MIN_WORDS = 6
MAX_SYMBOL_SHARE = 0.03

# Numpydoc sections that list things; "Notes", "Examples" and headings of the author's own hold prose.
LISTING_SECTION = re.compile(
    r"(other )?parameters|keyword arguments|signature|returns|yields|receives|raises|warns|attributes|methods"
    r"|functions|classes|routine listings|index|see also|references",
    re.IGNORECASE,
)
UNDERLINE = re.compile(r"([=\-~^\"'*#+])\1{2,}")
MARKUP_START = re.compile(r">>>|\.\.|\.\.\.|[-*+•|:@#$%>\[(]|\d+[.)]\s|=+|`{3}")
SYMBOLS = re.compile(r"[=_{}\[\]<>\\/|*^$#@~+&%`]")
INLINE_MARKUP = (
    (re.compile(r"\[[\w*#]+\]_"), ""),  # [1]_
    (re.compile(r":[\w:+-]+:`!?~?[^`<]*<([^`>]+)>`"), r"\1"),  # :role:`text <target>`
    (re.compile(r":[\w:+-]+:`!?~[^`]*?([^`.]+)`"), r"\1"),  # :role:`~package.Name`
    (re.compile(r":[\w:+-]+:`!?([^`]*)`"), r"\1"),  # :role:`name`
    (re.compile(r"`~[^`]*?([^`.]+)`"), r"\1"),  # `~package.Name`
    (re.compile(r"`([^`<]+?)\s*<[^`>]+>`_{1,2}"), r"\1"),  # `text <address>`_
    (re.compile(r"`{1,2}([^`]*)`{1,2}_{0,2}"), r"\1"),  # `x`, ``x``, `x`_
    (re.compile(r"\[([^\]]+)\]\([^)]+\)"), r"\1"),  # [text](address)
    (re.compile(r"\*{1,2}(\w[^*]*?)\*{1,2}"), r"\1"),  # *x*, **x**
    (re.compile(r"\|(\w+)\|"), r"\1"),  # |x|
    (re.compile(r"\s+([.,;:)])"), r"\1"),
)


def prose_paragraphs(docstring: str) -> Iterator[str]:
    """Yield the prose paragraphs of a docstring in order, each on one line.

    Only unindented text outside listing sections counts: code blocks, directives, parameter lists and list items are all
    indented or marked. What then has few words, many symbols or no sentence ending is left out.
    """
    lines = inspect.cleandoc(docstring).splitlines()
    listing = fenced = False
    block: list[str] = []
    for line, following in itertools.zip_longest([*lines, ""], lines[1:], fillvalue=""):
        if line.startswith("```"):
            fenced = not fenced
        is_underline = UNDERLINE.fullmatch(line.rstrip()) is not None
        is_heading = bool(line.strip()) and UNDERLINE.fullmatch(following.rstrip()) is not None
        if is_heading:
            listing = LISTING_SECTION.fullmatch(line.strip()) is not None
        if line.strip() and not is_heading and not is_underline:
            block += [] if listing or fenced else [line]
            continue
        ended, block = block, []
        if any(each[0].isspace() or MARKUP_START.match(each) for each in ended):
            continue
        text = " ".join(ended)
        for pattern, replacement in INLINE_MARKUP:
            text = pattern.sub(replacement, text)
        text = " ".join(text.split()).removesuffix("::")
        is_sentence = text[:1].isupper() and text[-1:] in ".?!" and len(text.split()) >= MIN_WORDS
        if is_sentence and len(SYMBOLS.findall(text)) <= MAX_SYMBOL_SHARE * len(text):
            yield text
