"""Messages that say what they are: the payload text, bulk formatting of publishes, and reading them back.

A payload is ``<value: 20 digits><pad>``; the pad depends on nothing but the size, so that every byte of a stored
message can be checked. A value is ``tag * 10**12 + number``: the tag names the connection and the round that
published it, the number counts its messages. ``tag`` 0 … 99,999,999.

Publishes are formatted in blocks of 1,000: everything of a block that does not change from block to block is made once,
and ``bytes.join`` puts the nine leading digits into each of the 2,000 places: about 60 ns a message.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence

BLOCK = 1000
"""Messages of one formatted block."""
NUMBER_DIGITS = 12
TAG_DIGITS = 8
VALUE_DIGITS = TAG_DIGITS + NUMBER_DIGITS
PREPARED_BYTES_MAX = 8192
"""Payloads above this are formatted one by one: a prepared block of 1,000 would be too large."""
TAG_UNIT = 10**NUMBER_DIGITS

_PATTERN = b"The quick brown fox jumps over the lazy dog; "
_ACK = re.compile(rb'MSG \S+\.(\d{12}) \S+ \d+\r\n\{[^\r]*?"seq": ?(\d+)')


def pad(size: int) -> bytes:
    """The bytes that follow the value in a payload of ``size`` bytes."""
    wanted = max(0, size - VALUE_DIGITS)
    return (_PATTERN * (wanted // len(_PATTERN) + 1))[:wanted]


def payload(value: int, size: int) -> bytes:
    """The whole payload of a value. ``size`` below 20 gives 20 bytes."""
    return b"%020d" % value + pad(size)


class Blocks:
    """Formatted publishes of one connection: number i goes to ``subjects[i % len(subjects)]``.

    ``{n}`` in a subject becomes the number: a subject of its own for each message.
    """

    def __init__(self, subjects: Sequence[str], inbox: bytes, tag: int, size: int) -> None:
        """``inbox``: replies are ``<inbox>.<number>``; b"" = no reply subject. 1,000 must be a multiple of subjects."""
        if BLOCK % len(subjects):
            raise ValueError("1,000 must be a multiple of the number of subjects")
        tail = pad(size)
        total = VALUE_DIGITS + len(tail)
        self._subjects = [subject.encode() for subject in subjects]
        self._inbox, self._tag, self._tail, self._total = inbox, tag, tail, total
        self._pieces: list[bytes] = []
        if size <= PREPARED_BYTES_MAX:
            self._prepare()

    def one(self, number: int) -> bytes:
        """The protocol bytes of one message, formatted alone."""
        subject = self._subjects[number % len(self._subjects)].replace(b"{n}", b"%012d" % number)
        reply = b" %b.%012d" % (self._inbox, number) if self._inbox else b""
        head = b"PUB %b%b %d\r\n%08d%012d" % (subject, reply, self._total, self._tag, number)
        return b"".join((head, self._tail, b"\r\n"))

    def _prepare(self) -> None:
        # NUL stands for the nine leading digits; it is in no subject, inbox or pad.
        messages = []
        for low in range(BLOCK):
            subject = self._subjects[low % len(self._subjects)].replace(b"{n}", b"\0%03d" % low)
            reply = b" %b.\0%03d" % (self._inbox, low) if self._inbox else b""
            messages.append(
                b"PUB %b%b %d\r\n%08d\0%03d%b\r\n" % (subject, reply, self._total, self._tag, low, self._tail)
            )
        self._places = [0]
        for message in messages:
            self._places.append(self._places[-1] + message.count(b"\0"))
        self._pieces = b"".join(messages).split(b"\0")

    def block(self, number: int) -> bytes:
        """The protocol bytes of messages ``number`` … ``number`` + 999; ``number`` is a multiple of 1,000."""
        if not self._pieces:
            return self.part(number, BLOCK)
        return (b"%09d" % (number // BLOCK)).join(self._pieces)

    def part(self, number: int, count: int) -> bytes:
        """The protocol bytes of ``count`` messages from ``number``, inside one block of 1,000."""
        if not self._pieces:
            return b"".join(self.one(each) for each in range(number, number + count))
        low = number % BLOCK
        if low == 0 and count == BLOCK:
            return self.block(number)
        # A message's first piece begins with the end of the one before, which is cut off; so is what follows the last.
        pieces = self._pieces[self._places[low] : self._places[low + count] + 1]
        if low:
            head = pieces[0]
            pieces[0] = head[head.rindex(b"\r\nPUB ") + 2 :]
        last = pieces[-1]
        if low + count < BLOCK:
            pieces[-1] = last[: last.rindex(b"\r\nPUB ") + 2]
        return (b"%09d" % (number // BLOCK)).join(pieces)


def parse_acks(raw: bytes) -> tuple[array[int], array[int]]:
    """(numbers, sequences) of the PubAcks in ``raw``, in order of arrival; refusals and statuses are left out."""
    numbers: array[int] = array("Q")
    sequences: array[int] = array("Q")
    pairs = [pair for pair in _ACK.findall(raw) if pair[1] != b"0"]
    numbers.extend([int(pair[0]) for pair in pairs])
    sequences.extend([int(pair[1]) for pair in pairs])
    return numbers, sequences
