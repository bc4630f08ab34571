"""The same bytes to nats-server and to us: the recorded transcripts hold for both.

``JETSTORE_REWRITE=1`` records the transcripts anew from nats-server; read the diff.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
import wire_script
from net_fakes import Peer, ServerBench

from jepsen.real.process import find_nats_server
from jetstore.clock import RealClock
from server.app import authenticator as configured_authenticator
from server.auth.authenticator import Authenticator, PasswordUser, User
from server.auth.permissions import Permissions
from server.config.reader import load_options
from server.net.client_server import ClientServer
from server.net.options import NetOptions
from server.protocol.client import ProtocolOptions
from server.protocol.info import ServerInfo
from server.route.router import Router

JOE = Permissions(
    publish_allow=["ok.>"],
    publish_deny=["ok.not"],
    subscribe_allow=["ok.>", "q.a grp"],
    subscribe_deny=["ok.secret"],
)
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
}


def our_options(name: str) -> tuple[NetOptions, Authenticator]:
    options, authenticator = NetOptions(), Authenticator()
    if name == "limits":
        options.protocol = ProtocolOptions(max_payload_bytes=10, max_control_line_bytes=64)
        options.max_subscriptions, options.max_sub_tokens = 2, 3
    elif name == "token":
        authenticator = Authenticator(token="s3cret")
    elif name == "users":
        users = [PasswordUser(User("joe", permissions=JOE), "x"), PasswordUser(User("ann"), "")]
        authenticator = Authenticator(users=users)
    elif name == "permissions":
        given = load_options(wire_script.FOLDER / "conf" / f"{name}.conf", {})
        authenticator = configured_authenticator(given)
    return options, authenticator


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_our_answers_are_the_recorded_ones(name: str) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        options, authenticator = our_options(name)
        info = ServerInfo("N" + "A" * 55, "n1", "2.15.1", "0", "python", "127.0.0.1", 0, 1 << 20)
        router = Router("$G", Random(1), loop.call_soon)
        server = ClientServer(options, info, authenticator, router, RealClock(), Random(2), loop)
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
        bench = ServerBench(*our_options(name))
        peers: dict[str, Peer] = {}
        for step in case.steps:
            if step.who not in peers:
                peers[step.who] = Peer(bench)
            peer = peers[step.who]
            data = step.data + (b"PING\r\n" if step.how == ">" else b"")
            for at in range(0, len(data), chunk_bytes):
                peer.connection.data_received(data[at : at + chunk_bytes])
            bench.loop.run_soon()
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
