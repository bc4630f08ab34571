"""Goal: whatever happens between three honest nodes, nobody raises an alarm, and afterwards all are connected.

Method: nodes on machines of their own send all the time while a seed decides about cuts, one-way links, resets,
kill -9, power cuts, pauses, lost, doubled, late and damaged frames. Then everything is healed.
"""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from deep import IS_DEEP
from link_world import SMALL, LinkNode, is_meshed, note, play, until

from jepsen.sim.loop import SimLoop
from jepsen.sim.owner import Owner
from jetstore.node.link.hello import Purpose
from jetstore.node.link.ports import LinkLost, NotConnected, Route

PORT = 6222
SEEDS = 300 if IS_DEEP else 2


class Cell:
    """One machine: the lives of its node, one after the other."""

    def __init__(self, loop: SimLoop, number: int, count: int) -> None:
        self.loop = loop
        self.number = number
        self.host = f"h{number}"
        self.count = count
        self.boot = 0
        self.lsn = 0
        self.sent = 0
        self.asked = self.answered = 0
        self.lives: list[LinkNode] = []
        self.owner = Owner(self.host, self.host)

    @property
    def node(self) -> LinkNode:
        return self.lives[-1]

    def begin(self) -> None:
        self.boot += 1
        self.owner = Owner(self.host, self.host)
        nonce = f"{self.number:08x}{self.boot:08x}"
        node = LinkNode(self.loop, self.number, boot_counter=self.boot, boot_nonce=nonce, lsn=self.lsn)
        self.lives.append(node)
        self.loop.call_owned(self.owner, lambda: self.loop.create_task(self.live(node)))

    def kill(self, silently: bool) -> None:
        self.owner.is_alive = False
        self.loop.network.drop_process(self.owner, silently=silently)
        self.loop.bury(self.owner)

    async def live(self, node: LinkNode) -> None:
        async def mirror(node_id: str, payload: bytes) -> bytes:
            await asyncio.sleep(0.01)
            return payload

        node.links.register("mirror", mirror)
        await node.links.start("", PORT)
        for number in range(1, self.count + 1):
            node.links.add_route(Route(f"h{number}", PORT))
        while True:
            self.lsn += 1
            node.lsn = self.lsn
            for peer in node.links.connected():
                self.sent += 1
                node.links.send_raft(peer, self.sent, [note(self.number * 10**9 + self.sent)])  # type: ignore[arg-type]
                if node.links.is_up(peer, Purpose.BULK) and self.sent % 3 == 0:
                    self.loop.create_task(self.ask(node, peer))
            await asyncio.sleep(0.15)

    async def ask(self, node: LinkNode, peer: str) -> None:
        payload = str(self.sent).encode()
        self.asked += 1
        try:
            assert await node.links.request(peer, "mirror", payload) == payload
        except (NotConnected, LinkLost):
            pass
        self.answered += 1


def one_fault(loop: SimLoop, rng: Random, cells: list[Cell], down: list[Cell]) -> None:
    links = loop.network.links
    a, b = rng.sample(cells, 2)
    what = rng.choice(["cut", "one way", "reset", "kill", "power", "pause", "harm", "damage", "heal", "stall"])
    if what == "cut":
        links.partition([a.host], [b.host])
    elif what == "one way":
        links.cut(a.host, b.host)
    elif what == "reset" and (live := loop.network.live()):
        rng.choice(live).abort()
    elif what in ("kill", "power") and a not in down:
        a.kill(silently=what == "power")
        down.append(a)
    elif what == "pause" and a not in down:
        owner = a.owner
        owner.is_paused = True
        loop.call_later(rng.uniform(0.05, 9), loop.thaw, owner)
    elif what == "harm":
        link = links.change(a.host, b.host)
        link.loss, link.double, link.overtake = rng.choice([(0.3, 0, 0), (0, 0.3, 0), (0, 0, 0.3), (0.1, 0.1, 0.1)])
    elif what == "damage":
        links.change(a.host, b.host).damage = 0.02
    elif what == "heal":
        links.heal()
    elif what == "stall" and (live := loop.network.live()):
        end = rng.choice(live)
        end.stall(True)
        loop.call_later(rng.uniform(0.1, 6), end.stall, False)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_chaos(seed: int) -> None:
    rng = Random(seed)

    async def story(loop: SimLoop) -> None:
        loop.network.cluster_ports = frozenset([PORT])
        cells = [Cell(loop, number, 3) for number in (1, 2, 3)]
        down = list(cells)
        for _ in range(25):
            for cell in [cell for cell in down if rng.random() < 0.7]:
                down.remove(cell)
                cell.begin()
            await asyncio.sleep(rng.uniform(0.05, 2))
            one_fault(loop, rng, cells, down)
        loop.network.links.heal()
        for cell in down:
            cell.begin()
        nodes = [cell.node for cell in cells]
        await until(lambda: is_meshed(*nodes), 30)
        await asyncio.sleep(10)  # pauses and stalls of before have ended, their connections are replaced
        await until(lambda: is_meshed(*nodes), 30)
        assert [life.heard.alarms for cell in cells for life in cell.lives if life.heard.alarms] == []
        for a in nodes:
            for b in nodes:
                if a is not b:
                    before = len(b.heard.messages(a.id))
                    await until(lambda a=a, b=b, before=before: len(b.heard.messages(a.id)) > before + 10)
        for cell in cells:
            assert cell.asked > 10
            pending = [peer.requests_pending for peer in cell.node.links.status().peers]
            assert max(pending) < 20
        for node in nodes:
            for each in node.links.peers.values():
                assert len(each.retired) <= 1
            assert node.links.status().inbound_waiting <= 2
        for life in (life for cell in cells for life in cell.lives):
            events: dict[str, str] = {}
            for event in life.heard.events:
                what, peer = event.split()
                assert events.get(peer, "down") != what, "up and down alternate"
                events[peer] = what
        for cell in cells:
            cell.kill(silently=False)

    play(story, seed)


def test_without_faults_nothing_is_doubled_or_lost() -> None:
    async def story(loop: SimLoop) -> None:
        loop.network.cluster_ports = frozenset([PORT])
        cells = [Cell(loop, number, 3) for number in (1, 2, 3)]
        for cell in cells:
            cell.begin()
        await asyncio.sleep(30)
        for a in cells:
            assert a.asked - a.answered < 20
            got = [m.index for b in cells if b is not a for _, m in b.node.heard.messages(a.node.id)]
            assert len(set(got)) == len(got)
            assert a.sent - len(got) < 20
            assert a.node.heard.downs == []
            assert a.node.links.limits is SMALL
            a.kill(silently=False)

    play(story)
