"""The machinery that turns a configuration tree into options: ``Reader``, and how each kind of value is read.

How a block is added (``cluster.py`` is a short example):

1. A module ``server/config/<block>.py`` with a frozen dataclass of what the block sets, and a field of that type in
   ``options.Options``. Such a module imports this one and never ``options.py``.
2. A table ``key → ReadValue`` for the keys inside the block, synonyms as rows of their own, keys in lower case. A
   ``ReadValue`` is called with the reader, the key and the entry; it gives back the fields it sets, or raises
   ``Mistake`` with what is wrong (``Reader.complain`` for one of several mistakes). The factories below make most of
   them: ``text("host")`` reads a string into the field ``host``.
3. A ``ReadValue`` for the block itself that calls ``reader.block(as_map(name, entry), TABLE, REFUSED)`` with the
   table and with the keys that nats-server knows and we do not have, and gives back one field: the dataclass.
4. ``TOP_LEVEL``, a table of the keys the module adds to the file's top level; ``reader.py`` lists the modules.

All mistakes of a file are collected; each is reported at the place of its key, FILE:LINE:COL. Values that only make
sense together are checked in ``options.start_problem``, as flags come in between.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from jetstore.model.times import parse_duration
from server.config.errors import Problem
from server.config.parser import scalar
from server.config.tree import Entry, Node, go_kind_of, kind_of

SECOND: Final = 1_000_000_000
INT32_MAX: Final = 2**31 - 1
INT64_MAX: Final = 2**63 - 1

Fields = dict[str, Any]  # Any: an option's value
ReadValue = Callable[["Reader", str, Entry], Fields]
"""(reader, key in lower case, entry) → the fields it sets; raises ``Mistake``."""
Table = Mapping[str, ReadValue]


class Mistake(Exception):
    """What is wrong with the value at hand; the reader adds where it stands."""


class Reader:
    """Collects the problems of one file and its includes while blocks are read."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.soft_problems: list[Problem] = []
        """Warnings when starting, errors when testing."""
        self.warnings: list[str] = []

    def complain(self, entry: Entry, text: str) -> None:
        """One mistake at the place of an entry; reading goes on."""
        self.problems.append(Problem(entry.file, entry.line, entry.column, text))

    def warn(self, entry: Entry, text: str) -> None:
        """A use that is accepted with a warning at start and is an error for ``-t``."""
        self.soft_problems.append(Problem(entry.file, entry.line, entry.column, text))

    def block(
        self,
        block: dict[str, Entry],
        table: Table,
        refused: frozenset[str] = frozenset(),
        unknown: str = 'unknown field "{key}"',
    ) -> Fields:
        """Fields set by a block's keys, in order; the last of several wins.

        ``refused``: known to nats-server and not to us; refused by name unless switched off (``false``). ``unknown``:
        what is said about other keys, unless a variable took its value from there.
        """
        fields: Fields = {}
        for key, entry in block.items():
            name = key.lower()
            read = table.get(name)
            if read is not None:
                try:
                    fields.update(read(self, name, entry))
                except Mistake as mistake:
                    self.complain(entry, str(mistake))
            elif name in refused:
                if entry.value is not False:
                    self.complain(entry, refusal(key))
            elif not entry.is_used:
                self.complain(entry, unknown.format(key=key))
        return fields


def refusal(key: str) -> str:
    """What is said about something nats-server has and this version does not."""
    return f'"{key}" is not supported by this version of jetstore'


def wrong_type(name: str, entry: Entry, wanted: str) -> Mistake:
    """The mistake of a value of another type."""
    shown = f' "{entry.value}"' if isinstance(entry.value, str) else ""
    return Mistake(f"{name} should be {wanted}, not {kind_of(entry.value)}{shown}")


# -- kinds of values ----------------------------------------------------------------------------------------------


def as_map(name: str, entry: Entry) -> dict[str, Entry]:
    """The entry's block. Raises ``Mistake``."""
    if not isinstance(entry.value, dict):
        raise Mistake(f"Expected map to define {name}, got {go_kind_of(entry.value)}")
    return entry.value


def as_list(name: str, entry: Entry) -> list[Entry]:
    """The entry's array. Raises ``Mistake``."""
    if not isinstance(entry.value, list):
        raise wrong_type(name, entry, "an array")
    return entry.value


def as_text(name: str, entry: Entry) -> str:
    """The entry's string. Raises ``Mistake``."""
    if not isinstance(entry.value, str):
        raise wrong_type(name, entry, "a string")
    return entry.value


