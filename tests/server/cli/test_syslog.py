"""Lines that go to a syslog: over UDP, TCP and Unix sockets, of every level, with nobody there for a while."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest
import structlog

from server.cli.log import configure_logging
from server.cli.syslog import WAITING_MAX, SyslogSink
from server.config.options import Options, start_problem

LIMIT_S = 20


@pytest.fixture(autouse=True)
def keep_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def udp() -> tuple[socket.socket, str]:
    there = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    there.bind(("127.0.0.1", 0))
    there.settimeout(LIMIT_S)
    return there, f"udp://127.0.0.1:{there.getsockname()[1]}"


def parts_of(datagram: bytes) -> tuple[int, str]:
    """Severity (facility daemon taken off) and text."""
    priority, _, rest = datagram.decode().removeprefix("<").partition(">")
    assert int(priority) >> 3 == 3
    name, _, text = rest.partition("]: ")
    assert name.rpartition("[")[2].isdigit()
    return int(priority) & 7, text


def test_every_level_has_its_severity() -> None:
    there, where = udp()
    made = configure_logging(Options(remote_syslog=where, debug=True, trace=True))
    log = structlog.get_logger("x")
    log.debug("a")
    log.info("b 100%", name="two words")
    log.info("c", trace=True)
    log.warning("d")
    log.error("e")
    log.critical("f")
    logging.getLogger("asyncio").error("g")
    found = [parts_of(there.recv(4096)) for _ in range(7)]
    assert found == [
        (7, "a"),
        (5, 'b 100% name="two words"'),
        (5, "c"),
        (4, "d"),
        (3, "e"),
        (2, "f"),
        (3, "g"),
    ]
    made.close()
    there.close()


def test_over_a_unix_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as there:
        there.bind(str(tmp_path / "log"))
        there.settimeout(LIMIT_S)
        sink = SyslogSink(f"unix://{tmp_path}/log")
        sink.write("x", "error")
        assert parts_of(there.recv(4096)) == (3, "x")
        sink.close()


def test_over_tcp_lines_end_and_a_lost_connection_is_made_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(LIMIT_S)
        sink = SyslogSink(f"tcp://127.0.0.1:{listener.getsockname()[1]}")
        first, _ = listener.accept()
        sink.write("one")
        sink.write("two")
        with first.makefile("rb") as lines:
            assert [parts_of(lines.readline())[1] for _ in range(2)] == ["one\n", "two\n"]
        first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        first.close()
        listener.setblocking(False)
        second: socket.socket | None = None
        while second is None:  # the first lines after may go into the void
            sink.write("three")
            try:
                second, _ = listener.accept()
            except BlockingIOError:
                Event().wait(0.01)
        second.settimeout(LIMIT_S)
        with second.makefile("rb") as lines:
            assert parts_of(lines.readline())[1] in ("three\n", "1 lines were lost: syslog did not take them\n")
        second.close()
        sink.close()


def test_what_does_not_fit_is_lost_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    there, where = udp()
    sink = SyslogSink(where)
    is_held, may_go = Event(), Event()
    emit: Callable[[logging.LogRecord], None] = sink._handler.emit

    def held(record: logging.LogRecord) -> None:
        is_held.set()
        may_go.wait(LIMIT_S)
        emit(record)

    monkeypatch.setattr(sink._handler, "emit", held)
    sink.write("first")
    assert is_held.wait(LIMIT_S)
    monkeypatch.setattr("server.cli.syslog.WAITING_MAX", 2)
    for number in range(5):
        sink.write(str(number))
    may_go.set()
    assert [parts_of(there.recv(4096))[1] for _ in range(3)] == [
        "first",
        "3 lines were lost: syslog did not take them",
        "0",
    ]
    assert WAITING_MAX > 1000
    sink.close()
    there.close()


def test_where_lines_go_can_change(tmp_path: Path) -> None:
    there, where = udp()
    options = Options(log_file=str(tmp_path / "x.log"), remote_syslog=where)
    made = configure_logging(options)
    structlog.get_logger("x").info("to the file")
    made.apply(Options(remote_syslog=where))
    structlog.get_logger("x").info("to syslog")
    assert parts_of(there.recv(4096)) == (5, "to syslog")
    assert "[INF] to the file" in (tmp_path / "x.log").read_text()
    made.close()
    there.close()


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="there is no socket"):
        configure_logging(Options(remote_syslog=f"unix://{tmp_path}/nothing"))


@pytest.mark.parametrize(
    ("where", "problem"),
    [
        ("http://a", 'error invalid network type: "http"'),
        ("udp://", '"udp://" names no syslog'),
        ("unix://host", '"unix://host" names no syslog'),
        ("udp://127.0.0.1:514", ""),
    ],
)
def test_addresses(where: str, problem: str) -> None:
    assert start_problem(Options(remote_syslog=where)) == problem
