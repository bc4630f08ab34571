"""Order, bounds, audit and trouble of the API handler."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from jsapi_fakes import Rig

from jetstore.errors import ApiError, DiskFull, DiskPoisoned, NotNow
from jetstore.limits import Limits
from jetstore.model.levels import API_LEVEL
from jetstore.store.ports import Message
from server.jsapi.handler import AUDIT_SUBJECT
from server.jsapi.table import PREFIX, SUBSCRIBED, TABLE, find_endpoint


def run(scenario: Callable[[Rig], Awaitable[None]], rig_limits: Limits | None = None) -> None:
    async def main() -> None:
        rig = Rig(rig_limits)
        try:
            await scenario(rig)
        finally:
            await rig.api.close()

    asyncio.run(main())


def body(reply: bytes) -> dict[str, object]:
    decoded = json.loads(reply)
    assert isinstance(decoded, dict)
    return decoded


async def make_stream(rig: Rig, name: str = "A", extra: str = "") -> None:
    reply = body(await rig.ask(f"$JS.API.STREAM.CREATE.{name}", b'{"name":"%b"%b}' % (name.encode(), extra.encode())))
    assert "error" not in reply, reply


def test_requests_of_one_stream_keep_their_order_and_others_pass() -> None:
    async def scenario(rig: Rig) -> None:
        await make_stream(rig, "A")
        await make_stream(rig, "B")
        rig.node.gate = asyncio.Event()
        before = len(rig.outlet.sent)
        rig.outlet.send(("$JS.API.STREAM.PURGE.A", b"r1", b""), ("$JS.API.STREAM.INFO.A", b"r2", b""))
        rig.outlet.send(("$JS.API.STREAM.INFO.B", b"r3", b""))
        await rig.outlet.wait_for(before + 1)
        assert [subject for subject, _, _ in rig.outlet.sent[before:]] == [b"r3"]
        assert rig.node.calls == ["purge A", "info B"]
        rig.node.gate.set()
        await rig.outlet.wait_for(before + 3)
        assert [subject for subject, _, _ in rig.outlet.sent[before:]] == [b"r3", b"r1", b"r2"]

    run(scenario)


def test_requests_above_the_bound_are_dropped() -> None:
    async def scenario(rig: Rig) -> None:
        await make_stream(rig)
        before = len(rig.outlet.sent)
        rig.outlet.send(*(("$JS.API.STREAM.INFO.A", b"r%d" % i, b"") for i in range(5)))
        await rig.outlet.wait_for(before + 2)
        assert rig.api.dropped == 3
        assert json.loads(await rig.ask("$JS.API.STREAM.INFO.A"))["type"].endswith("stream_info_response")

    run(scenario, Limits(api_requests_max=2))


def test_reads_that_wait_behind_each_other_confirm_leadership_once() -> None:
    async def scenario(rig: Rig) -> None:
        await make_stream(rig)
        before = len(rig.outlet.sent)
        reads = [("$JS.API.STREAM.MSG.GET.A", b"r%d" % seq, b'{"seq":%d}' % seq) for seq in (1, 2)]
        rig.node.calls.clear()
        rig.outlet.send(*reads, ("$JS.API.STREAM.INFO.A", b"r3", b""), reads[0], reads[1])
        await rig.outlet.wait_for(before + 5)
        run_of_two = ["confirm A", "get 1 True", "get 2 True"]
        assert rig.node.calls == [*run_of_two, "info A", *run_of_two]
        rig.node.calls.clear()
        await rig.ask(reads[0][0], reads[0][2])
        assert rig.node.calls == ["get 1 False"], "a lone read confirms by itself"
        rig.node.is_sure = False
        rig.node.calls.clear()
        rig.outlet.send(*reads)
        await rig.outlet.wait_for(before + 8)
        assert rig.node.calls == ["confirm A", "get 1 False", "get 2 False"]

    run(scenario)


@pytest.mark.parametrize("subject", ["$JS.API.STREAM.MSG.GET.A", "$JS.API.DIRECT.GET.A"])
def test_a_burst_of_reads_lets_others_in_between(subject: str) -> None:
    """Method: each read takes a millisecond; who only wants its turn now and then gets it all along, in order."""

    async def scenario(rig: Rig) -> None:
        await make_stream(rig, extra=',"allow_direct":true')
        rig.node.streams["A"].messages = [Message(1, 0, b"A", b"", b"x")]
        rig.node.read_s = 0.001
        turns: list[int] = []
        before = len(rig.outlet.sent)

        async def other() -> None:
            while len(rig.outlet.sent) < before + 100:
                turns.append(len(rig.outlet.sent) - before)
                await asyncio.sleep(0)

        rig.outlet.send(*((subject, b"r%d" % i, b'{"seq":1}') for i in range(100)))
        await other()
        assert [reply for reply, _, _ in rig.outlet.sent[before:]] == [b"r%d" % i for i in range(100)]
        assert len(turns) >= 10

    run(scenario)


def test_failure_of_one_request_does_not_stop_the_lane() -> None:
    async def scenario(rig: Rig) -> None:
        await make_stream(rig)
        rig.node.failure = RuntimeError("bug")
        before = len(rig.outlet.sent)
        rig.outlet.send(("$JS.API.STREAM.DELETE.A", b"r1", b""), ("$JS.API.STREAM.INFO.A", b"r2", b""))
        await rig.outlet.wait_for(before + 1)
        assert [subject for subject, _, _ in rig.outlet.sent[before:]] == [b"r2"]

    run(scenario)


@pytest.mark.parametrize(
    ("failure", "err_code"),
    [(NotNow("no leader"), 10008), (DiskFull("full"), 10023), (ApiError(400, 10109, "sealed"), 10109)],
)
def test_refusals_of_the_engine_are_answered(failure: Exception, err_code: int) -> None:
    async def scenario(rig: Rig) -> None:
        await make_stream(rig)
        rig.node.failure = failure
        reply = body(await rig.ask("$JS.API.STREAM.DELETE.A"))
        assert reply["error"]["err_code"] == err_code  # type: ignore[index]
        assert rig.api.errors == 1

    run(scenario)


def test_unknown_outcome_is_not_answered() -> None:
    async def scenario(rig: Rig) -> None:
        await make_stream(rig)
        rig.node.failure = DiskPoisoned("sync failed")
        before = len(rig.outlet.sent)
        rig.outlet.send(("$JS.API.STREAM.DELETE.A", b"r1", b""), ("$JS.API.STREAM.INFO.A", b"r2", b""))
        await rig.outlet.wait_for(before + 1)
        assert rig.outlet.sent[before][0] == b"r2"

    run(scenario)


def test_audit_only_with_interest() -> None:
    async def scenario(rig: Rig) -> None:
        await make_stream(rig)
        assert len(rig.outlet.sent) == 1
        rig.outlet.interest.add(AUDIT_SUBJECT)
        sent = await rig.ask_all("$JS.API.STREAM.INFO.A", b"{}", count=2)
        advisory = json.loads(sent[1][2])
        assert sent[1][0] == AUDIT_SUBJECT
        assert list(advisory) == ["type", "id", "timestamp", "server", "client", "subject", "request", "response"]
        assert advisory["subject"] == "$JS.API.STREAM.INFO.A"
        assert advisory["response"] == sent[0][2].decode()
        # A successful MSG.GET is not audited, a failing one is.
        rig.node.streams["A"].messages.append(Message(1, 5, b"a", b"", b"x"))
        assert b"message" in await rig.ask("$JS.API.STREAM.MSG.GET.A", b'{"seq":1}')
        sent = await rig.ask_all("$JS.API.STREAM.MSG.GET.A", b'{"seq":2}', count=2)
        assert sent[1][0] == AUDIT_SUBJECT

    run(scenario)


def test_required_api_level() -> None:
    async def scenario(rig: Rig) -> None:
        await make_stream(rig, extra=',"allow_direct":true')
        for value in (b"99", b"x", b"1" * 5000):
            header = b"NATS/1.0\r\nNats-Required-Api-Level: %b\r\n\r\n" % value
            assert b'"err_code":10185' in await rig.ask("$JS.API.STREAM.INFO.A", header=header)
            sent = await rig.ask_all("$JS.API.DIRECT.GET.A", b'{"seq":1}', header=header)
            assert sent[0][1] == b"NATS/1.0 412 Required Api Level\r\n\r\n"
        header = b"NATS/1.0\r\nNats-Required-Api-Level: 1\r\n\r\n"
        assert b"error" not in await rig.ask("$JS.API.STREAM.INFO.A", header=header)

    run(scenario)


def test_info_for_a_creating_client_names_the_create_type() -> None:
    async def scenario(rig: Rig) -> None:
        await make_stream(rig)
        header = b"NATS/1.0\r\nNats-Response-Type: create\r\n\r\n"
        assert body(await rig.ask("$JS.API.STREAM.INFO.A", header=header))["type"] == (
            "io.nats.jetstream.api.v1.stream_create_response"
        )

    run(scenario)


def test_subjects_page_of_stream_info() -> None:
    async def scenario(rig: Rig) -> None:
        await make_stream(rig)
        for seq, subject in enumerate((b"b", b"a", b"b"), 1):
            rig.node.streams["A"].messages.append(Message(seq, 5, subject, b"", b"x"))
        shown = body(await rig.ask("$JS.API.STREAM.INFO.A", b'{"subjects_filter":">","offset":1}'))
        assert (shown["total"], shown["offset"], shown["limit"]) == (2, 1, 100000)
        assert shown["state"]["subjects"] == {"b": 2}  # type: ignore[index]

    run(scenario)


def test_close_leaves_waiting_requests_unanswered() -> None:
    async def scenario(rig: Rig) -> None:
        await make_stream(rig)
        rig.node.gate = asyncio.Event()
        before = len(rig.outlet.sent)
        rig.outlet.send(("$JS.API.STREAM.PURGE.A", b"r1", b""), ("$JS.API.STREAM.INFO.A", b"r2", b""))
        await asyncio.sleep(0)
        await rig.api.close()
        assert len(rig.outlet.sent) == before

    run(scenario)


def test_every_endpoint_is_subscribed_to_exactly_once() -> None:
    for endpoint in TABLE:
        names = ["X"] * endpoint.names_min
        subject = PREFIX + ".".join([endpoint.words, *names])
        matching = [
            pattern
            for pattern in SUBSCRIBED
            if subject == pattern or (pattern.endswith(">") and subject.startswith(pattern[:-1]))
        ]
        assert len(matching) == 1, subject
        assert find_endpoint(subject) == (endpoint, tuple(names))


@pytest.mark.parametrize("subject", ["FOO", "STREAM.INFO", "STREAM.INFO.A.B", "STREAM.NAMES.x", "CONSUMER.NAMES", ""])
def test_unknown_subjects_are_nobodys(subject: str) -> None:
    assert find_endpoint(PREFIX + subject) is None


def test_what_counts_as_answered() -> None:
    async def scenario(rig: Rig) -> None:
        await make_stream(rig)
        rig.node.streams["A"].messages = [Message(1, 0, b"a", b"", b"x")]
        steps: list[tuple[str, bytes, tuple[int, int]]] = [
            ("INFO", b"", (1, 0)),
            ("STREAM.MSG.GET.A", b'{"seq":1}', (0, 0)),
            ("STREAM.MSG.GET.A", b"{", (1, 1)),
            ("DIRECT.GET.A", b'{"seq":1}', (0, 0)),
            ("CONSUMER.RESET.A.c", b"{", (0, 0)),
            ("STREAM.NAMES", b"", (1, 0)),
            ("STREAM.INFO.NO", b"", (1, 1)),
        ]
        for words, payload, expected in steps:
            before = rig.api.stats()
            reply = await rig.ask(PREFIX + words, payload)
            if words == "INFO":  # which does not count itself yet
                assert body(reply)["api"] == {"level": API_LEVEL, "total": before.total, "errors": before.errors}
            after = rig.api.stats()
            assert (after.total - before.total, after.errors - before.errors) == expected, words

    run(scenario)
