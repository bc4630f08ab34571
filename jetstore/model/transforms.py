"""Subject transforms: from subjects that match a pattern to subjects made of its wildcards.

A destination is tokens; a token is text, ``$n``, or a function in double braces: ``wildcard(n)``, ``partition(k, n…)``,
``split(n,delimiter)``, ``splitfromleft(n,position)``, ``splitfromright``, ``slicefromleft(n,size)``,
``slicefromright``, ``left(n,length)``, ``right(n,length)``, ``random(k)``; n counts the ``*`` of the source from 1.
Errors have nats-server's words. Everything but ``random`` is a pure function of the subject.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

_FUNCTION: Final = re.compile(r"\{\{\s*([A-Za-z]+)\s*\((.*)\)\s*\}\}")
_WILDCARD: Final = re.compile(r"\$([0-9]+)")
_MEMO_ENTRIES_MAX: Final = 16_384
"""Remembered answers of one transform; at the bound all are forgotten, which costs time only."""

Dice = Callable[[int], int]
"""A random number below its argument."""
_Maker = Callable[[Sequence[str], str], str]
"""Source tokens and whole subject → one destination token."""

_UNKNOWN = "unknown function"
_RANGE = "wildcard index out of range"
_FEW = "not enough arguments passed to the function"
_MANY = "too many arguments passed to the function"
_ARGUMENT = "function argument is invalid or in the wrong format"


class TransformError(ValueError):
    """The transform cannot be: nats-server's text."""


def _error(what: str, token: str, index: int | None = None) -> TransformError:
    place = token if index is None else f"{token}: [{index}]"
    return TransformError(f"invalid mapping destination: {what} in {place}")


