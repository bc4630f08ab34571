"""A running server as an operator sees it: signals, reload, files, the end. Real processes, real signals."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.cli.signals import SignalRefused, send_signal, servers

WAIT_S = 30.0
CONFIG = """
listen: 127.0.0.1:-1
log_file: "{directory}/log"
logtime: false
pid_file: "{directory}/pid"
ports_file_dir: "{directory}"
lame_duck_duration: "30s"
lame_duck_grace_period: "0s"
"""


class Running:
    """One server of its own directory."""

    def __init__(self, directory: Path, config: str = "") -> None:
        self.directory = directory
        self.config = directory / "x.conf"
        self.log = directory / "log"
        self.write(config)
        command = [sys.executable, "-m", "server.cli.main", "serve", "-c", str(self.config)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE)
        self.wait_for("Server is ready")
        (ports,) = directory.glob("*.ports")
        self.ports_file = ports
        self.port = int(json.loads(ports.read_text())["nats"][0].rpartition(":")[2])

    def write(self, config: str) -> None:
        self.config.write_text(CONFIG.format(directory=self.directory) + config)

    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def wait_for(self, text: str, times: int = 1) -> None:
        deadline = time.monotonic() + WAIT_S
        while self.text().count(text) < times:
            assert time.monotonic() < deadline, (text, self.text())
            assert self.process.poll() is None, (text, self.text(), self.stderr())
            select.select([], [], [], 0.01)

    def stderr(self) -> str:
        assert self.process.stderr is not None
        return "" if self.process.poll() is None else self.process.stderr.read().decode()

    def signal(self, verb: str) -> None:
        send_signal(f"{verb}={self.directory}/pid")

    def reload(self, config: str, answer: str) -> None:
        self.write(config)
        before = self.text().count(answer)
        self.signal("reload")
        self.wait_for(answer, before + 1)

    def ended(self) -> int:
        code = self.process.wait(WAIT_S)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


class Client:
    """A connection and what it read."""

    def __init__(self, server: Running, user: str = "", password: str = "") -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port))
        self.socket.settimeout(WAIT_S)
        credentials = f',"user":"{user}","pass":"{password}"' if user else ""
        self.send(f'CONNECT {{"verbose":false,"protocol":1{credentials}}}\r\nSUB x.y 7\r\nPING\r\n')
        self.read = b""
        self.until(b"PONG\r\n")

    def send(self, text: str) -> None:
        self.socket.sendall(text.encode())

    def until(self, wanted: bytes) -> bytes:
        """Read until this has come; b"" as what is wanted: until the connection ends."""
        while not wanted or wanted not in self.read:
            chunk = self.socket.recv(65536)
            if not chunk:
                assert not wanted, self.read
                self.socket.close()
                break
            self.read += chunk
        got, self.read = self.read, b""
        return got


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    pid = tmp_path / "pid"
    if pid.exists():
        try:
            os.kill(int(pid.read_text()), 9)
        except ProcessLookupError:
            pass


def test_the_life_of_a_server(directory: Path) -> None:
    """One process for all of it: starting one takes a second."""
    users = (
        "authorization {{ users: [{{user: a, password: b{rest}}}] }}\n"
        "accounts {{ A {{ users: [{{user: c, password: {c}}}] }} }}"
    )
    server = Running(directory, users.format(rest="", c="d"))
    assert (directory / "pid").read_text() == str(server.process.pid)
    assert server.process.pid in servers()
    stays, goes = Client(server, "a", "b"), Client(server, "c", "d")

    # A reload that works: one user may less, the other has another password, limits and logging change.
    server.reload(
        users.format(rest=", permissions: {subscribe: z}", c="changed") + "\ndebug: true\nmax_payload: 1000",
        "Reloaded server configuration (sha256:",
    )
    assert b"-ERR 'Authorization Violation'\r\n" in goes.until(b"")
    got = stays.until(b'(sid "7")\'\r\n')
    assert b'-ERR \'Permissions Violation for Subscription to "x.y" (sid "7")\'\r\n' in got
    stays.send("PING\r\n")
    assert b"PONG\r\n" in stays.until(b"PONG\r\n")
    for line in ("Reloaded: debug = true", "Reloaded: max_payload = 1000", 'Removed sub "x.y" (sid "7") for User "a"'):
        assert line in server.text()

    # Reloads that change nothing: one option of several cannot, and a file with mistakes.
    kept = users.format(rest="", c="changed")
    server.reload(kept + "\ntrace: true\nmax_pending: 2MB", "reload not supported for MaxPending: old=67108864")
    server.reload(kept + "\nfoo: 1\n bar: 2", f'{server.config}:12:2: unknown field "bar"')
    assert f'Failed to reload server configuration: {server.config}:11:1: unknown field "foo"' in server.text()
    assert "[TRC]" not in server.text()
    stays.send("PUB q 1001\r\n" + "x" * 1001 + "\r\n")
    assert b"-ERR 'Maximum Payload Violation'\r\n" in stays.until(b"")

    # A log file moved away.
    server.log.rename(directory / "log.old")
    server.signal("reopen")
    server.wait_for("File log re-opened")

    # Lame duck: clients are told, then closed; no new ones; TERM does not hurry it; the ports file goes.
    last = Client(server, "a", "b")
    server.signal("ldm")
    assert b'"ldm":true' in last.until(b"")
    server.signal("term")
    assert server.ended() == 0
    assert "Entering lame duck mode, stop accepting new clients" in server.text()
    assert server.text().endswith("[INF] Server Exiting..\n")
    assert not server.ports_file.exists()
    assert (directory / "pid").exists()
    with pytest.raises(SignalRefused, match="no such process"):
        server.signal("term")


def test_excess_clients_go_and_stop_is_a_kill(directory: Path) -> None:
    server = Running(directory)
    first, second = Client(server), Client(server)
    server.reload("max_connections: 1\nping_interval: '5s'", "Reloaded server configuration")
    assert b"-ERR 'maximum connections exceeded'\r\n" in second.until(b"")
    first.send("PING\r\n")
    first.until(b"PONG\r\n")
    server.signal("stop")
    assert server.ended() == -9
    assert server.ports_file.exists()
    first.socket.close()


def test_a_graceful_end(directory: Path) -> None:
    server = Running(directory)
    server.signal("quit")
    assert server.ended() == 0
    assert 'Trapped "interrupt" signal' in server.text()
    assert not server.ports_file.exists()
