"""Direct gets: headers, statuses, batches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import pytest
from jsapi_fakes import Rig

from jetstore.store.ports import Message


def run(scenario: Callable[[Rig], Awaitable[None]]) -> None:
    async def main() -> None:
        rig = Rig()
        await rig.ask("$JS.API.STREAM.CREATE.A", b'{"name":"A","subjects":["a.>"],"allow_direct":true}')
        await rig.ask("$JS.API.STREAM.CREATE.P", b'{"name":"P","subjects":["p"]}')
        rig.node.streams["A"].messages += [
            Message(1, 1_700_000_000_000_000_000, b"a.x", b"", b"one"),
            Message(2, 1_700_000_000_500_000_000, b"a.y", b"NATS/1.0\r\nK: v\r\n\r\n", b"two"),
            Message(4, 1_700_000_001_000_000_000, b"a.z", b"", b""),
        ]
        try:
            await scenario(rig)
        finally:
            await rig.api.close()

    asyncio.run(main())


def test_message_with_and_without_headers() -> None:
    async def scenario(rig: Rig) -> None:
        ((subject, header, data),) = await rig.ask_all("$JS.API.DIRECT.GET.A", b'{"seq":1}')
        assert subject == b"inbox"
        assert header == (
            b"NATS/1.0\r\nNats-Stream: A\r\nNats-Subject: a.x\r\nNats-Sequence: 1\r\n"
            b"Nats-Time-Stamp: 2023-11-14T22:13:20Z\r\n\r\n"
        )
        assert data == b"one"
        ((_, header, data),) = await rig.ask_all("$JS.API.DIRECT.GET.A.a.y")
        assert header == (
            b"NATS/1.0\r\nK: v\r\nNats-Stream: A\r\nNats-Subject: a.y\r\nNats-Sequence: 2\r\n"
            b"Nats-Time-Stamp: 2023-11-14T22:13:20.5Z\r\n\r\n"
        )
        ((_, header, data),) = await rig.ask_all("$JS.API.DIRECT.GET.A.a.y", b'{"no_hdr":true}')
        assert (header, data) == (b"", b"two")

    run(scenario)


def test_batch_ends_with_a_status() -> None:
    async def scenario(rig: Rig) -> None:
        sent = await rig.ask_all("$JS.API.DIRECT.GET.A", b'{"seq":1,"batch":2}', count=3)
        tails = [header.rpartition(b"Nats-Time-Stamp")[2].partition(b"\r\n")[2] for _, header, _ in sent[:2]]
        assert tails == [
            b"Nats-Num-Pending: 2\r\nNats-Last-Sequence: 0\r\n\r\n",
            b"Nats-Num-Pending: 1\r\nNats-Last-Sequence: 1\r\n\r\n",
        ]
        assert sent[2][1:] == (b"NATS/1.0 204 EOB\r\nNats-Num-Pending: 1\r\nNats-Last-Sequence: 2\r\n\r\n", b"")
        sent = await rig.ask_all("$JS.API.DIRECT.GET.A", b'{"multi_last":["a.>"],"no_hdr":true}', count=4)
        assert b"Nats-Subject: a.x" in sent[0][1]
        assert sent[3][1].endswith(b"Nats-Last-Sequence: 4\r\nNats-UpTo-Sequence: 9\r\n\r\n")

    run(scenario)


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (b"", b"408 Empty Request"),
        (b"{}", b"408 Empty Request"),
        (b'{"batch":5}', b"408 Empty Request"),
        (b"{x", b"408 Malformed Request"),
        (b'{"seq":1,"last_by_subj":"a"}', b"408 Bad Request"),
        (b'{"seq":1,"start_time":"2024-01-01T00:00:00Z"}', b"408 Bad Request"),
        (b'{"last_by_subj":"a","batch":2}', b"408 Bad Request"),
        (b'{"next_by_subj":"a","multi_last":["a"]}', b"408 Bad Request"),
        (b'{"seq":9}', b"404 Message Not Found"),
        (b'{"seq":9,"batch":2}', b"404 Message Not Found"),
        (b'{"seq":9,"multi_last":["q"]}', b"404 No Results"),
        (b'{"last_by_subj":"none"}', b"404 Message Not Found"),
    ],
)
def test_statuses(asked: bytes, status: bytes) -> None:
    async def scenario(rig: Rig) -> None:
        ((_, header, data),) = await rig.ask_all("$JS.API.DIRECT.GET.A", asked)
        assert header == b"NATS/1.0 " + status + b"\r\n\r\n"
        assert data == b""

    run(scenario)


def test_unknown_fields_are_ignored() -> None:
    async def scenario(rig: Rig) -> None:
        ((_, _, data),) = await rig.ask_all("$JS.API.DIRECT.GET.A", b'{"seq":1,"zzz":2}')
        assert data == b"one"

    run(scenario)


def test_not_direct_readable_answers_as_nobody_would() -> None:
    async def scenario(rig: Rig) -> None:
        for stream in ("P", "Q"):
            ((_, header, _),) = await rig.ask_all(f"$JS.API.DIRECT.GET.{stream}", b'{"seq":1}')
            assert header == b"NATS/1.0 503\r\nNats-Subject: $JS.API.DIRECT.GET.%b\r\n\r\n" % stream.encode()

    run(scenario)


def test_who_does_not_want_to_hear_that_nobody_answers_does_not() -> None:
    async def scenario(rig: Rig) -> None:
        before, deaf = len(rig.outlet.sent), SimpleNamespace(no_responders=False)
        rig.outlet.send(("$JS.API.DIRECT.GET.P", b"r1", b'{"seq":1}'), client=deaf)
        rig.outlet.send(("$JS.API.DIRECT.GET.A", b"r2", b'{"seq":1}'), client=deaf)
        await rig.outlet.wait_for(before + 1)
        assert [subject for subject, _, _ in rig.outlet.sent[before:]] == [b"r2"]

    run(scenario)


def test_a_burst_is_answered_in_order() -> None:
    async def scenario(rig: Rig) -> None:
        before = len(rig.outlet.sent)
        rig.outlet.send(*(("$JS.API.DIRECT.GET.A", b"r%d" % i, b'{"seq":%d}' % (1 + i % 2)) for i in range(600)))
        await rig.outlet.wait_for(before + 600)
        sent = rig.outlet.sent[before:]
        assert [subject for subject, _, _ in sent] == [b"r%d" % i for i in range(600)]
        assert [data for _, _, data in sent[:4]] == [b"one", b"two", b"one", b"two"]

    run(scenario)
