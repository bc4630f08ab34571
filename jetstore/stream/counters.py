"""Counters: every message of such a stream adds to its subject's value and stores the sum. Source: ADR-49."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from jetstore.errors import ApiError
from jetstore.model.api_errors import api_error
from jetstore.stream import headers

if TYPE_CHECKING:
    from jetstore.stream.contents import Contents
    from jetstore.stream.settings import Settings

DIGITS_MAX = 4_000
"""Of an increment and of a value; longer increments are invalid, a value that would grow longer is refused."""
_INTEGER = re.compile(rb"[+-]?[0-9]+")
_VALUE_END = 10**DIGITS_MAX
_NOT_TOGETHER = (
    headers.ROLLUP,
    headers.EXPECTED_STREAM,
    headers.EXPECTED_LAST_SEQ,
    headers.EXPECTED_LAST_SUBJECT_SEQ,
    headers.EXPECTED_LAST_MSG_ID,
)


def check_increment(settings: Settings, fields: Mapping[bytes, bytes], has_body: bool) -> ApiError | None:
    """Whether a message with ``Nats-Incr`` may be one."""
    text = fields.get(headers.INCR)
    if not text:
        return None
    if not _INTEGER.fullmatch(text) or len(text) > DIGITS_MAX:
        return api_error("JSMessageIncrInvalidErr")
    if not settings.is_counter:
        return api_error("JSMessageIncrDisabledErr")
    if has_body:
        return api_error("JSMessageIncrPayloadErr")
    if any(fields.get(name) for name in _NOT_TOGETHER):
        return api_error("JSMessageIncrInvalidErr")
    return None


def next_value(
    contents: Contents, staged: dict[bytes, int], subject: bytes, fields: Mapping[bytes, bytes]
) -> int | ApiError:
    """The value after this message; ``staged`` are values of messages accepted and not stored yet."""
    text = fields.get(headers.INCR)
    if not text:
        return api_error("JSMessageIncrMissingErr")
    value = staged.get(subject)
    if value is None:
        last_seq = contents.last_seq_of(subject)
        message = contents.read(last_seq) if last_seq else None
        try:
            value = _value(message.data) if message is not None else 0
        except ValueError:
            return api_error("JSMessageCounterBrokenErr")
    value += int(text)
    if not -_VALUE_END < value < _VALUE_END:
        return api_error("JSMessageCounterBrokenErr")
    staged[subject] = value
    return value


def body(value: int) -> bytes:
    """What is stored."""
    return b'{"val":"%d"}' % value


def _value(data: bytes) -> int:
    shown = json.loads(data)
    text = shown.get("val") if isinstance(shown, dict) else None
    if not isinstance(text, str) or not _INTEGER.fullmatch(text.encode()) or len(text) > DIGITS_MAX + 1:
        raise ValueError("no value")
    return int(text)
