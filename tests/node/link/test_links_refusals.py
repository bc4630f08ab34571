"""Goal: whoever must not be talked to gets a definite reason, ends its own connection at most, costs little memory."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from link_world import SMALL, LinkNode, is_meshed, mesh, note, notes, play, stop, until, wires
from structlog.testing import capture_logs

from jepsen.sim.loop import SimLoop
from jetstore.node.link.frames import FrameReader, Kind, frame
from jetstore.node.link.hello import FOREIGN_REASON, Hello, Purpose, decode_refusal, encode_hello
from jetstore.node.link.ports import Route


class Stranger(asyncio.Protocol):
    """Somebody who connects and says what the test wants."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.is_lost = False
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.got += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True

    def say(self, kind: Kind, number: int, body: bytes) -> None:
        self.transport.writelines(frame(kind, number, [body]))

    def heard(self) -> list[tuple[Kind, bytes]]:
        reader = FrameReader(body_bytes_max=1 << 20, resting_bytes=len(self.got) + 20)
        reader.get_buffer()[: len(self.got)] = self.got
        reader.updated(len(self.got))
        return [(kind, bytes(body)) for kind, body in reader.frames()]


async def stranger(loop: asyncio.AbstractEventLoop, node: LinkNode) -> Stranger:
    _, protocol = await loop.create_connection(Stranger, "127.0.0.1", node.port)
    await until(lambda: protocol.transport is not None)
    return protocol


def hello_of(node: LinkNode, **changes: Any) -> bytes:
    hello: Hello = replace(node.links.my_hello(Purpose.RAFT, None), node_id="99" * 8, node_name="n99", **changes)
    return encode_hello(hello)


async def never_up(node: LinkNode, seconds: float = 5) -> None:
    await asyncio.sleep(seconds)  # virtual
    assert node.links.connected() == []


def refused(entries: list[Any], text: str) -> bool:
    return any(text in str(entry.get("reason", "")) for entry in entries)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"cluster_name": "D"}, 'cluster name "D" does not match "C"'),
        ({"cluster_id": "two"}, "cluster id two does not match one"),
        ({"node_name": "n1"}, 'Remote server has a duplicate name: "n1"'),
        ({"node_id": "0" * 15 + "1"}, "one disk is a copy of the other"),
    ],
)
def test_refusals_are_told_on_both_sides_and_tried_again(other: dict[str, Any], reason: str) -> None:
    async def story(loop: SimLoop) -> None:
        with capture_logs() as entries:
            a = LinkNode(loop, 1, cluster_id="one")
            b = LinkNode(loop, 2, **other)
            await a.start()
            await b.start()
            b.dial(a)
            await never_up(b)
            assert a.links.connected() == []
        assert refused([e for e in entries if e["event"] == "connection refused"], reason)
        assert refused([e for e in entries if e["event"] == "cannot connect to a route"], reason)
        assert sum(a.links.status().refused.values()) >= 3
        await stop(a, b)

    play(story)


def test_credentials_are_those_of_the_route_and_only_the_acceptor_asks() -> None:
    async def story(loop: SimLoop) -> None:
        a = LinkNode(loop, 1, authorize=lambda user, password: (user, password) == ("route", "secret"))
        b = LinkNode(loop, 2)
        await a.start()
        b.links.add_route(Route("127.0.0.1", a.port, "route", "wrong"))
        with capture_logs() as entries:
            await never_up(b)
        assert refused(entries, "Authorization Violation")
        assert a.links.status().refused["authorization"] >= 3
        await stop(b)
        c = LinkNode(loop, 3)
        c.links.add_route(Route("127.0.0.1", a.port, "route", "secret"))
        await until(lambda: is_meshed(a, c))
        for hello in (*a.heard.hellos.values(), *c.heard.hellos.values()):
            assert (hello.user, hello.password) == ("", "")
        await stop(a, c)

    play(story)


