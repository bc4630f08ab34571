"""Log lines as nats-server writes them: ``[pid] 2026/01/31 12:00:00.000000 [INF] text key=value``.

structlog does the work; the standard library's ``logging`` (asyncio's own messages) ends in the same place. A log
file is reopened by ``LogSink.reopen`` (SIGUSR1), so that it can be rotated from outside.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

import structlog

from server.config.options import Options

LEVELS: Final = {"debug": "DBG", "info": "INF", "warning": "WRN", "error": "ERR", "critical": "FTL", "trace": "TRC"}
Event = MutableMapping[str, Any]  # Any: structlog's own event type


class LogSink:
    """Where lines go: standard error or a file."""

    def __init__(self, path: str = "") -> None:
        self._path = path
        self._file: TextIO = self._open()

    def _open(self) -> TextIO:
        return Path(self._path).open("a", encoding="utf-8") if self._path else sys.stderr

    def write(self, line: str) -> None:
        """One line, out at once."""
        self._file.write(line + "\n")
        self._file.flush()

    def reopen(self) -> None:
        """Close the file and open what is at its path now."""
        if self._path:
            self._file.close()
            self._file = self._open()

    def close(self) -> None:
        """Close the file. Nothing may be written afterwards."""
        if self._path:
            self._file.close()


class LineRenderer:
    """structlog's last processor: an event → a line, or nothing if its level is off."""

    def __init__(self, options: Options, pid: int) -> None:
        self._options = options
        self._pid = pid

    def __call__(self, _logger: object, method: str, event: Event) -> str:
        is_trace = bool(event.pop("trace", False))
        if (is_trace and not self._options.trace) or (not is_trace and method == "debug" and not self._options.debug):
            raise structlog.DropEvent
        text = str(event.pop("event", ""))
        exc_info = event.pop("exc_info", None)
        facts = "".join(f" {key}={_shown(value)}" for key, value in event.items())
        line = self.line("trace" if is_trace else method, text + facts)
        if exc_info:
            line += "\n" + _traceback(exc_info)
        return line

    def line(self, level: str, text: str) -> str:
        """A finished line."""
        stamp = ""
        if self._options.logtime:
            now = datetime.now(UTC) if self._options.logtime_utc else datetime.now()
            stamp = now.strftime(" %Y/%m/%d %H:%M:%S.%f")
        return f"[{self._pid}]{stamp} [{LEVELS.get(level, 'INF')}] {text}"


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return f'"{text}"' if " " in text else text


def _traceback(exc_info: object) -> str:
    if exc_info is True:
        exc_info = sys.exc_info()[1]
    if isinstance(exc_info, tuple):
        exc_info = exc_info[1]
    if not isinstance(exc_info, BaseException):
        return ""
    return "".join(traceback.format_exception(exc_info)).rstrip("\n")


class _StandardHandler(logging.Handler):
    def __init__(self, renderer: LineRenderer, sink: LogSink) -> None:
        super().__init__()
        self._renderer = renderer
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += "\n" + _traceback(record.exc_info)
        self._sink.write(self._renderer.line(record.levelname.lower(), text))


class _SinkLogger:
    """structlog's innermost logger: every level writes the rendered line."""

    def __init__(self, sink: LogSink) -> None:
        self._write = sink.write

    def _log(self, line: str) -> None:
        self._write(line)

    debug = info = warning = error = critical = exception = msg = _log


def configure_logging(options: Options) -> LogSink:
    """Route all logging as the options say. The sink is returned for ``reopen``. ``OSError`` if a file cannot be."""
    sink = LogSink(options.log_file)
    renderer = LineRenderer(options, os.getpid())
    lowest = logging.DEBUG if options.debug or options.trace else logging.INFO
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(lowest),
        logger_factory=lambda *_args: _SinkLogger(sink),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [_StandardHandler(renderer, sink)]
    root.setLevel(logging.DEBUG if options.debug else logging.WARNING)
    return sink
