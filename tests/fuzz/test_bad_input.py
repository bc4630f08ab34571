"""Bad input over real sockets: corpus cases and mutations of them; after each one another client's request is answered.

Every case has a connection of its own, which the server ends when the case is over; then a request of a connection that
stays gets its answer. At the end the server's log holds no traceback and its memory has not grown out of bounds.
``JETSTORE_DEEP=1`` tries 20,000 mutations of each area instead of 120, ``JETSTORE_FUZZ=N`` N of them.
``tests/server/config/test_config_fuzz.py`` does the same to configurations. A failing example prints its bytes.
"""

from __future__ import annotations

import base64
import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from deep import IS_DEEP
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from jepsen.real.process import JETSTORE, ServerProcess, free_port

pytestmark = [pytest.mark.real, pytest.mark.timeout(3600 if IS_DEEP else 120)]

EXAMPLES = int(os.environ.get("JETSTORE_FUZZ") or (20_000 if IS_DEEP else 120))
GROWTH_KIB_MAX = 256 * 1024
WAIT_S = 20.0
CORPUS = Path(__file__).parent / "corpus"
PIECES = [
    b"\r\n",
    b"\n",
    b"\x00",
    b" ",
    b"\xff",
    b"{",
    b"}",
    b'"',
    b"[" * 40,
    b"-1",
    b"9" * 30,
    b"9" * 5_000,
    b"1e999",
    b"null",
    b".",
    b">",
    b"$",
]
"""What a mutation puts in between."""


def corpus(name: str) -> list[bytes]:
    """The cases of one file."""
    lines = (CORPUS / f"{name}.txt").read_text().splitlines()
    return [line.encode().decode("unicode_escape").encode("latin-1") for line in lines if not line.startswith("%%")]


@st.composite
def mutated(draw: st.DrawFn, cases: list[bytes]) -> bytes:
    """A case with up to six pieces cut out, put in, flipped, doubled or taken from another case."""
    data = bytearray(draw(st.sampled_from(cases)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        until = min(len(data), at + draw(st.integers(1, 8)))
        kind = draw(st.integers(0, 4))
        if kind == 0:
            del data[at:until]
        elif kind == 1:
            data[at:at] = draw(st.sampled_from(PIECES))
        elif kind == 2 and at < len(data):
            data[at] ^= draw(st.integers(1, 255))
        elif kind == 3:
            data[at:at] = data[at:until] * draw(st.sampled_from([1, 2, 300]))
        else:
            data[at:] = draw(st.sampled_from(cases))[at:]
    return bytes(data)


class Server:
    """The server under attack and the client that must not notice."""

    def __init__(self, folder: Path) -> None:
        self.websocket_port = free_port()
        config = f'websocket {{ listen: "127.0.0.1:{self.websocket_port}", no_tls: true, compression: true, '
        config += "same_origin: true }\n"
        self.process = ServerProcess(JETSTORE, folder / "store", config=config)
        self.process.start()
        self.witness = self.connect(self.process.port)
        self.witness.sendall(b'CONNECT {"verbose":false}\r\nSUB answer 1\r\n')
        self.asked = 0
        self.ask()
        self.before_kib = self.memory_kib()

    def connect(self, port: int) -> socket.socket:
        return socket.create_connection(("127.0.0.1", port), WAIT_S)

    def memory_kib(self) -> int:
        """RssAnon of the server's main process."""
        assert self.process.process is not None
        status = Path(f"/proc/{self.process.process.pid}/status").read_text()
        return int(status.split("RssAnon:")[1].split()[0])

    def ask(self) -> None:
        """A request and its answer, through JetStream's API."""
        self.asked += 1
        self.witness.sendall(b"PUB $JS.API.STREAM.INFO.NONE%d answer 0\r\n\r\n" % self.asked)
        heard = b""
        while b'"err_code":10059' not in heard:
            data = self.witness.recv(65536)
            assert data, "the innocent connection was closed"
            heard += data
            if b"PING\r\n" in data:
                self.witness.sendall(b"PONG\r\n")

    def attack(self, port: int, data: bytes) -> bytes:
        """Send this and no more, read until the server has ended the connection; then ask. Gives what came back."""
        heard = b""
        with self.connect(port) as guilty:
            try:
                guilty.sendall(data)
                guilty.shutdown(socket.SHUT_WR)
                while part := guilty.recv(65536):
                    heard += part
                    assert len(heard) < 64 << 20
            except (ConnectionResetError, BrokenPipeError):
                pass
            except OSError as problem:
                if problem.errno != errno.ENOTCONN:
                    raise
        self.ask()
        return heard


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("fuzz"))
    try:
        yield started
        assert started.process.is_running()
        assert "Traceback" not in started.process.log.read_text()
        assert started.memory_kib() - started.before_kib < GROWTH_KIB_MAX
    finally:
        started.witness.close()
        started.process.kill()


def wire(server: Server, data: bytes) -> None:
    server.attack(server.process.port, b'CONNECT {"headers":true}\r\n' + data)


def api(server: Server, data: bytes) -> None:
    words, _, body = data.partition(b" ")
    subject = bytes(byte for byte in words if byte > 32) or b"INFO"
    request = b"PUB $JS.API.%b r %d\r\n%b\r\n" % (subject, len(body), body)
    server.attack(server.process.port, b'CONNECT {"lang":"fuzz"}\r\nSUB r 1\r\n' + request + b"PING\r\n")


def websocket(server: Server, data: bytes) -> None:
    key = base64.b64encode(bytes(16))
    handshake = (
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover; server_no_context_takeover\r\n"
        b"Sec-WebSocket-Key: " + key + b"\r\n\r\n"
    )
    server.attack(server.websocket_port, handshake + data)


def upgrade(server: Server, data: bytes) -> None:
    server.attack(server.websocket_port, data)


HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)
UPGRADES = [
    HANDSHAKE.replace(b"Key: A", b"Key: ") + b"\r\nno frame at all",
    HANDSHAKE + b"\r\nno frame at all",
    HANDSHAKE + b"Origin: http://a\r\nOrigin: http://b\r\n\r\n",
    HANDSHAKE + b"Origin: http://[\r\n\r\n",
    HANDSHAKE.replace(b"Host: a\r\n", b"") + b"Origin: http://a\r\n\r\n",
    HANDSHAKE + b"\r\n",
    b"POST / HTTP/1.0\r\nContent-Length: -5\r\n\r\n",
    b"PING\r\n",
]
AREAS: dict[str, tuple[Callable[[Server, bytes], None], list[bytes]]] = {
    "wire": (wire, corpus("wire")),
    "api": (api, corpus("api")),
    "websocket": (websocket, corpus("websocket")),
    "upgrade": (upgrade, UPGRADES),
}


@pytest.mark.parametrize("area", AREAS)
def test_only_the_guilty_connection_closes(
    server: Server, area: str, record_property: Callable[[str, object], None]
) -> None:
    send, cases = AREAS[area]
    before = server.asked
    for case in cases:
        send(server, case)

    @given(data=mutated(cases))
    @example(data=b"")
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    def attacked(data: bytes) -> None:
        send(server, data)

    attacked()
    record_property("cases", server.asked - before)
