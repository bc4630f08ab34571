"""Protocol trace (``-V``): one log line per operation and payload of a connection, in nats-server's form.

``WireTrace`` follows one direction of the byte stream on its own, however it is cut; what it does not understand it
shows as it is. It is only made where tracing is on: nothing of this is on the data path otherwise. Secrets of a
CONNECT are never shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable

PAYLOAD_OPERATIONS = frozenset((b"PUB", b"HPUB", b"MSG", b"HMSG"))
LINE_BYTES_MAX = 64 * 1024
"""A control line longer than this is shown cut: the connection is about to be closed for it."""
SIZE_DIGITS_MAX = 9
_SECRET = re.compile(rb'("(?:pass|auth_token|jwt|nkey|sig)"\s*:\s*)"(?:[^"\\]|\\.)*"')


class WireTrace:
    """Cuts one direction of a connection into operations and payloads and says each of them once."""

    def __init__(
        self, arrow: str, say: Callable[[str], None], *, payload_max: int = 0, is_headers_only: bool = False
    ) -> None:
        """``arrow`` is ``<<-`` for what the client sent, ``->>`` for what it is sent.

        ``payload_max``: how many bytes of a payload are shown, 0 = all. ``is_headers_only``: of payloads only headers.
        """
        self._arrow = arrow
        self._say = say
        self._payload_max = payload_max
        self._is_headers_only = is_headers_only
        self._header_bytes = 0
        self._buffer = b""
        self._payload_bytes = -1
        """Bytes of payload that are due next; -1 = a control line is."""

    def feed(self, data: bytes) -> None:
        """The next bytes of the stream."""
        self._buffer += data
        while self._step():
            """One operation or payload after the other, as long as they are complete."""

    def _step(self) -> bool:
        if self._payload_bytes >= 0:
            end = self._payload_bytes + 2
            if len(self._buffer) < end:
                return False
            payload, self._buffer = self._buffer[: self._payload_bytes], self._buffer[end:]
            self._payload_bytes = -1
            self._payload(payload)
            return True
        line, newline, rest = self._buffer.partition(b"\n")
        if not newline:
            if len(self._buffer) <= LINE_BYTES_MAX:
                return False
            rest = b""
        self._buffer = rest
        words = line.split()
        if not words:
            return True
        operation = words[0].upper()
        if operation == b"CONNECT":
            line = _SECRET.sub(rb'\1"[REDACTED]"', line)
        elif operation in PAYLOAD_OPERATIONS and words[-1].isdigit() and len(words[-1]) <= SIZE_DIGITS_MAX:
            self._payload_bytes = int(words[-1])
            has_headers = operation in (b"HPUB", b"HMSG") and words[-2].isdigit() and len(words[-2]) <= SIZE_DIGITS_MAX
            self._header_bytes = int(words[-2]) if has_headers else 0
        text = _shown(b" ".join(line.split()))
        if operation in (b"+OK", b"-ERR"):
            text = text.removeprefix("+").replace("'", "")
        self._say(f"{self._arrow} [{text}]")
        return True

    def _payload(self, payload: bytes) -> None:
        if self._is_headers_only:
            if not self._header_bytes:
                return
            payload = payload[: self._header_bytes].removesuffix(b"\r\n\r\n")
        dots = "..." if self._payload_max and len(payload) > self._payload_max else ""
        text = _shown(payload[: self._payload_max or None])
        self._say(f'{self._arrow} MSG_PAYLOAD: ["{text}{dots}"]')


def _shown(data: bytes) -> str:
    """Bytes as one line of text."""
    return data.decode("utf-8", "backslashreplace").replace("\r", "\\r").replace("\n", "\\n")
