"""Paths and URIs as text. Needs no pyarrow, as the settings do not."""

from __future__ import annotations

import os
import posixpath


def absolute(uri: str | os.PathLike[str]) -> str:
    """Return a local path made absolute, so that workers in other folders find it too; URIs are returned as they are."""
    text = os.fspath(uri)
    return text if "://" in text else os.path.abspath(os.path.expanduser(text))


def join(uri: str | os.PathLike[str], *parts: str) -> str:
    """Append path components to a path or URI (before the options that an URI may end in, ``?endpoint_override=...``)."""
    base, question, options = os.fspath(uri).partition("?") if "://" in os.fspath(uri) else (os.fspath(uri), "", "")
    return posixpath.join(base, *parts) + question + options
