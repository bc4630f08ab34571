"""Control lines: which operation a line (or the beginning of one) is, and its arguments.

Every answer for a beginning must hold for each line that starts with it, or chunking would change the outcome.
"""

from __future__ import annotations

from enum import Enum


class Op(Enum):
    """Operations a client may name, in the only order that matters: none is a prefix of another."""

    CONNECT = b"CONNECT"
    PUB = b"PUB"
    HPUB = b"HPUB"
    SUB = b"SUB"
    UNSUB = b"UNSUB"
    PING = b"PING"
    PONG = b"PONG"
    OK = b"+OK"
    ERR = b"-ERR"
    INFO = b"INFO"


class UnknownOperation(Exception):
    """No operation starts like this."""


NEED_BLANK = frozenset({Op.PUB, Op.HPUB, Op.SUB, Op.UNSUB, Op.ERR})
"""Operations whose name must be followed by a blank at once."""
NO_ARGUMENT = frozenset({Op.PING, Op.PONG, Op.OK})
"""Operations that ignore everything up to the line end."""


def operation(line: bytes) -> Op | None:
    """The operation of a line without its LF, or of the beginning of a line; None: too short to tell.

    Raises ``UnknownOperation``.
    """
    head = line[:7].upper()
    for op in Op:
        name = op.value
        if head.startswith(name):
            if op in NEED_BLANK:
                if len(line) == len(name):
                    return None
                if line[len(name)] not in b" \t":
                    raise UnknownOperation
            return op
        if name.startswith(head):
            return None
    raise UnknownOperation


def argument(op: Op, line: bytes) -> bytes:
    """What follows the operation's name and blanks; at most one CR is dropped from the end."""
    rest = line[len(op.value) :].lstrip(b" \t")
    return rest[:-1] if rest.endswith(b"\r") else rest


def split_arguments(text: bytes) -> list[bytes]:
    """The arguments, separated by blanks, tabs and CRs."""
    return [part for part in text.replace(b"\t", b" ").replace(b"\r", b" ").split(b" ") if part]


def is_valid_subject(subject: bytes) -> bool:
    """Whether one may subscribe to this: no empty token, ``>`` only as the last token."""
    if not subject or subject[0] == 46 or subject[-1] == 46 or b".." in subject:
        return False
    return not (b">." in subject and (subject.startswith(b">.") or b".>." in subject))


def is_valid_literal(subject: bytes) -> bool:
    """Whether a pedantic client may publish to this: no empty token and no wildcard token."""
    if not is_valid_subject(subject):
        return False
    return not any(token in (b"*", b">") for token in subject.split(b"."))
