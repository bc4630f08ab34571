"""The parsed form of a configuration file."""

from __future__ import annotations

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


def plain(node: Node) -> object:
    """The tree as plain dicts, lists and scalars."""
    if isinstance(node, dict):
        return {key: plain(entry.value) for key, entry in node.items()}
    if isinstance(node, list):
        return [plain(entry.value) for entry in node]
    return node


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
