"""Goal: a running server never passes damage over: it says what it cannot serve, and everything else goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

import pytest
from damaged_store import ACKED, body, current_server, flip, play_over, put, refusal, small_store

from jepsen.sim.client import Client, Msg, NoResponders, Unknown
from jepsen.sim.vfs import SimVfs
from jepsen.sim.world import World
from jetstore.errors import Corruption
from jetstore.types import META_GROUP

STORED, ABOVE = 30, 10
FAULT = STORED + 4
UNAVAILABLE, DAMAGED, NOT_FOUND = 10008, 10051, 10037


@cache
def store(place: str, number: int) -> SimVfs:
    """The small store with one message unreadable wherever it stands below ``place``."""
    vfs = small_store(STORED, ABOVE).clone()
    hits = 0
    for path in vfs.files():
        at = vfs.peek(path).find(body(number)) if path.startswith(place) else -1
        if at >= 0:
            flip(vfs, path, at)
            hits += 1
    assert hits
    return vfs


def tell(vfs: SimVfs, story: Callable[[World, Client], Awaitable[Any]]) -> SimVfs:
    return play_over(vfs, story)[0]


async def direct(client: Client, request: str, subject: str = "$JS.API.DIRECT.GET.S") -> Msg | None:
    """The answer; None for a 503: unavailable."""
    try:
        return await client.request(subject, request.encode())
    except NoResponders:
        return None


async def others_are_unaffected(client: Client, first: int) -> None:
    await put(client, first, first, stream="OTHER")
    assert (await client.api("STREAM.INFO.OTHER"))["state"]["last_seq"] == first
    assert [stream["config"]["name"] for stream in (await client.api("STREAM.LIST"))["streams"]].count("OTHER") == 1


# -- an entry of the journal -------------------------------------------------------------------------------------------


def test_by_sequence_up_to_the_fault() -> None:
    async def story(world: World, client: Client) -> None:
        for number in range(1, FAULT):
            answer = await client.api("STREAM.MSG.GET.S", {"seq": number})
            assert answer["message"]["seq"] == number
            shown = await direct(client, f'{{"seq":{number}}}')
            assert shown is not None
            assert shown.data == body(number)
            assert shown.headers()["Nats-Sequence"] == str(number)
        for number in (FAULT, FAULT + 1, STORED + ABOVE, 1000):
            assert await refusal(client, "STREAM.MSG.GET.S", {"seq": number}) == UNAVAILABLE
            assert await direct(client, f'{{"seq":{number}}}') is None

    tell(store("journal/", FAULT), story)


@pytest.mark.parametrize(
    ("subject", "request_body"),
    [
        ("STREAM.MSG.GET.S", {"last_by_subj": "s.1"}),
        ("STREAM.MSG.GET.S", {"last_by_subj": "s.>"}),
        ("STREAM.MSG.GET.S", {"last_by_subj": "s.never"}),
        ("STREAM.MSG.GET.S", {"next_by_subj": "s.1", "seq": 1}),
        ("STREAM.MSG.GET.S", {"next_by_subj": "s.never", "seq": 1}),
        ("STREAM.INFO.S", {}),
        ("STREAM.INFO.S", {"subjects_filter": ">"}),
        ("STREAM.PURGE.S", {}),
        ("STREAM.MSG.DELETE.S", {"seq": 1}),
        ("STREAM.MSG.DELETE.S", {"seq": 1000}),
        ("STREAM.UPDATE.S", {"name": "S", "subjects": ["s.>", "t.>"], "allow_direct": True}),
        ("CONSUMER.CREATE.S.NEW", {"stream_name": "S", "config": {"durable_name": "NEW"}}),
        ("CONSUMER.CREATE.S.C", {"stream_name": "S", "config": {"durable_name": "C", "ack_policy": "explicit"}}),
        ("CONSUMER.INFO.S.C", {}),
        ("CONSUMER.INFO.S.NONE", {}),
        ("CONSUMER.NAMES.S", {}),
        ("CONSUMER.LIST.S", {}),
        ("CONSUMER.DELETE.S.C", {}),
        ("CONSUMER.DELETE.S.NONE", {}),
        ("CONSUMER.PAUSE.S.C", {"pause_until": "2040-01-01T00:00:00Z"}),
        ("CONSUMER.RESET.S.C", {"seq": 1}),
    ],
)
def test_everything_else_is_unavailable(subject: str, request_body: dict[str, Any]) -> None:
    async def story(world: World, client: Client) -> None:
        assert await refusal(client, subject, request_body) == UNAVAILABLE
        await others_are_unaffected(client, 4)

    tell(store("journal/", FAULT), story)


def test_direct_reads_that_are_not_by_sequence() -> None:
    async def story(world: World, client: Client) -> None:
        for request in (
            '{"last_by_subj":"s.1"}',
            '{"next_by_subj":"s.1","seq":1}',
            '{"seq":1,"batch":5}',
            '{"multi_last":["s.>"]}',
            '{"start_time":"2001-01-01T00:00:00Z"}',
            '{"last_by_subj":"s.never"}',
        ):
            assert await direct(client, request) is None, request
        assert await direct(client, "", "$JS.API.DIRECT.GET.S.s.1") is None

    tell(store("journal/", FAULT), story)


def test_publishes_are_refused_and_stay_refused_over_restarts() -> None:
    async def story(world: World, client: Client) -> None:
        for _ in range(3):
            answer = await client.request("s.1", b"new")
            assert b'"err_code":10008' in answer.data
            await others_are_unaffected(client, (await client.api("STREAM.INFO.OTHER"))["state"]["last_seq"] + 1)
            world.machine.restart(0.1)
            await asyncio.sleep(1)
            client = await world.up()

    tell(store("journal/", FAULT), story)


def test_a_pull_request_is_answered_with_unavailable() -> None:
    async def story(world: World, client: Client) -> None:
        with pytest.raises(NoResponders):
            await client.request("$JS.API.CONSUMER.MSG.NEXT.S.C", b'{"batch":1,"expires":1000000000}')

    tell(store("journal/", FAULT), story)


def test_health_and_listing_name_it() -> None:
    async def story(world: World, client: Client) -> None:
        problem = current_server(world).node.health_problem()
        assert "S" in problem
        assert "unreadable" in problem
        assert (await client.api("STREAM.NAMES"))["streams"] == ["OTHER", "S"]
        listed = await client.api("STREAM.LIST")
        assert [stream["config"]["name"] for stream in listed["streams"]] == ["OTHER"]
        assert listed["missing"] == ["S"]

    tell(store("journal/", FAULT), story)


def test_a_damaged_stream_can_be_deleted_and_made_anew() -> None:
    async def story(world: World, client: Client) -> None:
        await client.api("STREAM.DELETE.S")
        await client.api("STREAM.CREATE.S", {"name": "S", "subjects": ["s.>"]})
        await put(client, 1, 3)
        assert current_server(world).node.health_problem() == ""

    tell(store("journal/", FAULT), story)


# -- a frame of a segment ----------------------------------------------------------------------------------------------

BAD = 8


def test_only_the_damaged_message_is_unreadable_and_it_is_named() -> None:
    async def story(world: World, client: Client) -> None:
        assert current_server(world).node.health_problem() == ""
        for number in range(1, STORED + ABOVE + 1):
            shown = await direct(client, f'{{"seq":{number}}}')
            assert shown is not None
            if number == BAD:
                assert await refusal(client, "STREAM.MSG.GET.S", {"seq": number}) in (UNAVAILABLE, DAMAGED)
                assert shown.status == 500
            else:
                assert (await client.api("STREAM.MSG.GET.S", {"seq": number}))["message"]["seq"] == number
                assert shown.data == body(number)
        assert "S" in current_server(world).node.health_problem()
        await put(client, STORED + ABOVE + 1, STORED + ABOVE + 3)
        await others_are_unaffected(client, 4)

    tell(store("groups/2/segments/", BAD), story)


async def pull(client: Client, count: int) -> list[Msg]:
    """Everything that a pull request gets until it expires."""
    got: list[Msg] = []
    client.subscribe("pulled", lambda message: got.append(message) if message else None)
    client.publish(
        "$JS.API.CONSUMER.MSG.NEXT.S.C", f'{{"batch":{count},"expires":1000000000}}'.encode(), reply="pulled"
    )
    await asyncio.sleep(3)
    return got


def test_deliveries_stand_still_before_it_and_go_on_when_it_is_deleted() -> None:
    async def story(world: World, client: Client) -> None:
        first = [int(message.reply.split(".")[5]) for message in await pull(client, 20) if message.reply]
        assert first == list(range(ACKED + 1, BAD))
        assert "S" in current_server(world).node.health_problem()
        info = await client.api("CONSUMER.INFO.S.C")
        assert info["delivered"]["stream_seq"] == BAD - 1
        assert info["num_pending"] == STORED + ABOVE - BAD + 1
        await client.api("STREAM.MSG.DELETE.S", {"seq": BAD})
        await asyncio.sleep(60)
        then = [int(message.reply.split(".")[5]) for message in await pull(client, 5) if message.reply]
        assert set(then) - set(first) == set(range(BAD + 1, BAD + 1 + len(set(then) - set(first))))
        assert BAD + 1 in then

    tell(store("groups/2/segments/", BAD), story)


def test_one_whole_segment_file_gone() -> None:
    async def story(world: World, client: Client) -> None:
        answers = {number: await direct(client, f'{{"seq":{number}}}') for number in range(1, STORED + ABOVE + 1)}
        damaged_ones = [number for number, shown in answers.items() if shown is not None and shown.status == 500]
        assert damaged_ones == list(range(1, len(damaged_ones) + 1))
        assert ACKED < len(damaged_ones) <= STORED
        assert all(shown is not None and shown.status != 404 for shown in answers.values())
        assert [message for message in await pull(client, 5) if message.reply] == []
        await put(client, STORED + ABOVE + 1, STORED + ABOVE + 2)
        assert "S" in current_server(world).node.health_problem()

    vfs = small_store(STORED, ABOVE)
    vfs.lose(next(path for path in vfs.files() if path.startswith("groups/2/segments/")))
    tell(vfs, story)


@pytest.mark.parametrize("lost", [(), ("groups/1/HEAD.a",), ("groups/1/HEAD.a", "groups/1/HEAD.b")])
def test_without_its_metadata_the_server_does_not_start_and_removes_nothing(lost: tuple[str, ...]) -> None:
    """One copy is enough; with none the server must not found an empty store over the full one."""
    vfs = small_store(STORED, ABOVE)
    for path in lost:
        vfs.lose(path)
    before = {path for path in vfs.files() if path.startswith("groups/")}

    async def story(world: World, client: Client) -> None:
        assert (await client.api("STREAM.NAMES"))["streams"] == ["OTHER", "S"]

    if len(lost) < 2:
        tell(vfs, story)
    else:
        with pytest.raises(AssertionError, match="does not serve"):
            tell(vfs, story)
        assert {path for path in vfs.files() if path.startswith("groups/")} >= before


@pytest.mark.parametrize(
    "config",
    [{"max_age": 600_000_000_000}, {"max_msgs": 41}, {"max_bytes": 8_000}, {"max_msgs_per_subject": 14}],
    ids=["age", "messages", "bytes", "per subject"],
)
def test_a_limit_that_must_remove_what_is_unreadable_stops_only_its_stream(config: dict[str, Any]) -> None:
    """What a limit does depends on what cannot be read: apply stands still, and nobody is told a guess."""

    async def story(world: World, client: Client) -> None:
        outcomes = []
        for number in range(5):
            try:
                outcomes.append((await client.request(f"s.{number % 3}", b"new", timeout_s=1)).data)
            except Unknown:
                outcomes.append(b"no answer")
        assert all(b'"seq":4' in data or b"10008" in data or data == b"no answer" for data in outcomes)
        await asyncio.sleep(1200)
        await others_are_unaffected(client, 4)
        assert "S" in current_server(world).node.health_problem()
        assert world.machine.exits == []

    vfs = small_store(STORED, ABOVE, config=config)
    vfs.lose(next(path for path in vfs.files() if path.startswith("groups/2/segments/")))
    tell(vfs, story)


def test_an_index_that_must_be_rebuilt_from_a_damaged_segment() -> None:
    """Index and segment are damaged together: the stream is unavailable, by name; the others serve."""

    async def story(world: World, client: Client) -> None:
        assert await refusal(client, "STREAM.INFO.S") == UNAVAILABLE
        assert await refusal(client, "STREAM.MSG.GET.S", {"seq": 1}) == UNAVAILABLE
        assert b"10008" in (await client.request("s.1", b"new")).data
        await others_are_unaffected(client, 4)
        assert "S" in current_server(world).node.health_problem()

    vfs = small_store(STORED, ABOVE)
    vfs.lose(next(path for path in vfs.files() if path.startswith("groups/2/segments/")))
    for path in ("index/2", "groups/2/chunks/index-2"):
        vfs.lose(path)
    tell(vfs, story)


def test_streams_without_metadata_are_no_new_store() -> None:
    """Whatever lost it: a metadata group founded anew would bury every stream."""

    async def story(world: World, client: Client) -> None:
        node = current_server(world).node
        recovery = node.parts.recovery
        assert META_GROUP in recovery.groups
        with pytest.raises(Corruption, match="metadata group"):
            node._open_meta(None)

    tell(small_store(STORED, ABOVE), story)
