"""YAML as users mean it: a text setting keeps what was written, numbers are those of YAML 1.2, and no key comes twice.

YAML's own rules decide by the look of a value alone: in YAML 1.1, as PyYAML reads it, `010` is 8, `1:30` is 90 and `no` is
false; in YAML 1.2 the commit hash `12e4567` is infinite. Here the parser keeps every scalar as text, and the type of the
setting says how the text is read.
"""

from __future__ import annotations

import re
import types
from collections.abc import Hashable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml

INTEGER = re.compile(r"[-+]?[0-9][0-9_]*")
FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}

NUMBER_WORDS = {bool: "must be true or false", int: "must be an integer", float: "must be a number"}


class _TextLoader(yaml.SafeLoader):
    """Keeps scalars as text, but for null (`null`, `~` or nothing), and refuses a key that a mapping has already."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's name
        first: [(tag, pattern) for tag, pattern in resolvers if tag in ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        written = [
            key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge"
        ]
        if repeated := next((key for key in written if written.count(key) > 1), None):
            raise yaml.constructor.ConstructorError(None, None, f"the key {repeated} comes twice", node.start_mark)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str | bytes) -> Any:
    """Return lists, dicts, text and None; `read_scalars` makes numbers of the text.

    Raises:
        yaml.YAMLError: the text is not YAML, a key comes twice, or a tag asks for an object.
        RecursionError: the text is nested too deep.

    >>> parse_yaml("revision: 0012345")
    {'revision': '0012345'}
    """
    return yaml.load(text, Loader=_TextLoader)


def read_scalar(text: str, annotation: Any) -> Any:
    """Return text as the type asks for: a number, true or false, or the text itself.

    Raises:
        ValueError: it is not a number of that kind; the message says what is allowed.

    >>> read_scalar("1_000", int), read_scalar("1_000", str)
    (1000, '1_000')
    """
    kinds = [kind for kind in _kinds(annotation) if kind in NUMBER_WORDS]
    for kind in kinds:
        if kind is bool and text in BOOLEANS:
            return BOOLEANS[text]
        if kind is int and INTEGER.fullmatch(text) and len(text) < 4000:
            return int(text)
        if kind is float and FLOAT.fullmatch(text):
            return float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
    if len(kinds) == 1 and _kinds(annotation) - {type(None)} == {*kinds}:
        raise ValueError(NUMBER_WORDS[kinds[0]])
    return text


def is_text(annotation: Any) -> bool:
    """Say whether a setting takes text alone, or nothing."""
    return _kinds(annotation) - {type(None)} == {str}


def item_type(annotation: Any, index: int = 0) -> Any:
    """Return the type of an item of a list or tuple, or of a value of a dict; Any where it is none of these."""
    for part in parts(annotation):
        arguments = get_args(part)
        if get_origin(part) is tuple and arguments[-1] is not Ellipsis:
            return arguments[min(index, len(arguments) - 1)]
        if get_origin(part) in (list, tuple):
            return arguments[0]
        if get_origin(part) is dict:
            return arguments[1]
    return Any


def parts(annotation: Any) -> list[Any]:
    """Return the types that a union names, without what `Annotated` adds."""
    if get_origin(annotation) is Annotated:
        return parts(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [part for each in get_args(annotation) for part in parts(each)]
    return [annotation]


def _kinds(annotation: Any) -> set[Any]:
    return {
        type(get_args(part)[0]) if get_origin(part) is Literal else get_origin(part) or part for part in parts(annotation)
    }
