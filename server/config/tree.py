"""The parsed form of a configuration file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TypeAlias, Union

Scalar: TypeAlias = str | int | float | bool
Node: TypeAlias = Union[Scalar, "list[Entry]", "dict[str, Entry]"]


@dataclass(slots=True)
class Entry:
    """A value and the place of its key (of itself, in an array)."""

    value: Node
    file: str
    line: int
    column: int
    """0-based on the first line, 1-based on others, as nats-server counts."""
    is_used: bool = False
    """A variable took its value from here, so it need not be an option."""
    size: int = 1
    """Values in it and below, variables counted where they are used."""


def plain(node: Node) -> object:
    """The tree as plain dicts, lists and scalars."""
    if isinstance(node, dict):
        return {key: plain(entry.value) for key, entry in node.items()}
    if isinstance(node, list):
        return [plain(entry.value) for entry in node]
    return node


def digest(tree: dict[str, Entry]) -> str:
    """``sha256:…`` of the content: comments, order and spelling do not matter. The same as nats-server's."""
    text = json.dumps(plain(tree), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return "sha256:" + hashlib.sha256(f"{text}\n".encode("utf-8", "backslashreplace")).hexdigest()


def go_kind_of(node: Node) -> str:
    """How nats-server's messages call this type of value."""
    for kind, name in ((bool, "bool"), (int, "int64"), (float, "float64"), (str, "string"), (list, "[]interface {}")):
        if isinstance(node, kind):
            return name
    return "map[string]interface {}"


def kind_of(node: Node) -> str:
    """How messages call this type of value."""
    if isinstance(node, bool):
        return "a boolean"
    if isinstance(node, int):
        return "an integer"
    if isinstance(node, float):
        return "a number"
    if isinstance(node, str):
        return "a string"
    return "a map" if isinstance(node, dict) else "an array"
