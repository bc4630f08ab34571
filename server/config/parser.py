"""The configuration language: text → tree. A superset of JSON; see ``docs/operations/configuration.md``.

Theory of operation. One pass over the text by recursive descent. A block is ``key value`` pairs; the key ends at a
blank, ``:`` or ``=``, or before ``{`` and ``[``. Pairs are separated by a newline, ``,`` or ``;``. Variables are
resolved while parsing: looked up in the enclosing blocks outwards, then in the environment (whose text is itself
parsed as a value). An include is parsed on its own, without the variables around it, and its pairs join the block.
Everything is bounded: nesting, includes, and the values of the whole tree with variables counted where they are used.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from server.config.errors import ConfigError
from server.config.tree import Entry, Node

INCLUDE_DEPTH_MAX: Final = 16
INCLUDES_MAX: Final = 1000
NESTING_MAX: Final = 64
VALUES_MAX: Final = 500_000
"""Values of a file, those behind a variable counted at every use: maps of maps of variables would grow without end."""
INTEGER_MAX: Final = 2**63 - 1
INTEGER_DIGITS_MAX: Final = 40
"""Of what is longer the first: it is too big in any case."""

_BARE: Final = re.compile(r"[^ \t\r\n,;\]}\\]*")
_BCRYPT: Final = re.compile(r"\$2[abxy]\$")
_KEY_END: Final = " \t\r\n:={[,;}"
_INTEGER: Final = re.compile(r"(-?\d+)(?:([kmgtpe])(i?b|i)?)?", re.IGNORECASE)
_FLOAT: Final = re.compile(r"-?\d+\.\d+")
_BOOLEANS: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_ESCAPES: Final = {"t": "\t", "n": "\n", "r": "\r", '"': '"', "\\": "\\"}
_POWERS: Final = {"k": 1, "m": 2, "g": 3, "t": 4, "p": 5, "e": 6}

Reader = Callable[[Path], str]


def parse_file(path: Path, environment: Mapping[str, str], read: Reader | None = None) -> dict[str, Entry]:
    """The tree of a file. ``ConfigError`` for syntax, unknown variables and missing files."""
    return _parse_file(path, str(path), environment, read or _read, 0, [])


def parse_text(text: str, environment: Mapping[str, str], file: str = "config") -> dict[str, Entry]:
    """The tree of a text without a file; includes are relative to the working directory."""
    return _Parser(text, file, Path(), environment, _read, 0, []).document()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"open {path}: no such file or directory") from None
    except IsADirectoryError:
        raise ConfigError(f"read {path}: is a directory") from None
    except PermissionError:
        raise ConfigError(f"open {path}: permission denied") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: this is not UTF-8 text") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"open {path}: {error}") from None


def _parse_file(
    path: Path, name: str, environment: Mapping[str, str], read: Reader, depth: int, included: list[str]
) -> dict[str, Entry]:
    return _Parser(read(path), name, path.parent, environment, read, depth, included).document()


def scalar(token: str) -> Node:
    """What a bare word stands for: boolean, integer with an optional size suffix, number, or the text itself."""
    if (boolean := _BOOLEANS.get(token.lower())) is not None:
        return boolean
    if match := _INTEGER.fullmatch(token):
        number, power, suffix = match.groups()
        number = number[:INTEGER_DIGITS_MAX]
        if power is None:
            return int(number)
        return int(number) * int((1024 if suffix else 1000) ** _POWERS[power.lower()])
    if _FLOAT.fullmatch(token):
        return float(token)
    return token


class _Parser:
    """State of one text."""

    def __init__(
        self,
        text: str,
        file: str,
        directory: Path,
        environment: Mapping[str, str],
        read: Reader,
        depth: int,
        included: list[str],
    ) -> None:
        """``included``: names of all includes so far, shared by all of them."""
        self.text = text
        self.file = file
        self.directory = directory
        self.environment = environment
        self.read = read
        self.depth = depth
        self.included = included
        self.at = 0
        self.line_starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self.values = 0
        self.blocks: list[dict[str, Entry]] = []
        self.resolving: list[str] = []

    # -- positions ------------------------------------------------------------------------------------------------

    def peek(self) -> str:
        return self.text[self.at] if self.at < len(self.text) else ""

    def line(self, at: int | None = None) -> int:
        return bisect_right(self.line_starts, self.at if at is None else at)

    def column(self, at: int) -> int:
        line = self.line(at)
        return at - self.line_starts[line - 1] + (line > 1)

    def fail(self, text: str) -> ConfigError:
        return ConfigError(f"Parse error on line {self.line()}: '{text}'")

    def unexpected(self, expected: str) -> ConfigError:
        got = (self.peek() or " ").replace("\n", "\\n")
        return self.fail(f"{expected}, but got '{got}' instead.")

    def invalid(self) -> ConfigError:
        return ConfigError(f"config is invalid ({self.file}:{self.line()}:{self.column(self.at)})")

    def grow(self, values: int) -> None:
        """Count values; raises when they are too many."""
        self.values += values
        if self.values > VALUES_MAX:
            raise self.fail("There are too many values.")

    def skip(self, blanks: str = " \t\r\n") -> None:
        """Past blanks and comments."""
        while self.at < len(self.text):
            if self.text[self.at] in blanks:
                self.at += 1
            elif self.text[self.at] == "#" or self.text.startswith("//", self.at):
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            else:
                return

    # -- blocks ---------------------------------------------------------------------------------------------------

    def document(self) -> dict[str, Entry]:
        """The whole text: pairs, in braces or not."""
        if "\0" in self.text:
            self.at = self.text.index("\0")
            raise self.invalid()
        self.skip()
        if self.peek() == "{":
            self.at += 1
            block = self.block(is_braced=True)
            self.skip()
            # A closing brace too many at the end of the file does no harm, as in nats-server.
            self.at += self.peek() == "}"
        else:
            block = self.block(is_braced=False)
        self.skip()
        if self.peek():
            self.at += 1
            raise self.invalid()
        return block

    def block(self, *, is_braced: bool) -> dict[str, Entry]:
        if len(self.blocks) >= NESTING_MAX:
            raise self.fail("Blocks are nested too deeply.")
        block: dict[str, Entry] = {}
        self.blocks.append(block)
        while True:
            self.skip(" \t\r\n,;")
            character = self.peek()
            if not character:
                if is_braced and block:
                    raise self.unexpected('Expected a map value terminator "," or a map terminator "}"')
                if is_braced:
                    raise self.fail("Unexpected EOF processing map.")
                break
            if character == "}":
                # Here, too: a brace that was never opened.
                self.at += 1
                break
            self.pair(block)
        self.blocks.pop()
        return block

    def pair(self, block: dict[str, Entry]) -> None:
        line = self.line()
        quoted = self.peek() in "\"'"
        start = self.at + (1 if quoted else 0)
        column = self.column(start)
        key = self.quoted() if quoted else self.bare_key()
        if key == "include" and not quoted and self.peek() != ":":
            self.include(block)
        else:
            self.skip(" \t\r\n")
            if self.peek() and self.peek() in ":=":
                self.at += 1
                self.skip(" \t\r")
                if self.peek() == "\n":
                    self.at += 1
                    raise self.fail("Expected value but found new line")
            if not self.peek():
                raise self.invalid()
            block[key] = self.entry(line, column)
        self.end_of_value(is_top=len(self.blocks) == 1)

    def bare_key(self) -> str:
        start = self.at
        while self.at < len(self.text) and self.text[self.at] not in _KEY_END:
            self.at += 1
        if start == self.at and self.peek() in ":=":
            raise self.fail(f"Unexpected key separator '{self.peek()}'")
        if start == self.at:
            raise self.unexpected("Expected a key")
        return self.text[start : self.at]

    def end_of_value(self, *, is_top: bool) -> None:
        self.skip(" \t\r")
        character = self.peek()
        if character and character not in "\n,;}":
            if not is_top:
                raise self.unexpected('Expected a map value terminator "," or a map terminator "}"')
            raise self.unexpected("Expected a top-level value to end with a new line, comment or EOF")

    def include(self, block: dict[str, Entry]) -> None:
        self.skip(" \t")
        if not self.peek():
            raise self.invalid()
        name = self.quoted() if self.peek() and self.peek() in "\"'" else self.bare_word()
        if self.depth >= INCLUDE_DEPTH_MAX:
            raise self.fail("Includes are nested too deeply.")
        if len(self.included) >= INCLUDES_MAX:
            raise self.fail("There are too many includes.")
        self.included.append(name)
        path = self.directory / name
        try:
            parser = _Parser(
                self.read(path), str(path), path.parent, self.environment, self.read, self.depth + 1, self.included
            )
            included = parser.document()
        except ConfigError as error:
            raise ConfigError(f"error parsing include file '{name}', {error}") from None
        self.grow(parser.values)
        block.update(included)

    # -- values ---------------------------------------------------------------------------------------------------

    def entry(self, line: int, column: int) -> Entry:
        """The value here, for a key at this place."""
        before = self.values
        self.grow(1)
        node = self.value()
        return Entry(node, self.file, line, column, size=self.values - before)

    def value(self) -> Node:
        character = self.peek()
        if character == "{":
            self.at += 1
            return self.block(is_braced=True)
        if character == "[":
            self.at += 1
            return self.array()
        if character in ('"', "'"):
            return self.quoted()
        if character == "(":
            return self.block_text()
        start = self.at
        word = self.bare_word()
        if word.startswith("$") and not _BCRYPT.match(word):
            return self.variable(word[1:])
        node = scalar(word)
        if type(node) is int and not -INTEGER_MAX - 1 <= node <= INTEGER_MAX:
            raise ConfigError(f"integer '{word}' is out of the range ({self.file}:{self.line(start)})")
        return node

    def array(self) -> list[Entry]:
        items: list[Entry] = []
        if len(self.blocks) >= NESTING_MAX:
            raise self.fail("Arrays are nested too deeply.")
        self.blocks.append({})
        while True:
            self.skip()
            character = self.peek()
            if character == ",":
                raise self.fail("Unexpected array value terminator ','.")
            if not character or character in "};":
                raise self.unexpected('Expected an array value terminator "," or an array terminator "]"')
            if character == "]":
                self.at += 1
                break
            line, column = self.line(), self.column(self.at + (character in "\"'{"))
            items.append(self.entry(line, column))
            self.skip(" \t\r")
            if self.peek() not in ("\n", ",", "]"):
                raise self.unexpected('Expected an array value terminator "," or an array terminator "]"')
            self.skip()
            if self.peek() == ",":
                self.at += 1
        self.blocks.pop()
        return items

    def quoted(self) -> str:
        quote = self.peek()
        self.at += 1
        parts: list[str] = []
        while True:
            character = self.peek()
            if not character:
                raise self.fail("Unexpected EOF.")
            self.at += 1
            if character == quote:
                return "".join(parts)
            if character == "\\" and quote == '"':
                parts.append(self.escape())
            else:
                parts.append(character)

    def escape(self) -> str:
        character = self.peek()
        self.at += 1
        if character == "x":
            digits = self.text[self.at : self.at + 2]
            if not re.fullmatch("[0-9a-fA-F]{2}", digits):
                raise self.fail(f"Expected two hexadecimal digits after '\\x', but got '{digits}'")
            self.at += 2
            return chr(int(digits, 16))
        if character not in _ESCAPES:
            raise self.fail(
                f"Invalid escape character '{character}'. Only the following escape characters are allowed: "
                '\\xXX, \\t, \\n, \\r, \\", \\\\.'
            )
        return _ESCAPES[character]

    def block_text(self) -> str:
        """A value in parentheses, up to a line that holds only ``)``: with the newlines next to both."""
        end = re.compile(r"\n[ \t]*\)[ \t\r]*(?=\n|$)").search(self.text, self.at)
        if end is None:
            raise self.fail("Unexpected EOF processing block.")
        text = self.text[self.at + 1 : end.start()]
        self.at = end.end()
        return f"{text}\n"

    def bare_word(self) -> str:
        """A word without quotes; escapes count in it as in ``"..."``."""
        start = self.at
        parts: list[str] = []
        while True:
            plain = _BARE.match(self.text, self.at)
            assert plain is not None
            parts.append(plain[0])
            self.at = plain.end()
            if self.peek() != "\\":
                break
            self.at += 1
            parts.append(self.escape())
        if start == self.at:
            raise self.unexpected("Expected a value")
        return "".join(parts)

    def variable(self, name: str) -> Node:
        for block in reversed(self.blocks):
            if name in block:
                block[name].is_used = True
                self.grow(block[name].size)
                return block[name].value
        if name in self.environment:
            if name in self.resolving:
                raise ConfigError(f"variable reference cycle for '{name}'")
            inner = _Parser(
                self.environment[name],
                self.file,
                self.directory,
                self.environment,
                self.read,
                self.depth,
                self.included,
            )
            inner.blocks, inner.resolving = self.blocks, [*self.resolving, name]
            inner.skip()
            node = inner.value() if inner.peek() else ""
            self.grow(inner.values)
            return node
        raise ConfigError(f"variable reference for '{name}' on line {self.line()} can not be found")
