"""Goal: nodes find each other, keep one connection per purpose, and get over resets, cuts and stalls."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest
from link_world import SMALL, LinkNode, is_meshed, mesh, note, notes, play, stop, until, wires

from jepsen.sim.loop import SimLoop
from jetstore.node.link.hello import Purpose
from jetstore.node.link.ports import LinkLost, Route


@pytest.mark.parametrize("seed", range(12))
def test_both_dial_and_one_connection_per_purpose_stays(seed: int) -> None:
    async def story(loop: SimLoop) -> None:
        nodes = await mesh(loop, 3)
        for a in nodes:
            assert sorted(a.heard.ups) == sorted(b.id for b in nodes if b is not a)
            assert a.heard.downs == []
            for b in nodes:
                if a is not b:
                    a.send(b, note(a.number))
        await until(lambda: all(len(node.heard.batches) == 2 for node in nodes))
        await stop(*nodes)

    play(story, seed)


@pytest.mark.parametrize("seed", range(6))
def test_order_holds_within_a_connection(seed: int) -> None:
    async def story(loop: SimLoop) -> None:
        a, b = await mesh(loop, 2)
        for number in range(300):
            a.send(b, note(number))
            if number % 7 == 0:
                await until(lambda: not a.links.peers[b.id].queue)
        await until(lambda: len(b.heard.messages(a.id)) == 300)
        assert notes(b.heard.messages(a.id)) == list(range(300))
        await stop(a, b)

    play(story, seed)


@pytest.mark.parametrize("seed", range(6))
def test_a_reset_is_told_at_once_and_mended(seed: int) -> None:
    async def story(loop: SimLoop) -> None:
        a, b = await mesh(loop, 2)
        before = loop.time()
        wires(loop, a, b).abort()
        await until(lambda: a.heard.downs and b.heard.downs)
        assert loop.time() - before < 0.05
        await until(lambda: is_meshed(a, b))
        a.send(b, note(7))
        await until(lambda: notes(b.heard.messages(a.id)) == [7])
        await stop(a, b)

    play(story, seed)


@pytest.mark.parametrize("seed", range(4))
def test_a_half_open_connection_is_noticed_and_replaced(seed: int) -> None:
    async def story(loop: SimLoop) -> None:
        a, b = await mesh(loop, 2)
        end = wires(loop, a, b)
        end.is_cut = end.peer.is_cut = True
        await until(lambda: a.heard.downs and b.heard.downs)
        await until(lambda: is_meshed(a, b))
        a.send(b, note(7))
        b.send(a, note(8))
        await until(lambda: notes(b.heard.messages(a.id)) == [7])
        await until(lambda: notes(a.heard.messages(b.id)) == [8])
        await stop(a, b)

    play(story, seed)


def test_a_stalled_link_drops_and_counts_at_its_bound() -> None:
    async def story(loop: SimLoop) -> None:
        a, b = await mesh(loop, 2)
        wires(loop, a, b).stall(True)
        limit = a.links.limits.link_send_bytes_max
        for number in range(5000):
            a.send(b, note(number))
            assert wires(loop, a, b).get_write_buffer_size() + a.links.peers[b.id].queued_bytes <= limit + 1024
        status = a.links.status().peers[0]
        assert status.messages_dropped > 1000
        await until(lambda: status.raft is not None)
        wires(loop, a, b).stall(False)
        taken = 5000 - status.messages_dropped
        await until(lambda: len(b.heard.messages(a.id)) == taken)
        assert notes(b.heard.messages(a.id)) == list(range(taken))
        await stop(a, b)

    play(story)


def test_a_stopped_node_is_reported_down_and_found_again() -> None:
    async def story(loop: SimLoop) -> None:
        a, b = await mesh(loop, 2)
        await b.links.stop()
        await until(lambda: [node for node, _ in a.heard.downs] == [b.id])
        again = LinkNode(loop, 2, boot_counter=2, boot_nonce="ab" * 8)
        await again.start(b.port)
        await until(lambda: a.links.is_up(b.id, Purpose.RAFT) and a.links.is_up(b.id, Purpose.BULK))
        assert a.heard.events == [f"up {b.id}", f"down {b.id}", f"up {b.id}"]
        await stop(a, again)

    play(story)


def test_a_newer_connection_wins_when_the_older_one_is_long_dead_for_the_peer() -> None:
    """Without it, ``a`` would go on writing into the dead one until silence tells."""

    async def story(loop: SimLoop) -> None:
        a, b = LinkNode(loop, 1), LinkNode(loop, 2)
        for node in (a, b):
            await node.start()
        a.dial(b)  # the lower id dials: the one that stays among duplicates
        await until(lambda: is_meshed(a, b))
        await asyncio.sleep(SMALL.link_hello_timeout_s + 0.1)
        end = wires(loop, a, b)
        end.is_cut = end.peer.is_cut = True
        end.reset = lambda: None  # type: ignore[method-assign]
        before = loop.time()
        end.peer.abort()
        b.dial(a)
        await until(lambda: len(a.heard.ups) == 2)
        a.send(b, note(5))
        await until(lambda: notes(b.heard.messages(a.id)) == [5])
        assert loop.time() - before < 1
        await stop(a, b)

    play(story)


def test_a_later_life_ends_all_connections_of_the_earlier_one_at_once() -> None:
    async def story(loop: SimLoop) -> None:
        a = LinkNode(loop, 1)
        b = LinkNode(loop, 2)
        await a.start()
        b.dial(a)
        await until(lambda: is_meshed(a, b))

        async def never(node_id: str, payload: bytes) -> bytes:
            return await loop.create_future()

        b.links.register("never", never)
        asked = a.links.request(b.id, "never", b"")
        await asyncio.sleep(0.1)
        for purpose in Purpose:
            end = wires(loop, a, b, purpose)
            end.is_cut = end.peer.is_cut = True
        before = loop.time()
        later = LinkNode(loop, 2, boot_counter=2, boot_nonce="bb" * 8)
        later.dial(a)
        with pytest.raises(LinkLost, match="a later life"):
            await asked
        assert loop.time() - before < 1
        await until(lambda: is_meshed(a, later))
        await stop(a, b, later)

    play(story)


def test_nodes_configured_counts_nodes_and_not_addresses() -> None:
    """Two names of one node are one as soon as it is known; its own address is none."""

    async def story(loop: SimLoop) -> None:
        a, b = LinkNode(loop, 1), LinkNode(loop, 2)
        for node in (a, b):
            await node.start()
        a.dial(a, b)
        a.links.add_route(Route("localhost", b.port))
        a.links.add_route(Route("localhost", 1))  # nobody there
        assert a.links.nodes_configured() == 4
        await until(lambda: a.links.nodes_configured() == 2)
        await until(lambda: is_meshed(a, b))
        await asyncio.sleep(1)
        assert len(loop.network.live()) == 4
        assert (a.heard.events, b.heard.events) == ([f"up {b.id}"], [f"up {a.id}"])
        await stop(a, b)

    play(story)


async def hashed_story(loop: SimLoop) -> None:
    nodes = await mesh(loop, 3)
    for number in range(20):
        for a in nodes:
            for b in nodes:
                if a is not b:
                    a.send(b, note(number), group=number)
        wires(loop, nodes[0], nodes[1 + number % 2]).abort()
        await until(lambda: is_meshed(*nodes))
    await stop(*nodes)


def test_one_seed_gives_one_run_whatever_the_hash_seed() -> None:
    assert play(hashed_story, 5).trace_hash() == play(hashed_story, 5).trace_hash()
    code = (
        "import logging, structlog, test_links_sim as t;"
        "structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR));"
        "print(t.play(t.hashed_story, 5).trace_hash())"
    )
    hashes = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(hashes) == 1
