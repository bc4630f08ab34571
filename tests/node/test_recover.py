"""Goal: ``recover`` gets a store out of every damage it says it mends: the server starts again, serves what is
readable, gives no sequence twice, and consumers go on where they were; a second run finds nothing to do.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from damaged_store import ACKED, LIMITS, body, current_server, fingerprint, flip, play_over, put, small_store, take

from jepsen.sim.client import Client
from jepsen.sim.faults import SimCrash
from jepsen.sim.vfs import SimVfs
from jepsen.sim.world import World
from jepsen.workload.base import get
from jetstore.errors import JetstoreError
from jetstore.model.server_limits import ServerLimits
from jetstore.model.stream import StreamConfig
from jetstore.node.examine import examine, verify
from jetstore.node.recover import Recovered, recover
from jetstore.node.streams_api import StreamsApi

STORED, ABOVE = 30, 10
ALL = STORED + ABOVE


@cache
def whole() -> SimVfs:
    return small_store(STORED, ABOVE)


def damaged() -> SimVfs:
    return whole().clone()


def find(vfs: SimVfs, needle: bytes, prefix: str) -> list[tuple[str, int]]:
    """Every place of these bytes below a path."""
    places = []
    for path in vfs.files():
        data = vfs.peek(path) if path.startswith(prefix) else b""
        at = data.find(needle)
        while at >= 0:
            places.append((path, at))
            at = data.find(needle, at + 1)
    return places


def spoil(vfs: SimVfs, number: int, prefix: str) -> None:
    """Damage every copy of a message below a path."""
    places = find(vfs, body(number), prefix)
    assert places
    for path, at in places:
        flip(vfs, path, at)


def run_recover(vfs: SimVfs) -> tuple[list[Recovered], list[str], dict[str, list[Any]]]:
    exported: dict[str, list[Any]] = {}

    def export(name: str, lines: Iterator[bytes]) -> int:
        exported[name] = [json.loads(line) for line in lines]
        return len(exported[name])

    done, remaining = recover(vfs, LIMITS, export)
    return done, remaining, exported


def is_sound(vfs: SimVfs) -> bool:
    report, files = examine(vfs, LIMITS)
    verify(vfs, LIMITS, report)
    files.close()
    return report.is_sound


def goes_on(vfs: SimVfs, *, readable: set[int], above: int, keeps_consumer: bool = True) -> SimVfs:
    """A server over the mended store serves exactly these of the old messages; new ones get sequences > ``above``."""

    async def story(world: World, client: Client) -> None:
        for number in range(1, ALL + 1):
            found = await get(client, "S", {"seq": number})
            assert (found is not None) == (number in readable), number
            assert found is None or found.data == body(number)
        state = (await client.api("STREAM.INFO.S"))["state"]
        assert state["messages"] == len(readable)
        assert state["last_seq"] >= above
        first = int((await client.request("s.1", b"new")).json()["seq"])
        assert first == state["last_seq"] + 1 > above
        if keeps_consumer:
            wanted = [number for number in sorted(readable) if number > ACKED] + [first]
            assert await take(client, len(wanted)) == wanted
        for number in range(1, 4):
            assert (await get(client, "OTHER", {"seq": number})) is not None
        await put(client, 4, 4, stream="OTHER")

    vfs, _ = play_over(vfs, story)
    assert is_sound(vfs)
    return vfs


def mends(vfs: SimVfs, names: list[str]) -> tuple[list[Recovered], dict[str, list[Any]]]:
    """Recover mends exactly these, completely; a second run changes nothing."""
    assert not is_sound(vfs)
    done, remaining, exported = run_recover(vfs)
    assert remaining == []
    assert [group.name for group in done] == names
    assert is_sound(vfs)
    before = fingerprint(vfs)
    assert run_recover(vfs)[:2] == ([], [])
    assert fingerprint(vfs) == before
    return done, exported


def test_a_sound_store_is_left_alone() -> None:
    vfs = damaged()
    before = fingerprint(vfs)
    assert run_recover(vfs) == ([], [], {})
    assert fingerprint(vfs) == before


@pytest.mark.parametrize("fault", [STORED + 1, STORED + 4, ALL - 1, ALL])
def test_an_unreadable_entry_in_the_journal(fault: int) -> None:
    vfs = damaged()
    spoil(vfs, fault, "journal/")
    [stream], exported = mends(vfs, ["S"])
    assert (stream.first_lost_seq, stream.last_lost_seq) == (fault, ALL)
    assert stream.lost_messages_max == 1
    numbers = [int(base64.b64decode(line["data"]).rstrip(b".")) for line in exported["S"]]
    assert numbers == list(range(fault + 1, ALL + 1))
    goes_on(vfs, readable=set(range(1, fault)), above=ALL)


def test_the_gap_survives_a_power_cut_right_after_recover_and_many_starts() -> None:
    vfs = damaged()
    spoil(vfs, STORED + 3, "journal/")
    mends(vfs, ["S"])
    vfs.crash()
    readable = set(range(1, STORED + 3))
    vfs = goes_on(vfs, readable=readable, above=ALL)

    async def again(world: World, client: Client) -> int:
        return int((await client.request("s.2", b"more")).json()["seq"])

    seqs = []
    for _ in range(4):
        vfs, seq = play_over(vfs, again)
        seqs.append(seq)
    assert seqs == list(range(ALL + 2, ALL + 6))


@pytest.mark.parametrize("boundary", range(0, 60, 5))
def test_recover_killed_anywhere_can_be_run_again(boundary: int) -> None:
    vfs = damaged()
    spoil(vfs, STORED + 3, "journal/")
    vfs.crash_at(vfs.boundaries + 1 + boundary)
    try:
        run_recover(vfs)
    except (SimCrash, JetstoreError):
        vfs.crash()
    vfs.crash_at(0)
    _, remaining, _ = run_recover(vfs)
    assert remaining == []
    assert is_sound(vfs)
    goes_on(vfs, readable=set(range(1, STORED + 3)), above=ALL)


def test_a_damaged_segment_frame() -> None:
    vfs = damaged()
    spoil(vfs, 8, "groups/2/segments/")
    [stream], _ = mends(vfs, ["S"])
    assert stream.lost == [(8, 8)]
    assert stream.first_lost_seq > stream.last_lost_seq
    goes_on(vfs, readable=set(range(1, ALL + 1)) - {8}, above=ALL)


def test_a_whole_segment_gone() -> None:
    vfs = damaged()
    path = next(path for path in vfs.files() if path.startswith("groups/2/segments/"))
    vfs.lose(path)
    [stream], _ = mends(vfs, ["S"])
    [(first, last)] = stream.lost
    assert first == 1
    goes_on(vfs, readable=set(range(last + 1, ALL + 1)), above=ALL)


def test_every_kind_of_damage_to_a_segment_file_is_mended() -> None:
    path = next(path for path in whole().files() if path.startswith("groups/2/segments/"))
    size = len(whole().peek(path))
    for offset in range(3, size, size // 25):
        vfs = damaged()
        flip(vfs, path, offset)
        done, _ = mends(vfs, ["S"])
        lost = {seq for first, last in done[0].lost for seq in range(first, last + 1)}
        assert len(lost) <= 2
        if offset % 4 == 0:
            goes_on(vfs, readable=set(range(1, ALL + 1)) - lost, above=ALL)


@pytest.mark.parametrize("name", ["HEAD.a", "HEAD.b"])
def test_one_copy_of_a_head(name: str) -> None:
    vfs = damaged()
    flip(vfs, f"groups/2/{name}", 100)
    [stream], _ = mends(vfs, ["S"])
    assert stream.first_lost_seq > stream.last_lost_seq
    goes_on(vfs, readable=set(range(1, ALL + 1)), above=ALL)


def test_both_copies_of_a_head() -> None:
    vfs = damaged()
    flip(vfs, "groups/2/HEAD.a", 100)
    vfs.lose("groups/2/HEAD.b")
    [stream], exported = mends(vfs, ["S"])
    assert stream.lost_messages_max == -1
    assert any("consumers are lost" in note for note in stream.notes)
    assert len(exported["S"]) == ABOVE
    there = {n for n in range(1, ALL + 1) if find(whole(), body(n), "groups/2/segments/")}
    assert there >= set(range(1, STORED + 1))
    goes_on(vfs, readable=there, above=ALL, keeps_consumer=False)


def test_heads_and_segments_gone() -> None:
    vfs = damaged()
    for path in vfs.files():
        if path.startswith("groups/2/"):
            vfs.lose(path)
    mends(vfs, ["S"])
    goes_on(vfs, readable=set(), above=ALL, keeps_consumer=False)


@pytest.mark.parametrize("copies", [1, 2])
def test_the_metadata_head(copies: int) -> None:
    vfs = damaged()
    for name in ("HEAD.a", "HEAD.b")[:copies]:
        vfs.lose(f"groups/1/{name}")
    mends(vfs, ["_meta_"])
    goes_on(vfs, readable=set(range(1, ALL + 1)), above=ALL)


def of_an_account(vfs: SimVfs) -> SimVfs:
    """Over a store: account A makes a stream, deletes it and makes it again; only the journal knows."""

    async def story(world: World, client: Client) -> None:
        api = StreamsApi(current_server(world).node, ServerLimits(), account="A")
        await api.create_stream(StreamConfig(name="T", subjects=("t",)))
        await api.delete_stream("T")
        await api.create_stream(StreamConfig(name="T", subjects=("t",), description="the second"))
        await asyncio.sleep(1)  # the idle block: second evidence of everything

    return play_over(vfs, story)[0]


def streams_of(vfs: SimVfs) -> dict[str, str]:
    report, files = examine(vfs, LIMITS)
    files.close()
    assert report.meta is not None
    return {key: str(each.config.get("description", "")) for key, each in report.meta.streams.items()}


def test_a_stream_found_by_its_group_is_its_accounts_if_anything_readable_says_so() -> None:
    vfs = of_an_account(whole())
    assert streams_of(vfs) == {"S": "", "OTHER": "", "A > T": "the second"}
    for path, at in find(vfs, b'"op":"delete"', "journal/"):
        flip(vfs, path, at)
    done, remaining, _ = run_recover(vfs)
    assert remaining == []
    assert streams_of(vfs) == {"S": "", "OTHER": "", "A > T": "the second"}
    notes = next(each.notes for each in done if each.name == "_meta_")
    assert any("A > T was found by its own group" in note for note in notes), notes
    assert not any("account" in note for note in notes), notes


def test_where_nothing_says_whose_it_is_that_is_said() -> None:
    vfs = of_an_account(whole())
    for name in ("HEAD.a", "HEAD.b"):
        vfs.lose(f"groups/1/{name}")
    for path, at in find(vfs, b'"op":', "journal/"):
        flip(vfs, path, at)
    done, remaining, _ = run_recover(vfs)
    assert remaining == []
    assert streams_of(vfs) == {"S": "", "OTHER": "", "T": "the second"}
    notes = next(each.notes for each in done if each.name == "_meta_")
    said = [note for note in notes if "nothing readable says which account it belongs to" in note]
    assert [note.partition(":")[0] for note in said] == ["S", "OTHER", "T"]
    assert all("$G" in note for note in said)


def test_a_journal_file_gone() -> None:
    """Which file matters decides what is lost: nothing may be given twice, whatever it is."""
    for path in [path for path in whole().files() if path.startswith("journal/")]:
        vfs = damaged()
        vfs.lose(path)
        if is_sound(vfs):
            continue
        _, remaining, _ = run_recover(vfs)
        if remaining:
            continue
        assert is_sound(vfs), path

        async def story(world: World, client: Client) -> int:
            return int((await client.request("s.1", b"new")).json()["seq"])

        _, seq = play_over(vfs, story)
        assert seq > ALL


def test_what_cannot_be_mended_is_said() -> None:
    vfs = damaged()
    for path in vfs.files():
        if path.startswith("journal/"):
            vfs.lose(path)
    before = fingerprint(vfs)
    done, remaining, _ = run_recover(vfs)
    assert done == []
    assert "nothing can be mended" in remaining[-1]
    assert fingerprint(vfs) == before
