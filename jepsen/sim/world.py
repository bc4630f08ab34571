"""A world for one run: virtual time, machines with a server each, links between them, clients. One seed, bit for bit.

``World`` is what ``run.py`` drives with a drawn plan, and what scripted scenarios drive by hand::

    async def story(world: World) -> None:
        client = await world.up()
        ...
        world.machine.power_cut(0.1)
        client = await world.up()

    play(story, seed=1)
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from jepsen.history import RaftState
from jepsen.sim.client import Client, NotSent, Unknown, connect
from jepsen.sim.cluster_client import META, connect_to_leader
from jepsen.sim.loop import SimLoop
from jepsen.sim.machine import Machine, Serve
from jepsen.sim.owner import HARNESS_HOST
from jepsen.sim.server import CLUSTER_PORT, PORT, serve_node
from jepsen.sim.storm import LETTER, draw_storm
from jepsen.sim.wipe import new_disk, reassign
from jetstore.limits import KIB, MIB, Limits

START_BOUND_S = 60.0
"""Virtual time within which a healthy server must serve (zeroing and replay included)."""
RUN_BOUND_S = 3600.0
CALLBACKS_MAX = 5_000_000

SMALL = Limits(
    max_payload_bytes=4 * KIB,
    max_pending_bytes=MIB,
    write_pause_bytes=64 * KIB,
    entry_bytes_max=8 * KIB,
    block_bytes_max=16 * KIB,
    journal_file_bytes=64 * KIB,
    journal_bytes_max=MIB,
    journal_group_bytes=64 * KIB,
    journal_reappend_bytes=8 * KIB,
    zeroing_bytes=64 * KIB,
    segment_bytes=32 * KIB,
    segment_flush_bytes=8 * KIB,
    frame_bytes_max=2 * KIB,
    disk_reserve_bytes=MIB,
    disk_resume_bytes=MIB + 256 * KIB,
)
"""Small bounds for scripted scenarios."""


class World:
    """Loop, machines and clients. ``close`` ends it; nothing of it stays behind."""

    def __init__(
        self,
        rng: Random,
        *,
        nodes: int = 1,
        limits: Limits = SMALL,
        capacity_bytes: int = 64 * MIB,
        serve: Serve = serve_node,
    ) -> None:
        """``nodes`` machines ``n1`` …, each told the names of the others."""
        self.loop = SimLoop(Random(rng.getrandbits(64)), callbacks_max=CALLBACKS_MAX)
        self.loop.deadline_s = RUN_BOUND_S
        self.loop.network.cluster_ports = frozenset([CLUSTER_PORT])
        self.links = self.loop.network.links
        names = tuple(f"n{number}" for number in range(1, nodes + 1))
        self.machines = tuple(
            Machine(
                self.loop,
                Random(rng.getrandbits(64)),
                serve,
                limits=limits,
                capacity_bytes=capacity_bytes,
                name=name,
                peers=tuple(other for other in names if other != name),
            )
            for name in names
        )
        self.rng = rng
        self._client_rng = Random(rng.getrandbits(64))
        self.homes: dict[str, int] = {}
        """Where clients go whose names start with this letter; others go to each machine in turn."""
        self.streams: dict[str, str] = {}
        """Clients whose names start with this letter look for the leader of this stream."""
        self.replicas = nodes
        self.damaged: set[str] = set()
        self.has_moved = False
        self.others: set[str] = set()
        """Streams beside those of workloads."""
        self.storms: list[asyncio.Task[None]] = []
        self.is_calm = False
        self.on_tell: Callable[[str], None] = lambda what: None
        self._clients = 0
        self._turn = 0
        self._context = contextvars.copy_context()
        self._later: list[asyncio.TimerHandle] = []

    @property
    def machine(self) -> Machine:
        """The first one; the only one of most scenarios."""
        return self.machines[0]

    async def connect(self, name: str, node: int | None = None) -> Client:
        """A connection to that machine (default: each in turn). ``NotSent`` or ``Unknown`` if there is none."""
        if node is None and name[:1] in self.streams:
            return await connect_to_leader(self, self._client_rng, name, self.streams[name[:1]])
        if node is None and name[:1] == LETTER and self.streams:
            return await connect_to_leader(self, self._client_rng, name, META)
        if node is None:
            node = self.homes.get(name[:1])
        if node is None:
            node = self._turn = (self._turn + 1) % len(self.machines)
        return await connect(name, PORT, host=self.machines[node].host)

    async def all_up(self) -> None:
        """Start every server that is down and wait until all serve."""
        for machine in self.machines:
            machine.power_on()
        for machine in self.machines:
            if not await machine.ready(START_BOUND_S):
                ends = machine.exits[-1:]
                raise AssertionError(f"the server of {machine.name} does not serve: {ends or 'it is still starting'}")

    async def up(self, node: int = 0) -> Client:
        """Start that machine's server if it is down, wait until it serves, and connect."""
        machine = self.machines[node]
        machine.power_on()
        if not await machine.ready(START_BOUND_S):
            ends = machine.exits[-1:]
            raise AssertionError(f"the server does not serve: {ends or 'it is still starting'}")
        self._clients += 1
        for _ in range(100):
            try:
                return await self.connect(f"c{self._clients}", node)
            except (NotSent, Unknown):
                await asyncio.sleep(0.05)
        raise AssertionError("nobody answers")

    # -- what clients ask (``jepsen.sim.cluster_client.Guide``) -----------------------------------------------------

    @property
    def hosts(self) -> list[str]:
        """Of all machines."""
        return [machine.host for machine in self.machines]

    def claim_to_lead(self, stream: str) -> list[str]:
        """Hosts whose processes believe that they lead it."""
        return [machine.host for machine in self.machines if machine.leads(stream)]

    def stream_in(self, words: list[str]) -> str:
        """The stream that one of the words names."""
        known = self.others.union(self.streams.values())
        return next((word for word in words if word in known), "?")

    # -- what nemeses use (``jepsen.nemesis.target.Cluster``) -------------------------------------------------------

    def states(self) -> list[RaftState]:
        """What all running replicas believe of all their groups."""
        return [state for machine in self.machines for state in machine.states()]

    def leaders(self) -> list[str]:
        """Names of the machines that lead something now, those with most groups first."""
        led = Counter(state.node for state in self.states() if state.role == "leader")
        return [name for name, _ in sorted(led.items(), key=lambda item: (-item[1], item[0]))]

    def transfer(self, rng: Random) -> None:
        """Ask some leader to hand a group over to another machine, dead or alive."""
        led = [state for state in self.states() if state.role == "leader"]
        if not led:
            return
        state = rng.choice(led)
        target = rng.choice([machine.name for machine in self.machines if machine.name != state.node])
        self.tell(f"transfer of {state.group} from {state.node} to {target}")
        for machine in self.machines:
            if machine.name == state.node:
                machine.transfer(state.group, target)

    def checkpoint(self, name: str) -> None:
        """Make that machine checkpoint what it can, now."""
        for machine in self.machines:
            if machine.name == name:
                machine.checkpoint()

    def reassign(self, rng: Random) -> str:
        """Ask who leads the metadata to have some stream on other machines."""
        return reassign(self, rng)

    def new_disk(self, name: str, down_s: float) -> None:
        """That machine loses its disk, and comes back with an empty one."""
        for machine in self.machines:
            if machine.name == name:
                new_disk(machine, down_s)

    def storm(self, rng: Random) -> str:
        """Begin one; what it is."""
        told, blowing = draw_storm(self, rng, len(self.storms) + 1)
        self.storms.append(self.loop.create_task(blowing))
        return told

    def later(self, delay_s: float, action: Callable[[], object]) -> None:
        """Do it then, unless ``calm`` comes first."""
        self._later.append(self.loop.call_later(delay_s, action, context=self._context))

    def calm(self) -> None:
        """No fault goes on or comes any more: links are as new, disks healed, nothing planned happens."""
        self.is_calm = True
        for timer in self._later:
            timer.cancel()
        self._later.clear()
        self.links.heal()
        for machine in self.machines:
            machine.heal_disk()
            machine.thaw()

    def retire(self, machine: Machine) -> None:
        """It is off for good, and nothing is expected of it any more."""
        machine.close()
        self.machines = tuple(other for other in self.machines if other is not machine)

    def hang_up(self) -> None:
        """Clients that are still connected reset their connections."""
        for transport in self.loop.network.live():
            if transport.host == HARNESS_HOST:
                transport.abort()

    def tell(self, what: str) -> None:
        """For the story."""
        self.on_tell(what)

    # -- life -------------------------------------------------------------------------------------------------------

    def run(self, main: Awaitable[Any]) -> Any:
        """Run until ``main`` is done; its result."""
        asyncio.set_event_loop(None)
        return self.loop.run_until_complete(main)

    def close(self) -> None:
        """The end: the machines are switched off, what dead processes left is thrown away."""
        for machine in self.machines:
            machine.close()
        self.loop.close()


def play(story: Callable[[World], Awaitable[Any]], *, seed: int, **options: Any) -> World:
    """Run a scripted scenario; the finished world. Errors of the server's own callbacks fail it."""
    world = World(Random(seed), **options)
    try:
        world.run(story(world))
    finally:
        world.close()
    assert world.loop.failures == [], world.loop.failures
    return world
