"""STREAM.UPDATE with another number of replicas: members come and go, messages and consumers stay."""

from __future__ import annotations

from typing import Any

from placing_world import Story, node_of, play


async def resize(s: Story, replicas: int) -> None:
    """Ask for so many replicas, and wait until there are as many and no more."""

    def meta_leader_has_it() -> bool:
        leader = s.meta_leader()
        return leader is not None and "S" in leader.streams

    await s.until(meta_leader_has_it, "who leads the metadata has the stream")  # requests are not forwarded

    async def update(client: Any) -> None:
        config = {"name": "S", "subjects": ["s"], "num_replicas": replicas}
        answer = await client.api("STREAM.UPDATE.S", config)
        assert answer["config"]["num_replicas"] == replicas

    await s.ask("", update)

    def is_so() -> bool:
        leader = s.meta_leader()
        if leader is None:
            return False
        placement = leader.meta.machine.streams["S"].placement
        return placement.is_settled and len(placement.wanted) == replicas == len(s.holders("S"))

    await s.until(is_so, f"{replicas} replicas, not {s.holders('S')}")


def test_one_three_five_three_one() -> None:
    async def story(s: Story) -> None:
        await s.create("S", 1)
        config = {"stream_name": "S", "config": {"durable_name": "C", "ack_policy": "explicit"}}
        await s.ask("S", lambda client: client.api("CONSUMER.CREATE.S.C", config))
        count = 0
        for replicas in (3, 5, 3, 1):
            count += len(await s.publish("S", *[b"x"] * 5))
            await resize(s, replicas)
            assert len(await s.converged("S")) == count
        info = await s.ask("S", lambda client: client.api("CONSUMER.INFO.S.C"))
        assert info["num_pending"] == count
        assert all(node_of(machine) for machine in s.world.machines)

    play(story, nodes=5, seed=11)


def test_a_node_that_is_down_is_not_chosen() -> None:
    async def story(s: Story) -> None:
        await s.create("S", 1)
        await s.publish("S", b"a")
        leader = await s.until(s.meta_leader, "led")
        others = [m for m in s.world.machines if node_of(m) is not leader and m.name not in s.holders("S")]
        others[0].kill(1e6)
        await s.until(lambda: len(s.nodes()) == 4, "it is down")
        await resize(s, 3)
        assert others[0].name not in s.holders("S")
        assert await s.converged("S") == {1: b"a"}

    play(story, nodes=5, seed=12)
