"""A stream that was deleted just before a crash: its files go at the next start, and are not kept as if unknown."""

from __future__ import annotations

import pytest
from placing_world import Story, node_of, play

from jepsen.sim.client import Client
from jetstore.store.checkpoint_files import group_dir


async def delete(client: Client) -> None:
    await client.api("STREAM.DELETE.ORDERS")


@pytest.mark.parametrize("nodes", [1, 3])
def test_files_of_a_stream_deleted_just_before_a_crash_are_removed(nodes: int) -> None:
    async def story(s: Story) -> None:
        await s.create("ORDERS", nodes)
        await s.publish("ORDERS", *[b"%d" % n for n in range(20)])
        machine = s.world.machines[0]
        node = node_of(machine)
        assert node is not None
        group = node.streams["ORDERS"]
        await node.storage.checkpoint(group)
        node.assignments._remove_files = lambda uid: None  # type: ignore[method-assign]  # it dies before that
        await s.ask("ORDERS", delete)
        files = group_dir(group.uid)
        await s.until(lambda: group.uid in node.assignments._tombstones, "the tombstone is durable")
        assert any(path.startswith(files) for path in machine.vfs.files())
        machine.kill(0.1)
        await s.until(lambda: not any(path.startswith(files) for path in machine.vfs.files()), "its files are gone")
        assert not [path for path in machine.vfs.files() if path.startswith("quarantine/")]

    play(story, nodes=nodes)
