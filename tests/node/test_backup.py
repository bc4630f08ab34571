"""Goal: what comes out of a restore is what went into the snapshot; what cannot be restored leaves nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from backup_world import fill, joined, restore, seen, snapshot
from damaged_store import LIMITS, current_server, play_over

from jepsen.sim.client import ApiFailure, Client, NoResponders
from jepsen.sim.vfs import SimVfs
from jepsen.sim.world import World
from jetstore.node.backup import archive, s2
from jetstore.store.ports import Message


@pytest.fixture(scope="module")
def made() -> tuple[SimVfs, dict[str, Any], bytes]:
    """A store with the stream, what is seen of it, and its archive."""

    async def story(world: World, client: Client) -> tuple[dict[str, Any], bytes]:
        await fill(client)
        before = await seen(client)
        answer, chunks = await snapshot(client, chunk_size=1024)
        assert answer["config"] == without_dynamic(before["config"])
        assert answer["state"] == {key: value for key, value in before["state"].items() if key != "deleted"}
        assert [len(chunk.data) for chunk in chunks[:-2]] == [1024] * (len(chunks) - 2)
        assert all(chunk.reply.startswith("$JS.SNAPSHOT.ACK.S.") for chunk in chunks[:-2])
        assert [chunk.reply for chunk in chunks[-2:]] == ["", ""]
        assert chunks[-1].status == 204
        return before, joined(chunks)

    vfs, (before, data) = play_over(None, story)
    return vfs, before, data


def without_dynamic(config: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in config["metadata"].items() if key not in ("_nats.ver", "_nats.level")}
    return config | {"metadata": kept}


def test_a_restored_stream_is_the_same(made: tuple[SimVfs, dict[str, Any], bytes]) -> None:
    _, before, data = made

    async def story(world: World, client: Client) -> None:
        answer = await restore(client, data, without_dynamic(before["config"]))
        after = await seen(client)
        assert answer["state"] == {key: value for key, value in before["state"].items() if key != "deleted"}
        assert "did_create" not in answer
        assert after == before
        again = await client.request("s.1", b"again", headers={"Nats-Msg-Id": "42"})
        assert again.json() == {"stream": "S", "seq": 42, "duplicate": True}, "message ids are known again"
        assert (await client.request("s.1", b"new")).json()["seq"] == 43
        await restarted(world)

    async def restarted(world: World) -> None:
        world.machine.kill(0.0)
        client = await world.up()
        assert (await seen(client))["messages"][:42] == before["messages"]
        await asyncio.sleep(700)  # one message lives for ten minutes, one for ever
        after = (await seen(client))["messages"]
        assert "missing" in after[40]
        assert after[41] == before["messages"][41]

    play_over(None, story)


def test_without_consumers(made: tuple[SimVfs, dict[str, Any], bytes]) -> None:
    vfs, before, _ = made

    async def take(world: World, client: Client) -> bytes:
        return joined((await snapshot(client, no_consumers=True))[1])

    async def story(world: World, client: Client) -> None:
        await restore(client, data, without_dynamic(before["config"]))
        after = await seen(client)
        assert after["consumers"] == []
        assert after["messages"] == before["messages"]

    _, data = play_over(vfs, take)
    play_over(None, story)


def test_restored_consumers_go_on_where_they_were(made: tuple[SimVfs, dict[str, Any], bytes]) -> None:
    """What is pending comes again, as often counted as it was delivered; what was never delivered comes next."""
    vfs, before, data = made

    async def deliveries(world: World, client: Client) -> list[tuple[str, str]]:
        got: list[tuple[str, str]] = []

        def on_message(message: Any) -> None:
            if message is not None and message.reply:
                _, _, _, name, count, seq, *_ = message.reply.split(".")
                got.append((f"{name} {seq} attempt {count}", message.data.decode()))

        await asyncio.sleep(60)  # what is pending is due
        client.subscribe("pull", on_message)
        for consumer in ("C", "F"):
            request = b'{"batch":10,"expires":5000000000}'
            client.publish(f"$JS.API.CONSUMER.MSG.NEXT.S.{consumer}", request, reply="pull")
        await asyncio.sleep(10)
        return got

    async def story(world: World, client: Client) -> list[tuple[str, str]]:
        await restore(client, data, without_dynamic(before["config"]))
        return await deliveries(world, client)

    _, expected = play_over(vfs, deliveries)
    _, found = play_over(None, story)
    assert found == expected
    assert {each.rpartition(" ")[2] for each, _ in found} >= {"1", "2"}


# -- what fails -----------------------------------------------------------------------------------------------------


def broken(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def packed(*entries: bytes) -> bytes:
    return s2.MAGIC + s2.plain_chunks(archive.MAGIC + b"".join(entries))


STATE = archive.encode_entry(b"state.json", 1, b'{"first_seq":1,"last_seq":3,"consumer_count":0}')
ONE = archive.encode_messages([Message(1, 1, b"s.1", b"", b"x")])
BAD = {
    "nothing": (b"", "EOF"),
    "garbage": (b"garbage" * 100, "s2: corrupt input"),
    "no archive": (s2.MAGIC + s2.plain_chunks(b"a tar of an older server" * 30), "2.15 or later"),
    "no state": (packed(ONE), "expected state.json first"),
    "bad state": (packed(archive.encode_entry(b"state.json", 1, b"[]")), "error in state.json"),
    "no end": (packed(STATE, ONE), "backup was truncated"),
    "cut off": (packed(STATE, ONE, archive.END)[:-1], "backup was truncated"),
    "more behind": (packed(STATE, ONE, archive.END, ONE), "more entries after the end"),
    "twice": (packed(STATE, ONE, ONE, archive.END), "message sequence 1 out of order"),
    "no sequence": (packed(STATE, archive.encode_entry(b"s.1", 1, b"x")), "expected message sequence"),
    "subject": (packed(STATE, ONE.replace(b"s.1", b"s.>"), archive.END), "no valid subject"),
    "header": (
        packed(STATE, archive.encode_messages([Message(1, 1, b"s.1", b"X: y\r\n\r\n", b"")])),
        "no valid header",
    ),
    "too large": (
        packed(STATE, archive.encode_messages([Message(1, 1, b"s.1", b"", bytes(LIMITS.max_payload_bytes + 1))])),
        "exceeds maximum payload size",
    ),
    "no consumer": (
        packed(archive.encode_entry(b"state.json", 1, b'{"consumer_count":1}'), ONE),
        'expected consumer, found "s.1"',
    ),
    "bad consumer": (
        packed(
            archive.encode_entry(b"state.json", 1, b'{"consumer_count":1}'),
            archive.encode_entry(b"consumers/c", 1, b'{"config":{"ack_policy":"never"},"state":{}}'),
        ),
        'failed to decode consumer "c" state',
    ),
    "refused consumer": (
        packed(
            archive.encode_entry(b"state.json", 1, b'{"consumer_count":1}'),
            archive.encode_entry(b"consumers/c", 1, b'{"config":{"opt_start_seq":7},"state":{}}'),
            archive.END,
        ),
        'failed to add consumer "c"',
    ),
}


def test_what_is_wrong_is_said_and_nothing_is_left(made: tuple[SimVfs, dict[str, Any], bytes]) -> None:
    _, _, data = made
    middle = len(data) // 2

    async def story(world: World, client: Client) -> None:
        cases = BAD | {"a bit": (broken(data, middle), "s2: corrupt input, crc mismatch")}
        for name, (archived, text) in cases.items():
            answer = await restore(client, archived, {"name": "S", "subjects": ["s.>"]})
            assert answer["error"]["err_code"] == 10062, name
            assert text in answer["error"]["description"], name
            assert await nothing_left(world, client), name

    play_over(None, story)


async def nothing_left(world: World, client: Client) -> bool:
    """No stream, no name or subject that is taken, no group, no files."""
    names = (await client.api("STREAM.NAMES"))["streams"]
    server = current_server(world)
    groups = set(server.node.streams) | set(server.node.meta.machine.streams)
    with pytest.raises(NoResponders):
        await client.request("s.1", b"x")
    await asyncio.sleep(1)
    files = [path for path in world.machine.vfs.files() if path.startswith("groups/") and "/segments/" in path]
    return names is None and not groups and not files and not server.node.backups.restoring


def test_refused_before_the_first_chunk(made: tuple[SimVfs, dict[str, Any], bytes]) -> None:
    vfs, _, data = made

    async def story(world: World, client: Client) -> None:
        for name, config, err_code in (
            ("S", {"name": "S"}, 10130),
            ("S", {}, 10130),
            ("N", {"name": "O"}, 10056),
            ("N", {"name": "N", "subjects": ["a..b"]}, 10052),
        ):
            with pytest.raises(ApiFailure) as refused:
                await client.api(f"STREAM.RESTORE.{name}", {"config": config, "state": {}})
            assert refused.value.err_code == err_code
        answer = await restore(client, data, {"name": "N", "subjects": ["s.1"]})
        assert answer["error"]["description"] == (
            "restore failed: error adding stream: subjects overlap with an existing stream (10065)"
        )

    play_over(vfs, story)


def test_a_client_that_falls_silent_leaves_nothing(made: tuple[SimVfs, dict[str, Any], bytes]) -> None:
    _, before, data = made

    async def story(world: World, client: Client) -> None:
        config = {"name": "S", "subjects": ["s.>"]}
        begun = await client.api("STREAM.RESTORE.S", {"config": config, "state": {}})
        await client.request(begun["deliver_subject"], data[:3000])
        server = current_server(world)
        assert set(server.node.streams) == {"S"}, "it is under way"
        for name, body in (("INFO", {}), ("DELETE", None), ("PURGE", {}), ("SNAPSHOT", {"deliver_subject": "d"})):
            with pytest.raises(ApiFailure) as unseen:
                await client.api(f"STREAM.{name}.S", body)
            assert unseen.value.err_code == 10059, name
        for name in ("CREATE", "RESTORE"):
            with pytest.raises(ApiFailure) as taken:
                await client.api(f"STREAM.{name}.S", config if name == "CREATE" else {"config": config, "state": {}})
            assert taken.value.err_code in (10058, 10130)
        await asyncio.sleep(6)
        with pytest.raises(NoResponders):
            await client.request(begun["deliver_subject"], data[3000:4500])
        assert await nothing_left(world, client)
        assert (await restore(client, data, config))["state"]["messages"] == before["state"]["messages"]

    play_over(None, story)


# -- the snapshot's own ways to end -----------------------------------------------------------------------------------


def test_a_receiver_that_does_not_acknowledge_ends_it(made: tuple[SimVfs, dict[str, Any], bytes]) -> None:
    vfs, _, _ = made

    async def story(world: World, client: Client) -> None:
        advisories: list[dict[str, Any]] = []
        client.subscribe(
            "$JS.EVENT.ADVISORY.STREAM.*.S", lambda m: advisories.append(json.loads(m.data)) if m else None
        )
        _, chunks = await snapshot(client, acks=1, chunk_size=1024, window_size=2048)
        assert [len(chunk.data) for chunk in chunks] == [1024, 1024, 1024, 0], "a window, and one for the answer"
        assert chunks[-1].header == b"NATS/1.0 408 No Flow Response\r\n\r\n"
        await asyncio.sleep(1)
        kinds = [advisory["type"].rpartition(".")[2] for advisory in advisories]
        assert kinds == ["snapshot_create", "snapshot_complete"]
        assert advisories[1]["error"] == "no flow response"

    play_over(vfs, story)


def test_a_receiver_that_leaves_ends_it(made: tuple[SimVfs, dict[str, Any], bytes]) -> None:
    vfs, _, _ = made

    async def story(world: World, client: Client) -> None:
        advisories: list[dict[str, Any]] = []
        client.subscribe(
            "$JS.EVENT.ADVISORY.STREAM.*.S", lambda m: advisories.append(json.loads(m.data)) if m else None
        )
        other = await world.connect("other")
        other.subscribe("backup", lambda m: None)
        await other.drain()
        await asyncio.sleep(1)
        request = {"deliver_subject": "backup", "chunk_size": 1024, "window_size": 1024}
        await client.api("STREAM.SNAPSHOT.S", request)
        other.transport.close()
        await asyncio.sleep(1)
        assert advisories[-1]["error"] == "no interest"

    play_over(vfs, story)


def test_no_more_than_so_many_at_once(made: tuple[SimVfs, dict[str, Any], bytes]) -> None:
    vfs, _, _ = made

    async def story(world: World, client: Client) -> None:
        client.subscribe("backup", lambda m: None)
        request = {"deliver_subject": "backup", "chunk_size": 1024, "window_size": 1024}
        for _ in range(LIMITS.snapshots_max):
            await client.api("STREAM.SNAPSHOT.S", request)
        with pytest.raises(ApiFailure) as refused:
            await client.api("STREAM.SNAPSHOT.S", request)
        assert refused.value.err_code == 10023
        for number in range(LIMITS.restores_max):
            await client.api(f"STREAM.RESTORE.R{number}", {"config": {}, "state": {}})
        with pytest.raises(ApiFailure) as refused:
            await client.api("STREAM.RESTORE.R", {"config": {}, "state": {}})
        assert refused.value.err_code == 10023
        await asyncio.sleep(10)
        await client.api("STREAM.SNAPSHOT.S", request)

    play_over(vfs, story)


def test_damage_is_never_sent(made: tuple[SimVfs, dict[str, Any], bytes]) -> None:
    """A record that cannot be read ends the snapshot, with or without ``jsck``; what came of it restores nowhere."""
    vfs, before, _ = made

    async def flush(world: World, client: Client) -> None:
        server = current_server(world)
        await server.node.storage.checkpoint(server.node.streams["S"])

    async def story(world: World, client: Client) -> list[bytes]:
        found = []
        for request in ({}, {"jsck": True}):
            _, chunks = await snapshot(client, chunk_size=1024, **request)
            assert chunks[-1].status == 500
            assert b"segments" in chunks[-1].header
            found.append(joined(chunks))
        return found

    async def again(world: World, client: Client) -> None:
        answer = await restore(client, taken[0], without_dynamic(before["config"]))
        assert "backup was truncated" in answer["error"]["description"]

    damaged, _ = play_over(vfs, flush)
    path = sorted(path for path in damaged.files() if path.startswith("groups/2/segments/"))[0]
    at = damaged.peek(path).index(b"7....")
    damaged.poke(path, at, b"8")
    _, taken = play_over(damaged, story)
    play_over(None, again)


def test_a_snapshot_is_of_one_moment(made: tuple[SimVfs, dict[str, Any], bytes]) -> None:
    """However long it takes: messages that come later are not in it, consumers are as they were."""
    vfs, before, _ = made

    async def story(world: World, client: Client) -> bytes:
        chunks: list[bytes] = []
        done = asyncio.get_running_loop().create_future()

        def on_message(message: Any) -> None:
            if message is None:
                return
            chunks.append(message.data)
            if not message.data:
                done.set_result(None)
            elif message.reply:
                asyncio.get_running_loop().call_later(1.0, client.publish, message.reply, b"")

        client.subscribe("backup", on_message)
        request = {"deliver_subject": "backup", "chunk_size": 1024, "window_size": 1024}
        answer = await client.api("STREAM.SNAPSHOT.S", request)
        assert answer["state"]["last_seq"] == 42
        await asyncio.sleep(1.5)
        await client.request("s.9", b"later")
        await client.api("CONSUMER.DELETE.S.F")
        await done
        return b"".join(chunks)

    async def again(world: World, client: Client) -> None:
        await restore(client, data, without_dynamic(before["config"]))
        after = await seen(client)
        assert after["state"]["last_seq"] == 42
        assert after["messages"] == before["messages"]
        assert [consumer["name"] for consumer in after["consumers"]] == ["C", "F"]

    _, data = play_over(vfs, story)
    play_over(None, again)
