"""Log lines as nats-server writes them: ``[pid] 2026/01/31 12:00:00.000000 [INF] text key=value``.

structlog does the work; the standard library's ``logging`` (asyncio's own messages) ends in the same place. A log
file can be rotated from outside and reopened (``Logging.reopen``, SIGUSR1), or rotates itself at a size limit: the
full file becomes ``<file>.<time>``, of which the newest are kept.
"""

from __future__ import annotations

import glob
import logging
import os
import sys
import traceback
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from functools import partialmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import structlog

from server.config.options import Options

if TYPE_CHECKING:
    from server.cli.syslog import SyslogSink

LEVELS: Final = {"debug": "DBG", "info": "INF", "warning": "WRN", "error": "ERR", "critical": "FTL", "trace": "TRC"}
ROTATED: Final = "[0-9][0-9][0-9][0-9].[0-9][0-9].[0-9][0-9].[0-9][0-9].[0-9][0-9].[0-9][0-9].[0-9]*"
"""What follows the name of a file that was set aside."""
Event = MutableMapping[str, Any]  # Any: structlog's own event type


class LogSink:
    """Where lines go: standard error or a file."""

    is_plain = False
    """Lines come with process id, time and level."""

    def __init__(self, path: str = "", bytes_max: int = 0, files_max: int = 0) -> None:
        """``bytes_max``: at this size the file is set aside; ``files_max``: how many are kept with it; 0 = no limit."""
        self._path = path
        self._bytes_max = bytes_max if path else 0
        self._files_max = files_max
        self._bytes = 0
        self._file: TextIO = self._open()

    def _open(self) -> TextIO:
        if not self._path:
            return sys.stderr
        path = Path(self._path)
        self._bytes = path.stat().st_size if path.exists() else 0
        return path.open("a", encoding="utf-8")

    def write(self, line: str, level: str = "info") -> None:
        """One line, out at once."""
        self._file.write(line + "\n")
        self._file.flush()
        if self._bytes_max:
            self._bytes += len(line.encode("utf-8", "replace")) + 1
            if self._bytes >= self._bytes_max:
                self._rotate()

    def _rotate(self) -> None:
        """Begin a new file. Where that fails the old one goes on, and is tried again after as many bytes."""
        path, self._bytes = Path(self._path), 0
        stamp = datetime.now().strftime("%Y.%m.%d.%H.%M.%S.%f")
        try:
            path.rename(f"{path}.{stamp}")
            self._file.close()
            self._file = self._open()
            if self._files_max:
                aside = sorted(path.parent.glob(f"{glob.escape(path.name)}.{ROTATED}"))
                for each in aside[: max(len(aside) + 1 - self._files_max, 0)]:
                    each.unlink(missing_ok=True)
        except OSError as error:
            if self._file.closed:
                self._path, self._bytes_max, self._file = "", 0, sys.stderr
            self._file.write(f"cannot rotate the log: {error}\n")

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
        self.options = options
        self.is_plain = False
        """Whether lines are their text alone."""
        self._pid = pid

    def __call__(self, _logger: object, method: str, event: Event) -> str:
        is_trace = bool(event.pop("trace", False))
        if (is_trace and not self.options.trace) or (not is_trace and method == "debug" and not self.options.debug):
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
        if self.is_plain:
            return text
        stamp = ""
        if self.options.logtime:
            now = datetime.now(UTC) if self.options.logtime_utc else datetime.now()
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


class Logging:
    """All logging of this process. ``apply`` changes how while it runs."""

    def __init__(self, options: Options) -> None:
        """``OSError`` if the log file cannot be opened."""
        self._sink = _sink_of(options)
        self.renderer = LineRenderer(options, os.getpid())
        self.renderer.is_plain = self._sink.is_plain

    def write(self, line: str, level: str = "info") -> None:
        """One finished line."""
        self._sink.write(line, level)

    def apply(self, options: Options) -> None:
        """Log as these options say. ``OSError``, and nothing has changed, if the file cannot be opened."""
        if _where(options) != _where(self.renderer.options):
            sink, self._sink = self._sink, _sink_of(options)
            self.renderer.is_plain = self._sink.is_plain
            sink.close()
        self.renderer.options = options
        logging.getLogger().setLevel(logging.DEBUG if options.debug else logging.WARNING)

    def reopen(self) -> None:
        """Close the log file and open what is at its path now."""
        self._sink.reopen()

    def close(self) -> None:
        """Close the file. Nothing may be written afterwards."""
        self._sink.close()


def _where(options: Options) -> tuple[str, str, bool]:
    return options.log_file, options.remote_syslog, options.syslog


def _sink_of(options: Options) -> LogSink | SyslogSink:
    if not options.log_file and (options.remote_syslog or options.syslog):
        from server.cli.syslog import LOCAL, SyslogSink  # start-up time: few want it

        return SyslogSink(options.remote_syslog or LOCAL)
    return LogSink(options.log_file, options.log_file_bytes_max, options.log_files_max)


class _StandardHandler(logging.Handler):
    def __init__(self, renderer: LineRenderer, write: Callable[[str, str], None]) -> None:
        super().__init__()
        self._renderer = renderer
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += "\n" + _traceback(record.exc_info)
        level = record.levelname.lower()
        self._write(self._renderer.line(level, text), level)


class _SinkLogger:
    """structlog's innermost logger: every level writes the rendered line, and says which it is."""

    def __init__(self, write: Callable[[str, str], None]) -> None:
        self._write = write

    def _log(self, line: str, *, level: str) -> None:
        self._write(line, level)

    debug = partialmethod(_log, level="debug")
    info = msg = partialmethod(_log, level="info")
    warning = partialmethod(_log, level="warning")
    error = exception = partialmethod(_log, level="error")
    critical = partialmethod(_log, level="critical")


def configure_logging(options: Options) -> Logging:
    """Route all logging as the options say, and as they will say later. ``OSError`` if a file cannot be."""
    made = Logging(options)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, made.renderer],
        # Nothing is filtered before the renderer: a reload may switch debugging on, and loggers are cached.
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=lambda *_args: _SinkLogger(made.write),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [_StandardHandler(made.renderer, made.write)]
    root.setLevel(logging.DEBUG if options.debug else logging.WARNING)
    return made
