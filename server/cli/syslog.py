"""Log lines for a syslog: the local one, or one elsewhere over UDP, TCP or a Unix socket.

The standard library's handler does the talking, in a thread of its own: a syslog that does not take lines must not stop
the server. So many wait as ``WAITING_MAX`` says; what comes on top is lost, and how much was is the next line's news.
Source: RFC 3164, as nats-server writes it: facility daemon, notices for what is ``[INF]`` elsewhere.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from logging.handlers import SysLogHandler
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Final
from urllib.parse import urlsplit

LOCAL: Final = "unix:///dev/log"
PORT: Final = 514
WAITING_MAX: Final = 10_000
CLOSE_WAIT_S: Final = 2.0
_PRIORITIES: Final = {
    "debug": "debug",
    "info": "notice",
    "trace": "notice",
    "warning": "warning",
    "error": "err",
    "critical": "crit",
}


class _Handler(SysLogHandler):
    """One that takes finished text with its priority."""

    append_nul = False

    def mapPriority(self, levelName: str) -> str:  # noqa: N802, N803 - the library's names
        return levelName

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        raise


def _connected(where: str) -> SysLogHandler:
    parts = urlsplit(where)
    if parts.scheme == "unix":
        if not Path(parts.path).is_socket():  # the library would wait for it
            raise FileNotFoundError(f"error connecting to syslog: there is no socket {parts.path}")
        handler = _Handler(parts.path, "daemon")
    else:
        kind = socket.SOCK_DGRAM if parts.scheme == "udp" else socket.SOCK_STREAM
        handler = _Handler((parts.hostname or "", parts.port or PORT), "daemon", kind)
    handler.ident = f"{os.path.basename(sys.argv[0]) or 'jetstore'}[{os.getpid()}]: "
    handler.setFormatter(logging.Formatter("%(message)s\n" if parts.scheme == "tcp" else "%(message)s"))
    return handler


class SyslogSink:
    """Where lines go; as ``log.LogSink``."""

    is_plain = True
    """Lines come without process id, time and level: syslog has its own."""

    def __init__(self, where: str) -> None:
        """``OSError`` if nobody is there."""
        self._where = where
        self._handler = _connected(where)
        self._lines: SimpleQueue[tuple[str, str] | None] = SimpleQueue()
        self._lost = 0
        self._thread = Thread(target=self._run, name="syslog", daemon=True)
        self._thread.start()

    def write(self, line: str, level: str = "info") -> None:
        """One line, soon."""
        if self._lines.qsize() >= WAITING_MAX:
            self._lost += 1
            return
        self._lines.put((line, level))

    def reopen(self) -> None:
        """Nothing to do: there is no file."""

    def close(self) -> None:
        """Send what waits, if that does not take long. Nothing may be written afterwards."""
        self._lines.put(None)
        self._thread.join(CLOSE_WAIT_S)

    def _run(self) -> None:
        while (taken := self._lines.get()) is not None:
            lost, self._lost = self._lost, 0
            if lost:
                self._send(f"{lost} lines were lost: syslog did not take them", "warning")
            self._send(*taken)
        self._handler.close()

    def _send(self, line: str, level: str) -> None:
        record = logging.LogRecord("", logging.INFO, "", 0, line, None, None)
        record.levelname = _PRIORITIES.get(level, "notice")
        try:
            self._handler.emit(record)
        except OSError:
            self._lost += 1
            self._handler.close()  # the next line connects again