def test_an_acceptor_says_nothing_of_itself_to_the_unauthorized() -> None:
    async def story(loop: SimLoop) -> None:
        a = LinkNode(loop, 1, authorize=lambda user, password: False)
        await a.start()
        who = await stranger(loop, a)
        who.say(Kind.HELLO, 0, hello_of(a))
        await until(lambda: who.is_lost)
        assert [kind for kind, _ in who.heard()] == [Kind.REFUSED]
        await stop(a)

    play(story)


def test_a_route_to_itself_is_left_alone() -> None:
    async def story(loop: SimLoop) -> None:
        a, b = LinkNode(loop, 1), LinkNode(loop, 2)
        for node in (a, b):
            await node.start()
        with capture_logs() as entries:
            a.dial(a, b)
            await until(lambda: is_meshed(a, b))
            await asyncio.sleep(30)
        assert [e["event"] for e in entries if e["log_level"] != "info"] == []
        assert a.links.status().refused == {}
        await stop(a, b)

    play(story)


@pytest.mark.parametrize(
    "first",
    [
        b'INFO {"server_id":"NABC","version":"2.15.1"}\r\n',
        b'CONNECT {"echo":true,"name":"n2"}\r\nPING\r\n',
    ],
)
def test_go_routes_are_refused_with_a_clear_error(first: bytes) -> None:
    async def story(loop: SimLoop) -> None:
        a = LinkNode(loop, 1)
        await a.start()
        with capture_logs() as entries:
            who = await stranger(loop, a)
            who.transport.write(first)
            await until(lambda: who.is_lost)
        assert bytes(who.got) == f"-ERR '{FOREIGN_REASON}'\r\n".encode()
        assert [entry["reason"] for entry in entries if entry["log_level"] == "warning"] == [FOREIGN_REASON]
        assert a.links.status().refused == {"foreign": 1}
        await stop(a)

    play(story)


def test_who_does_not_finish_its_hello_is_closed_and_their_number_is_bounded() -> None:
    async def story(loop: SimLoop) -> None:
        a = LinkNode(loop, 1, limits=replace(SMALL, link_inbound_max=4))
        await a.start()
        half = frame(Kind.HELLO, 0, [hello_of(a)])[0]
        strangers = [await stranger(loop, a) for _ in range(4)]
        for who in strangers:
            who.transport.write(half)
        await until(lambda: a.links.status().inbound_waiting == 4)
        too_many = await stranger(loop, a)
        await until(lambda: too_many.is_lost)
        began = loop.time()
        await until(lambda: all(who.is_lost for who in strangers))
        assert loop.time() - began <= SMALL.link_hello_timeout_s + 0.1
        assert a.links.status().inbound_waiting == 0
        await stop(a)

    play(story)


@pytest.mark.parametrize("stage", ["nothing", "hello", "up"])
@pytest.mark.parametrize("seed", range(6))
def test_noise_ends_its_own_connection_only(seed: int, stage: str) -> None:
    """At any stage: noise, or well-framed nonsense of any kind. Others go on, nothing is delivered from it."""

    async def story(loop: SimLoop) -> None:
        a, b = await mesh(loop, 2)
        rng = Random(seed)
        for _ in range(25):
            who = await stranger(loop, a)
            number = 0
            if stage != "nothing":
                who.say(Kind.HELLO, 0, hello_of(a))
                number = 1
            if stage == "up":
                who.say(Kind.READY, 1, (99).to_bytes(8, "little"))
                await until(lambda: "99" * 8 in a.links.connected())
                number = 2
            if rng.random() < 0.3:
                who.transport.write(rng.randbytes(rng.randint(20, 300)))
            else:
                kind = rng.choice([kind for kind in Kind if kind not in (Kind.PING, Kind.GOODBYE)])
                who.say(kind, number, rng.randbytes(rng.choice((0, 3, 5, 8, 9, 30, 5000))))
            await until(lambda who=who: who.is_lost)
        a.send(b, note(1))
        await until(lambda: notes(b.heard.messages(a.id)) == [1])
        assert (a.heard.messages("99" * 8), b.heard.downs) == ([], [])
        assert {node for node, _ in a.heard.downs} <= {"99" * 8}
        assert a.links.status().bad_frames > 0
        await stop(a, b)

    play(story, seed)


