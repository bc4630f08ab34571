"""Several nodes on simulated machines, and what a test of membership asks of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from random import Random
from typing import Any

from jepsen.sim.client import ApiFailure, Client, NoResponders, NotSent, Unknown
from jepsen.sim.command import quiet
from jepsen.sim.machine import Machine
from jepsen.sim.world import World
from jetstore.meta.state import StreamAssignment
from jetstore.node.node import Node
from jetstore.node.stream_group import StreamGroup
from jetstore.store.checkpoint_files import group_dir

BOUND_S = 60.0
"""Virtual time within which what is waited for has to come."""


def node_of(machine: Machine) -> Node | None:
    """The running node of a machine, once it has its metadata."""
    server = machine.boot.server if machine.boot is not None else None
    node = getattr(server, "node", None)
    return node if node is not None and hasattr(node, "meta") else None


class Story:
    """A world while a test plays in it."""

    def __init__(self, world: World) -> None:
        self.world = world

    def nodes(self) -> list[Node]:
        """Those that run."""
        return [node for machine in self.world.machines if (node := node_of(machine)) is not None]

    async def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait until it is true; its value."""
        deadline_s = self.world.loop.now() + BOUND_S
        while not (value := condition()):
            assert self.world.loop.now() < deadline_s, f"{what}: {self.shown()}"
            await asyncio.sleep(0.02)
        return value

    def shown(self) -> str:
        """For a failure."""
        return str(
            [
                (state.node, state.group, state.member, state.role, state.term, state.voters, state.commit)
                for state in self.world.states()
            ]
        )

    # -- who -------------------------------------------------------------------------------------------------------

    def meta_leader(self) -> Node | None:
        """The node that leads the metadata."""
        return next((node for node in self.nodes() if node.meta.serves), None)

    def leader(self, stream: str) -> StreamGroup | None:
        """The stream's group where it is led."""
        groups = (node.streams.get(stream) for node in self.nodes())
        return next((group for group in groups if group is not None and group.serves), None)

    def home(self, number: int) -> tuple[str, int]:
        """(node id, incarnation) on machine ``number`` (1 …)."""
        machine = self.world.machines[number - 1]
        node = node_of(machine)
        assert node is not None
        assert node.cluster is not None
        return node.cluster.identity.node_id, node.cluster.identity.incarnation

    def machine_with(self, group: StreamGroup) -> Machine:
        """Where it is."""
        for machine in self.world.machines:
            node = node_of(machine)
            if node is not None and node.streams.get(group.name) is group:
                return machine
        raise AssertionError("nowhere")

    def holders(self, stream: str) -> list[str]:
        """Machines whose nodes have the stream's group."""
        return [m.name for m in self.world.machines if (node := node_of(m)) is not None and stream in node.streams]

    # -- what --------------------------------------------------------------------------------------------------------

    async def reassign(self, stream: str, *machines: int) -> StreamAssignment:
        """Want the stream on these machines."""
        leader = await self.until(self.meta_leader, "somebody leads the metadata")
        assert leader.placing is not None
        homes = [self.home(number) for number in machines]
        machine = next(m for m in self.world.machines if node_of(m) is leader)
        assert machine.boot is not None
        decided: asyncio.Task[StreamAssignment] = self.world.loop.call_owned(
            machine.boot.owner, lambda: asyncio.ensure_future(leader.placing.reassign(stream, homes))
        )
        return await decided

    async def settled(self, stream: str) -> StreamAssignment:
        """Wait until every node has applied that the wanted members are there, and nobody else."""

        def is_settled() -> StreamAssignment | None:
            found = [node.meta.machine.streams.get(stream) for node in self.nodes()]
            if len({each.placement.version if each is not None else 0 for each in found}) > 1:
                return None
            return found[0] if all(each is not None and each.placement.is_settled for each in found) else None

        return await self.until(is_settled, f"{stream} is settled")

    async def only_on(self, stream: str, *machines: str) -> None:
        """Wait until exactly these hold it, in memory and on disk."""

        def is_so() -> bool:
            if self.holders(stream) != list(machines):
                return False
            return self.dirs(stream) <= set(machines)

        await self.until(is_so, f"{stream} is on {machines} only, not on {self.holders(stream)}, {self.dirs(stream)}")

    def dirs(self, stream: str) -> set[str]:
        """Machines that have a directory of the stream."""
        meta = self.meta_leader()
        if meta is None:
            return set()
        uid = meta.meta.machine.streams[stream].uid
        return {machine.name for machine in self.world.machines if machine.vfs.exists(group_dir(uid))}

    # -- clients -----------------------------------------------------------------------------------------------------

    async def ask(self, stream: str, body: Callable[[Client], Awaitable[Any]]) -> Any:
        """Have the leader of the stream ("" = of the metadata) asked, again until it answers."""
        deadline_s = self.world.loop.now() + BOUND_S
        while True:
            try:
                at = next((i for i, machine in enumerate(self.world.machines) if machine.leads(stream)), 0)
                client = await self.world.connect("c", at)
                try:
                    return await body(client)
                finally:
                    client.close()
            except (NotSent, Unknown, NoResponders, ApiFailure):
                assert self.world.loop.now() < deadline_s, self.shown()
                await asyncio.sleep(0.1)

    async def create(self, stream: str, replicas: int, **config: Any) -> None:
        """A stream with subject = its name in small letters."""
        body = {"name": stream, "subjects": [stream.lower()], "num_replicas": replicas, **config}
        await self.ask("", lambda client: client.api(f"STREAM.CREATE.{stream}", body))

    async def publish(self, stream: str, *payloads: bytes) -> list[int]:
        """Sequences of the acknowledged messages."""

        async def publish(client: Client, payload: bytes) -> int:
            answer = (await client.request(stream.lower(), payload, timeout_s=3.0)).json()
            if "error" in answer:
                raise ApiFailure(answer["error"])
            return int(answer["seq"])

        return [await self.ask(stream, partial(publish, payload=payload)) for payload in payloads]

    async def converged(self, stream: str) -> dict[int, bytes]:
        """Wait until all members of the stream's group have applied the same; what they hold, proved equal."""

        def positions() -> bool:
            groups = [node.streams[stream] for node in self.nodes() if stream in node.streams]
            return len({(g.core.log.applied_index, g.stream.running.value) for g in groups}) == 1

        await self.until(positions, f"members of {stream} have applied the same")
        contents = []
        for machine in self.world.machines:
            found = machine.contents(stream)
            if found is not None:
                contents.append({seq: seen.data for seq, seen in found.items()})
        assert contents
        assert all(each == contents[0] for each in contents)
        return contents[0]


def play(story: Callable[[Story], Awaitable[None]], *, nodes: int, seed: int = 1, **options: Any) -> None:
    """Run it on new machines that all serve."""
    quiet()
    world = World(Random(seed), nodes=nodes, **options)

    async def whole() -> None:
        await world.all_up()
        await story(Story(world))

    try:
        world.run(whole())
        ends = [end for machine in world.machines for end in machine.exits if end[1] is not None]
        assert not ends, ends
    finally:
        world.close()
    assert world.loop.failures == [], world.loop.failures