def as_integer(name: str, entry: Entry) -> int:
    """The entry's integer. Raises ``Mistake``."""
    if isinstance(entry.value, bool) or not isinstance(entry.value, int):
        raise wrong_type(name, entry, "an integer")
    return entry.value


def text(option: str) -> ReadValue:
    """A string."""
    return lambda _reader, name, entry: {option: as_text(name, entry)}


def texts(option: str) -> ReadValue:
    """A string or an array of strings, as a tuple."""

    def read(reader: Reader, name: str, entry: Entry) -> Fields:
        if isinstance(entry.value, str):
            return {option: (entry.value,)}
        found = []
        for item in as_list(name, entry):
            if isinstance(item.value, str):
                found.append(item.value)
            else:
                reader.complain(item, str(wrong_type(name, item, "a string")))
        return {option: tuple(found)}

    return read


def name_without_spaces(option: str, what: str) -> ReadValue:
    """A string without blanks."""

    def read(_reader: Reader, name: str, entry: Entry) -> Fields:
        value = as_text(name, entry)
        if any(character.isspace() for character in value):
            raise Mistake(f"{what} name cannot contain spaces")
        return {option: value}

    return read


def boolean(option: str) -> ReadValue:
    """true or false."""

    def read(_reader: Reader, name: str, entry: Entry) -> Fields:
        if not isinstance(entry.value, bool):
            raise wrong_type(name, entry, "true or false")
        return {option: entry.value}

    return read


def integer(option: str, low: int, high: int, *, sizes_as_text: bool = False) -> ReadValue:
    """An integer within bounds, both included. ``sizes_as_text``: ``"10GB"`` will do, too."""

    def read(_reader: Reader, name: str, entry: Entry) -> Fields:
        value: Node = entry.value
        if sizes_as_text and isinstance(value, str):
            value = scalar(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong_type(name, entry, "an integer")
        if value > high:
            raise Mistake(f"{name} value is too big")
        if value < low:
            raise Mistake(f"{name} should be at least {low}")
        return {option: value}

    return read


def as_duration_ns(reader: Reader, name: str, entry: Entry) -> int:
    """Nanoseconds of a duration, which may be negative; an integer counts seconds and is warned about."""
    value = entry.value
    if isinstance(value, int) and not isinstance(value, bool):
        reader.warn(entry, f'invalid use of field "{name}": {name} should be converted to a duration')
        return value * SECOND
    if not isinstance(value, str):
        raise wrong_type(name, entry, "a duration")
    try:
        return parse_duration(value)
    except ValueError as error:
        raise Mistake(f"error parsing {name}: {error}") from None


def duration(option: str) -> ReadValue:
    """A duration that is not negative, in nanoseconds."""

    def read(reader: Reader, name: str, entry: Entry) -> Fields:
        duration_ns = as_duration_ns(reader, name, entry)
        if duration_ns < 0:
            raise Mistake(f"{name} should not be negative: {entry.value}")
        return {option: duration_ns}

    return read


def seconds(option: str, what: str = "authorization") -> ReadValue:
    """A duration, or a number of seconds, in nanoseconds. ``what``: the block, for messages."""

    def read(_reader: Reader, name: str, entry: Entry) -> Fields:
        value = entry.value
        if isinstance(value, str):
            try:
                return {option: parse_duration(value)}
            except ValueError as error:
                raise Mistake(f"error parsing {what} config, '{name}' {error}") from None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Mistake(f"error parsing {what} config, '{name}' wrong type")
        return {option: int(value * SECOND)}

    return read


def _port(value: int) -> int:
    if not -1 <= value <= 65_535:
        raise Mistake(f"port {value} is out of range")
    return value


def port(option: str) -> ReadValue:
    """A port; -1 = any free one."""
    return lambda _reader, name, entry: {option: _port(as_integer(name, entry))}


def address(host_option: str, port_option: str) -> ReadValue:
    """``host:port`` or just a port."""

    def read(_reader: Reader, name: str, entry: Entry) -> Fields:
        value = entry.value
        if isinstance(value, int) and not isinstance(value, bool):
            return {port_option: _port(value)}
        if not isinstance(value, str):
            raise wrong_type(name, entry, "a host:port or a port")
        host, colon, number = value.rpartition(":")
        if not colon:
            raise Mistake(f'could not parse address string "{value}"')
        if not number.removeprefix("-").isdigit():
            raise Mistake(f'could not parse port "{number}"')
        return {host_option: host.removeprefix("[").removesuffix("]"), port_option: _port(int(number))}

    return read