@pytest.mark.parametrize("purpose", Purpose)
def test_a_damaged_frame_ends_the_connection_with_a_warning_that_names_it(purpose: Purpose) -> None:
    async def story(loop: SimLoop) -> None:
        a, b = await mesh(loop, 2)
        with capture_logs() as entries:
            link = a.links.peers[b.id].current[purpose]
            assert link.transport is not None
            damaged = bytearray(b"".join(map(bytes, frame(Kind.PING, link.out_frames, [b"12345678"]))))
            damaged[-1] ^= 1
            link.transport.write(bytes(damaged))
            await until(lambda: b.links.status().bad_frames == 1)
            await until(lambda: is_meshed(a, b) and link is not a.links.peers[b.id].current[purpose])
        warnings = [entry for entry in entries if entry["log_level"] == "warning"]
        assert [(w["event"], w["what"], w["node"]) for w in warnings] == [
            ("bad frame: connection closed", "checksum of a frame (PING, 8 bytes)", "n1")
        ]
        await stop(a, b)

    play(story)


def test_a_route_that_is_no_host_does_not_end_the_dialling() -> None:
    async def story(loop: SimLoop) -> None:
        a, b = LinkNode(loop, 1), LinkNode(loop, 2)
        tries = 0
        connect = loop.create_connection

        async def fails(factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
            nonlocal tries
            tries += 1
            if tries < 4:
                raise UnicodeError("label empty or too long")
            return await connect(factory, host, port, **options)

        loop.create_connection = fails  # type: ignore[assignment, method-assign]
        await b.start()
        a.dial(b)
        await until(lambda: is_meshed(a, b))
        await stop(a, b)

    play(story)


def test_a_hello_is_small() -> None:
    async def story(loop: SimLoop) -> None:
        a = LinkNode(loop, 1)
        await a.start()
        who = await stranger(loop, a)
        who.say(Kind.HELLO, 0, bytes(SMALL.link_hello_bytes + 1))
        await until(lambda: who.is_lost)
        assert a.links.status().bad_frames == 1
        await stop(a)

    play(story)


def test_names_that_do_not_fit_a_hello_are_refused_at_start() -> None:
    async def story(loop: SimLoop) -> None:
        for changes in ({"cluster_name": "C" * 5000}, {"routes": [Route("h", 1, "u", "p" * 5000)]}):
            with pytest.raises(ValueError, match="fit a hello"):
                await LinkNode(loop, 1, **changes).start()  # type: ignore[arg-type]

    play(story)


def test_an_unknown_version_is_told() -> None:
    async def story(loop: SimLoop) -> None:
        a = LinkNode(loop, 1)
        await a.start()
        who = await stranger(loop, a)
        body = bytearray(hello_of(a))
        body[8] = 77
        who.say(Kind.HELLO, 0, bytes(body))
        await until(lambda: who.is_lost)
        ((kind, told),) = who.heard()
        assert kind is Kind.REFUSED
        assert decode_refusal(told).text == "link protocol version 77 is unknown, this node speaks 1"
        await stop(a)

    play(story)


# -- old and cloned disks ----------------------------------------------------------------------------------------


def test_a_clone_of_an_older_boot_is_not_counted() -> None:
    async def story(loop: SimLoop) -> None:
        a = LinkNode(loop, 1)
        b = LinkNode(loop, 2, boot_counter=5, boot_nonce="aa" * 8, lsn=100)
        await a.start()
        b.dial(a)
        await b.start()
        await until(lambda: is_meshed(a, b))
        clone = LinkNode(loop, 2, boot_counter=4, boot_nonce="bb" * 8, lsn=200)
        clone.dial(a)
        await until(lambda: a.heard.alarms)
        await asyncio.sleep(3)
        assert "boot 4, but boot 5 was seen before" in a.heard.alarms[0][1]
        assert clone.links.connected() == []
        assert (a.heard.downs, a.links.status().peers[0].alarm != "") == ([], True)
        await stop(a, b, clone)

    play(story)


@pytest.mark.parametrize(
    "again",
    [
        {"boot_counter": 5, "boot_nonce": "bb" * 8, "lsn": 200},
        {"boot_counter": 6, "boot_nonce": "bb" * 8, "lsn": 99},
        {"boot_counter": 4, "boot_nonce": "bb" * 8, "lsn": 200},
    ],
)
def test_a_node_that_comes_back_with_an_older_disk_is_not_counted(again: dict[str, Any]) -> None:
    async def story(loop: SimLoop) -> None:
        a = LinkNode(loop, 1)
        b = LinkNode(loop, 2, boot_counter=5, boot_nonce="aa" * 8, lsn=50)
        await a.start()
        b.dial(a)
        await until(lambda: is_meshed(a, b))
        b.lsn = 100
        b.send(a, note(1))  # every frame brings the journal's end
        await until(lambda: a.heard.batches)
        await stop(b)
        await until(lambda: a.heard.downs)
        back = LinkNode(loop, 2, **again)
        back.dial(a)
        await until(lambda: a.heard.alarms)
        await asyncio.sleep(3)
        assert a.links.connected() == []
        await stop(back)
        rejoined = LinkNode(loop, 2, incarnation=2, boot_counter=1, boot_nonce="cc" * 8, lsn=0)
        rejoined.dial(a)
        await until(lambda: a.links.is_up(rejoined.id))
        assert a.links.status().peers[0].alarm == ""
        await stop(a, rejoined)

    play(story)


def test_who_was_told_that_its_disk_is_old_talks_to_nobody_else() -> None:
    async def story(loop: SimLoop) -> None:
        a, away = LinkNode(loop, 1), LinkNode(loop, 3)
        b = LinkNode(loop, 2, boot_counter=5, boot_nonce="aa" * 8, lsn=100)
        for node in (a, away):
            await node.start()
        b.dial(a)
        await until(lambda: is_meshed(a, b))
        await stop(b)
        await until(lambda: a.heard.downs)
        back = LinkNode(loop, 2, boot_counter=6, boot_nonce="bb" * 8, lsn=50)
        await back.start()
        back.dial(away)  # it has never seen the newer disk
        await until(lambda: is_meshed(back, away))
        back.dial(a)
        await until(lambda: a.heard.alarms and away.heard.downs)
        away.dial(back)
        await never_up(away)
        assert "block 100 was durable before" in back.links.disowned
        assert back.heard.disowned == [back.links.disowned]
        assert a.heard.disowned == []
        assert (a.links.disowned, away.links.disowned) == ("", "")
        await stop(a, away, back)

    play(story)


def test_a_later_life_takes_the_place_of_the_earlier_one() -> None:
    async def story(loop: SimLoop) -> None:
        a = LinkNode(loop, 1)
        b = LinkNode(loop, 2, boot_counter=5, boot_nonce="aa" * 8)
        await a.start()
        b.dial(a)
        await until(lambda: is_meshed(a, b))
        end = wires(loop, a, b)
        end.is_cut = end.peer.is_cut = True  # a does not hear of its death
        later = LinkNode(loop, 2, boot_counter=6, boot_nonce="bb" * 8)
        later.dial(a)
        await until(lambda: a.heard.events == [f"up {b.id}", f"down {b.id}", f"up {b.id}"])
        assert a.heard.hellos[b.id].boot_counter == 6
        assert a.heard.alarms == []
        await until(lambda: is_meshed(a, later))
        await asyncio.sleep(3)  # the earlier one, alive after all, is the old one now
        assert a.heard.hellos[b.id].boot_counter == 6
        await until(lambda: a.heard.alarms)
        await stop(a, b, later)

    play(story)