class SubjectTransform:
    """One checked transform. ``SubjectTransform(src, dest)`` raises ``TransformError``."""

    def __init__(self, src: str, dest: str, dice: Dice | None = None) -> None:
        """An empty ``src`` stands for every subject. ``dice`` is what ``random`` draws with, without it always 0."""
        self.src = src or ">"
        self.dest = dest
        source = self.src.split(".")
        tokens = dest.split(".")
        _check_tokens(tokens)
        has_rest = source[-1] == ">"
        if "*" in tokens or (tokens[-1] == ">") is not has_rest or not _is_pattern(source):
            raise TransformError("invalid subject")
        self._stars = [at for at, token in enumerate(source) if token == "*"]
        self._rest_at = len(source) - 1 if has_rest else -1
        self._source = source
        self._dice = dice
        self.is_pure = True
        """Whether a subject always becomes the same."""
        self._makers = [self._maker(token) for token in (tokens[:-1] if has_rest else tokens)]
        self._memo: dict[bytes, bytes | None] = {}

    def apply(self, subject: bytes) -> bytes | None:
        """The new subject, or None if this one does not match."""
        if subject in self._memo:
            return self._memo[subject]
        made = self._apply(subject.decode("utf-8", "surrogateescape"))
        answer = None if made is None else made.encode("utf-8", "surrogateescape")
        if self.is_pure:
            if len(self._memo) >= _MEMO_ENTRIES_MAX:
                self._memo.clear()
            self._memo[subject] = answer
        return answer

    def _apply(self, subject: str) -> str | None:
        tokens = subject.split(".")
        source = self._source
        if self._rest_at >= 0:
            if len(tokens) <= self._rest_at:
                return None
            source = source[: self._rest_at]
        elif len(tokens) != len(source):
            return None
        if any(want not in ("*", have) for want, have in zip(source, tokens, strict=False)):
            return None
        made = [maker(tokens, subject) for maker in self._makers]
        if self._rest_at >= 0:
            made += tokens[self._rest_at :]
        return ".".join(made)

    # -- parsing --------------------------------------------------------------------------------------------------

    def _maker(self, token: str) -> _Maker:
        plain = _WILDCARD.fullmatch(token)
        if plain is not None:
            at = self._position(_number(plain[1], token), token)
            return lambda tokens, _: tokens[at]
        if not (len(token) > 4 and token.startswith("{{") and token.endswith("}}")):
            return lambda _tokens, _subject: token
        found = _FUNCTION.fullmatch(token)
        name = found[1].lower() if found is not None else ""
        arguments = [part.strip() for part in found[2].split(",")] if found is not None else []
        if name == "wildcard":
            if arguments == [""]:
                raise _error(_FEW, token)
            if len(arguments) > 1:
                raise _error(_MANY, token)
            at = self._position(_number(arguments[0], token), token)
            return lambda tokens, _: tokens[at]
        if name == "partition":
            return self._partition([_number(text, token) for text in arguments], token)
        if name == "random":
            if len(arguments) != 1:
                raise _error(_FEW, token)
            return self._random(_number(arguments[0], token))
        if name not in _SPLITTERS and name != "split":
            raise _error(_UNKNOWN, token)
        if len(arguments) < 2:
            raise _error(_FEW, token)
        if len(arguments) > 2:
            raise _error(_MANY, token)
        index = _number(arguments[0], token)
        if name == "split":
            delimiter = arguments[1]
            if not delimiter or " " in delimiter:
                raise _error(_ARGUMENT, token)
            at = self._position(index, token)
            return lambda tokens, _: ".".join(part for part in tokens[at].split(delimiter) if part)
        size = _number(arguments[1], token)
        at = self._position(index, token)
        cut = _SPLITTERS[name]
        return lambda tokens, _: cut(tokens[at], size) if 0 < size < len(tokens[at]) else tokens[at]

    def _position(self, index: int, token: str) -> int:
        if not self._stars:
            raise _error(_RANGE, token)
        if not 0 < index <= len(self._stars):
            raise _error(_RANGE, token, index)
        return self._stars[index - 1]

    def _partition(self, numbers: Sequence[int], token: str) -> _Maker:
        count = numbers[0]
        positions = [self._position(index, token) for index in numbers[1:]]
        if count <= 0:
            return lambda _tokens, _subject: "0"
        if not positions:
            return lambda _, subject: str(fnv1a_32(_encoded(subject)) % count)
        return lambda tokens, _: str(fnv1a_32(_encoded("".join(tokens[at] for at in positions))) % count)

    def _random(self, count: int) -> _Maker:
        dice = self._dice
        if dice is None or count <= 0:
            return lambda _tokens, _subject: "0"
        self.is_pure = False
        return lambda _tokens, _subject: str(dice(count))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _number(text: str, token: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,1000}", text):
        raise _error(_ARGUMENT, token)
    return int(text)


def _check_tokens(tokens: Sequence[str]) -> None:
    is_over = False
    for token in tokens:
        if not token or is_over:
            raise TransformError("invalid mapping destination: invalid transform")
        if len(token) > 4 and token.startswith("{{") and token.endswith("}}"):
            continue
        if token == ">":
            is_over = True
        elif any(character in "\t\n\f\r " for character in token):
            raise TransformError("invalid mapping destination: invalid transform")


def _is_pattern(tokens: Sequence[str]) -> bool:
    return all(token and not re.search(r"[ \t\r\n\f]", token) for token in tokens) and ">" not in tokens[:-1]


def _chunks(text: str, start: int, size: int) -> str:
    head = [text[:start]] if start else []
    return ".".join(head + [text[at : at + size] for at in range(start, len(text), size)])


_SPLITTERS: Final[dict[str, Callable[[str, int], str]]] = {
    "splitfromleft": lambda text, at: f"{text[:at]}.{text[at:]}",
    "splitfromright": lambda text, at: f"{text[:-at]}.{text[-at:]}",
    "slicefromleft": lambda text, size: _chunks(text, 0, size),
    "slicefromright": lambda text, size: _chunks(text, len(text) % size, size),
    "left": lambda text, length: text[:length],
    "right": lambda text, length: text[-length:],
}


def fnv1a_32(data: bytes) -> int:
    """The 32-bit FNV-1a hash."""
    value = 0x811C9DC5
    for byte in data:
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return value
