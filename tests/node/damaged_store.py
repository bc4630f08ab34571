"""Small stores made by a simulated server, to be damaged and looked at; and servers started over them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from jepsen.sim.client import ApiFailure, Client
from jepsen.sim.command import quiet
from jepsen.sim.encryption import Secrets
from jepsen.sim.vfs import SimVfs
from jepsen.sim.world import World
from jetstore.limits import KIB, MIB, Limits

LIMITS = Limits(
    max_payload_bytes=4 * KIB,
    max_pending_bytes=MIB,
    write_pause_bytes=64 * KIB,
    entry_bytes_max=2 * KIB,
    block_bytes_max=8 * KIB,
    journal_file_bytes=64 * KIB,
    journal_spare_files=1,
    journal_bytes_max=MIB,
    journal_group_bytes=4 * KIB,
    journal_reappend_bytes=2 * KIB,
    zeroing_bytes=64 * KIB,
    segment_bytes=4 * KIB,
    segment_flush_bytes=1 * KIB,
    frame_bytes_max=512,
    disk_reserve_bytes=MIB,
    disk_resume_bytes=MIB + 256 * KIB,
)
STREAM = {"name": "S", "subjects": ["s.>"], "allow_direct": True}
OTHER = {"name": "OTHER", "subjects": ["o.>"]}
CONSUMER = {"stream_name": "S", "config": {"durable_name": "C", "ack_policy": "explicit"}}
ACKED = 5
"""Messages of S that the consumer has acknowledged."""

Story = Callable[[World, Client], Awaitable[Any]]


def play_over(
    vfs: SimVfs | None, story: Story, *, limits: Limits = LIMITS, seed: int = 1, secrets: Secrets | None = None
) -> tuple[SimVfs, Any]:
    """Start a server over (a fork of) this disk and tell a story; the disk after a kill, and the story's result."""
    quiet()
    world = World(Random(seed), limits=limits)
    world.machine.secrets = secrets
    try:
        if vfs is not None:
            world.machine.vfs = vfs.clone()
            world.machine.vfs.kill()
        result: list[Any] = []

        async def main() -> None:
            client = await world.up()
            result.append(await story(world, client))

        world.run(main())
        left = world.machine.vfs.clone()
        left.kill()
    finally:
        world.close()
    assert world.loop.failures == [], world.loop.failures
    return left, result[0]


async def put(client: Client, first: int, last: int, *, size: int = 100, stream: str = "S") -> None:
    """Publish these numbers one by one; each must get its own number as sequence."""
    for number in range(first, last + 1):
        answer = (await client.request(f"{stream[0].lower()}.{number % 3}", body(number, size))).json()
        assert answer == {"stream": stream, "seq": number}


def body(number: int, size: int = 100) -> bytes:
    """What ``put`` stores."""
    return f"{number}".encode().ljust(size, b".")


async def create(client: Client, config: dict[str, Any] | None = None) -> None:
    """The two streams and the consumer."""
    await client.api("STREAM.CREATE.S", STREAM | (config or {}))
    await client.api("STREAM.CREATE.OTHER", OTHER)
    await client.api("CONSUMER.CREATE.S.C", CONSUMER)
    await put(client, 1, 3, stream="OTHER")


def small_store(
    checkpointed: int,
    above: int,
    *,
    size: int = 100,
    config: dict[str, Any] | None = None,
    secrets: Secrets | None = None,
) -> SimVfs:
    """S holds 1…``checkpointed`` in segments under a checkpoint, then ``above`` more only in the journal.

    Each message is an entry of its own. The consumer has acknowledged the first ``ACKED``.
    """

    async def story(world: World, client: Client) -> None:
        await create(client, config)
        await put(client, 1, checkpointed, size=size)
        await take(client, ACKED)
        server = current_server(world)
        if checkpointed:
            for group in (server.node.meta, *server.node.streams.values()):
                await server.node.storage.checkpoint(group)
        await put(client, checkpointed + 1, checkpointed + above, size=size)
        await asyncio.sleep(1)  # the idle block: second evidence of everything

    vfs, _ = play_over(None, story, secrets=secrets)
    return vfs


async def take(client: Client, count: int) -> list[int]:
    """Fetch and acknowledge messages of the consumer; their sequences."""
    got: list[int] = []
    done = asyncio.get_running_loop().create_future()

    def on_message(message: Any) -> None:
        if message is None or not message.reply:
            return
        got.append(int(message.reply.split(".")[-5 + 1]))
        client.publish(message.reply, b"+ACK")
        if len(got) == count and not done.done():
            done.set_result(None)

    client.subscribe("take", on_message)
    client.publish("$JS.API.CONSUMER.MSG.NEXT.S.C", f'{{"batch":{count},"expires":5000000000}}'.encode(), reply="take")
    async with asyncio.timeout(10):
        await done
    await asyncio.sleep(0.1)
    return got


def current_server(world: World) -> Any:
    """The server object of the running boot."""
    boot = world.machine.boot
    assert boot is not None
    return boot.server


def fingerprint(vfs: SimVfs) -> dict[str, str]:
    """A hash of every file."""
    return {path: hashlib.blake2b(vfs.peek(path)).hexdigest() for path in vfs.files()}


def flip(vfs: SimVfs, path: str, offset: int, mask: int = 0x40) -> None:
    """Change one byte on the disk."""
    vfs.poke(path, offset, bytes([vfs.peek(path)[offset] ^ mask]))


async def refusal(client: Client, subject: str, request: Any = None) -> int:
    """The error code of an API request that must be refused."""
    try:
        answer = await client.api(subject, request if request is not None else {})
    except ApiFailure as failure:
        return failure.err_code
    raise AssertionError(f"{subject} was answered: {answer}")
