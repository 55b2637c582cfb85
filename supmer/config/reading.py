"""Types of settings that say how files are written: encoding, delimiter, quoting."""

from __future__ import annotations

import codecs
from typing import Annotated, Literal

from pydantic import AfterValidator


def _known_encoding(name: str) -> str:
    try:
        "a\n".encode(name)
        return codecs.lookup(name).name
    except (LookupError, UnicodeError) as error:
        raise ValueError("must be a text encoding that Python knows, such as utf-8, cp1252, latin-1, gbk") from error


def _one_letter(delimiter: str) -> str:
    delimiter = {"tab": "\t", "\\t": "\t"}.get(delimiter, delimiter)
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise ValueError('must be one letter that is no quotation mark or line end, or "tab"')
    return delimiter


Encoding = Annotated[str, AfterValidator(_known_encoding)]
Delimiter = Annotated[str, AfterValidator(_one_letter)]

Quoting = Literal["none", "double", "backslash"]
"""How a quotation mark within a quoted field is written: not at all (no field is quoted), as two, or as ``\\\\"``."""
