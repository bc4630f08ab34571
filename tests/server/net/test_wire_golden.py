"""The same bytes to nats-server and to us: the recorded transcripts hold for both.

``JETSTORE_REWRITE=1`` records the transcripts anew from nats-server; read the diff.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
import wire_script
from net_fakes import FakeLoop, Peer

from jepsen.real.process import find_nats_server
from jetstore.clock import RealClock
from jetstore.limits import Limits
from jetstore.model.server_limits import ServerLimits
from server.app import Server, World
from server.config.options import Options
from server.config.reader import load_options
from server.net.client_server import ClientServer

CONFIGURATIONS: dict[str, str] = {
    "default": "",
    "limits": "max_payload: 10, max_subscriptions: 2, max_sub_tokens: 3, max_control_line: 64",
    "token": "authorization { token: s3cret }",
    "users": """authorization { users: [
        { user: joe, password: x, permissions: {
            publish: { allow: ["ok.>"], deny: ["ok.not"] }
            subscribe: { allow: ["ok.>", "q.a grp"], deny: ["ok.secret"] } } }
        { user: ann, password: "" } ] }""",
    "permissions": (wire_script.FOLDER / "conf" / "permissions.conf").read_text("utf-8"),
    "system": (wire_script.FOLDER / "conf" / "system.conf").read_text("utf-8"),
    "accounts": (wire_script.FOLDER / "conf" / "accounts.conf").read_text("utf-8"),
}


def our_options(name: str) -> Options:
    """Our reading of a configuration."""
    path = wire_script.FOLDER / "conf" / f"{name}.conf"
    return load_options(path, {}) if path.exists() else read_text(CONFIGURATIONS[name])


def read_text(text: str) -> Options:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.conf"
        path.write_text(text or "debug: false")
        return load_options(path, {})


def our_server(name: str, loop: asyncio.AbstractEventLoop) -> ClientServer:
    """The front end that our composition root builds, without JetStream."""
    world = World(loop, RealClock(), Random(1), Limits(), ServerLimits())
    return Server(our_options(name), world, None, lambda error: None).clients


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_our_answers_are_the_recorded_ones(name: str) -> None:
    async def run() -> None:
        server = our_server(name, asyncio.get_running_loop())
        port = await server.start("127.0.0.1", -1)
        different = []
        for case in wire_script.load(name):
            answers = await wire_script.play(case, "127.0.0.1", port)
            expected = [step.answer for step in case.steps]
            if answers != expected:
                different.append((case.title, answers, expected))
        await server.stop()
        assert different == [], "\n".join(f"{t}\n  ours {a}\n  theirs {e}" for t, a, e in different)

    asyncio.run(run())


@pytest.mark.parametrize("chunk_bytes", [1, 3, 50])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_our_answers_do_not_depend_on_how_the_bytes_arrive(name: str, chunk_bytes: int) -> None:
    for case in wire_script.load(name):
        loop = FakeLoop()
        server = our_server(name, cast("asyncio.AbstractEventLoop", cast("Any", loop)))
        peers: dict[str, Peer] = {}
        for step in case.steps:
            if step.who not in peers:
                peers[step.who] = Peer(loop, server)
            peer = peers[step.who]
            data = step.data + (b"PING\r\n" if step.how == ">" else b"")
            for at in range(0, len(data), chunk_bytes):
                peer.connection.data_received(data[at : at + chunk_bytes])
            loop.run_soon()
            if step.how != ".":
                assert wire_script.shown(step, peer.take(), peer.transport.is_gone) == step.answer, case.title


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[Callable[[str], int]]:
    """Starts a nats-server with a configuration; its port."""
    binary = find_nats_server()
    if binary is None:
        pytest.skip("no nats-server on PATH or beside this Python")
    started: list[subprocess.Popen[bytes]] = []

    def start(configuration: str) -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        path = tmp_path / "nats.conf"
        path.write_text(f"listen: 127.0.0.1:{port}\n{configuration}\n")
        process = subprocess.Popen([binary, "-c", str(path)], stderr=subprocess.PIPE)
        started.append(process)
        assert process.stderr is not None
        for line in process.stderr:
            if b"Server is ready" in line:
                return port
        raise AssertionError("nats-server did not start")

    yield start
    for process in started:
        process.terminate()
        process.communicate()


@pytest.mark.oracle
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_nats_servers_answers_are_the_recorded_ones(name: str, nats_server: Callable[[str], int]) -> None:
    port = nats_server(CONFIGURATIONS[name])
    cases = wire_script.load(name)
    for case in cases:
        answers = asyncio.run(wire_script.play(case, "127.0.0.1", port))
        if os.environ.get("JETSTORE_REWRITE"):
            for step, answer in zip(case.steps, answers, strict=True):
                step.answer = answer
        else:
            assert answers == [step.answer for step in case.steps], case.title
    if os.environ.get("JETSTORE_REWRITE"):
        (wire_script.FOLDER / f"{name}.txt").write_text(wire_script.dump(cases), "utf-8")
