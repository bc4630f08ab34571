"""What operators ask of a cluster, as it comes over the wire: bodies, errors, and which account is answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from jsapi_fakes import Rig

from jetstore.model.stream import Placement
from server.jsapi.table import SYSTEM_SUBSCRIBED, SYSTEM_TABLE, find_endpoint


class FakeCluster:
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    async def step_down_stream(self, stream: str, placement: Placement | None) -> None:
        self.asked.append(("stream", stream, placement))

    async def step_down_consumer(self, stream: str, consumer: str, placement: Placement | None) -> None:
        self.asked.append(("consumer", stream, consumer, placement))

    async def step_down_meta(self, placement: Placement | None) -> None:
        self.asked.append(("meta", placement))

    async def remove_peer(self, stream: str, peer: str) -> None:
        self.asked.append(("peer", stream, peer))

    async def remove_server(self, peer: str, peer_id_given: str = "") -> None:
        self.asked.append(("server", peer, peer_id_given))


def ask(subject: str, body: bytes = b"", *, is_system: bool = False) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    """The answer of a node of a cluster, and what it was asked to do."""
    cluster = FakeCluster()

    async def scenario(rig: Rig) -> dict[str, Any]:
        rig.node.cluster = cluster
        answer: dict[str, Any] = json.loads(await rig.ask(f"$JS.API.{subject}", body))
        return answer

    return run(scenario, is_system=is_system), cluster.asked


def run(scenario: Callable[[Rig], Awaitable[dict[str, Any]]], *, is_system: bool = False) -> dict[str, Any]:
    async def main() -> dict[str, Any]:
        rig = Rig(is_system=is_system)
        try:
            return await scenario(rig)
        finally:
            await rig.api.close()

    return asyncio.run(main())


def done(kind: str) -> dict[str, Any]:
    return {"type": f"io.nats.jetstream.api.v1.{kind}_response", "success": True}


@pytest.mark.parametrize(
    ("body", "placement"),
    [
        (b"", None),
        (b"abc", None),
        (b"{}", None),
        (b'{"placement":{"preferred":"n2"}}', Placement(preferred="n2")),
        (b'{"placement":{"cluster":"C","tags":["a"]}}', Placement(cluster="C", tags=("a",))),
    ],
)
def test_who_is_to_lead(body: bytes, placement: Placement | None) -> None:
    assert ask("STREAM.LEADER.STEPDOWN.S", body) == (done("stream_leader_stepdown"), [("stream", "S", placement)])
    consumer = ask("CONSUMER.LEADER.STEPDOWN.S.c", body)
    assert consumer == (done("consumer_leader_stepdown"), [("consumer", "S", "c", placement)])
    meta = ask("META.LEADER.STEPDOWN", body, is_system=True)
    assert meta == (done("meta_leader_stepdown"), [("meta", placement)])


def test_a_peer_is_named() -> None:
    assert ask("STREAM.PEER.REMOVE.S", b'{"peer":"n2"}') == (done("stream_remove_peer"), [("peer", "S", "n2")])
    assert ask("STREAM.PEER.EVACUATE.S", b'{"peer":"n2"}') == (done("stream_evacuate_peer"), [("peer", "S", "n2")])


def test_a_server_is_named() -> None:
    for body, asked in (
        (b'{"peer":"n2"}', ("server", "n2", "")),
        (b'{"peer":"n2","peer_id":"44jzkV9D"}', ("server", "n2", "44jzkV9D")),
        (b'{"peer":""}', ("server", "", "")),
    ):
        assert ask("SERVER.REMOVE", body, is_system=True) == (done("meta_server_remove"), [asked])


REFUSED = [
    ("STREAM.LEADER.STEPDOWN.S", b"{", 10025, "invalid JSON: unexpected EOF"),
    ("STREAM.LEADER.STEPDOWN.S", b'{"foo":1}', 10025, 'invalid JSON: json: unknown field "foo"'),
    ("STREAM.PEER.REMOVE.S", b"", 10003, "bad request"),
    ("STREAM.PEER.REMOVE.S", b"{}", 10003, "bad request"),
    ("STREAM.PEER.REMOVE.S", b'{"peer":""}', 10003, "bad request"),
    ("STREAM.PEER.REMOVE.S", b'{"peer":"x","foo":1}', 10025, 'invalid JSON: json: unknown field "foo"'),
    ("SERVER.REMOVE", b"", 10003, "bad request"),
    ("SERVER.REMOVE", b"{}", 10003, "bad request"),
    ("SERVER.REMOVE", b'{"peer_id":"zz","foo":1}', 10025, 'invalid JSON: json: unknown field "foo"'),
    ("META.LEADER.STEPDOWN", b"{", 10025, "invalid JSON: unexpected EOF"),
]
"""As nats-server 2.15 answered on a cluster."""


@pytest.mark.parametrize(("subject", "body", "err_code", "description"), REFUSED)
def test_what_does_not_decode(subject: str, body: bytes, err_code: int, description: str) -> None:
    answer, asked = ask(subject, body, is_system=subject.startswith(("SERVER.", "META.")))
    assert (answer["error"]["err_code"], answer["error"]["description"]) == (err_code, description)
    assert not asked


def test_the_system_account_has_an_api_of_its_own() -> None:
    for endpoint in SYSTEM_TABLE:
        names = ("one",) * endpoint.names_max
        subject = ".".join(("$JS.API", endpoint.words, *names))
        assert find_endpoint(subject) is None
        assert find_endpoint(subject, is_system=True) == (endpoint, names)
        assert find_endpoint(f"{subject}.more", is_system=True) is None
        assert subject.replace(".one", ".*") in SYSTEM_SUBSCRIBED
    for subject in ("INFO", "STREAM.INFO.S", "CONSUMER.MSG.NEXT.S.C", "DIRECT.GET.S"):
        refused = find_endpoint(f"$JS.API.{subject}", is_system=True)
        assert refused is not None
        assert refused[0] not in SYSTEM_TABLE
