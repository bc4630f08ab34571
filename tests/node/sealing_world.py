"""Plain stores that get a key, with deaths on the way; and what their disks show."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from random import Random
from typing import Any

from damaged_store import ACKED, LIMITS, body, create, play_over, put, small_store, take

from jepsen.sim.client import Client
from jepsen.sim.command import quiet
from jepsen.sim.encryption import COST, Secrets
from jepsen.sim.vfs import SimVfs
from jepsen.sim.world import World
from jetstore.limits import KIB, Limits
from jetstore.node.sealing import Sealing
from jetstore.store.key_file import read_keys
from jetstore.store.keys import Cipher, Encryption, Keys

STORED, ALL = 70, 80
FEW = 15
ROOMY = replace(LIMITS, journal_group_bytes=64 * KIB)
"""Nothing is checkpointed because of what there is above the last time."""
WORDS = (b"OTHER", b"durable_name", b"......", b"Header-Of-Mine", b"a description")
SUBJECTS = (b"s.0", b"s.1", b"s.2", b"o.1")
"""So short that random bytes may be the same: for one look, not for many."""
CONFIG = {"description": "a description", "max_msgs_per_subject": 100, "metadata": {"Header-Of-Mine": "x"}}


class Given(Secrets):
    """The same at each start."""

    def __init__(self, secret: str = "s3cret", cipher: Cipher | None = None, previous: str = "") -> None:
        super().__init__(Random(1))
        self._encryption = Encryption(secret, cipher, previous, COST)

    def given(self) -> Encryption:
        return self._encryption


class NoSecret(Secrets):
    """The operator took the key out of the configuration."""

    def __init__(self) -> None:
        super().__init__(Random(1))

    def given(self) -> Encryption | None:  # type: ignore[override]
        return None


def plain_store() -> SimVfs:
    """As ``small_store``: segments and checkpoints, an index, consumers, and more in the journal; nothing sealed."""
    return small_store(STORED, ALL - STORED, config=CONFIG)


def plain_journal() -> SimVfs:
    """``FEW`` messages, and the consumer, that are in the journal only."""

    async def story(_: World, client: Client) -> None:
        await create(client, CONFIG)
        await put(client, 1, FEW)
        await take(client, ACKED)
        await asyncio.sleep(1)  # the idle block

    return play_over(None, story, limits=ROOMY)[0]


def shows(vfs: SimVfs, words: tuple[bytes, ...] = WORDS) -> dict[bytes, list[str]]:
    """Words of what is stored, with the files in which they stand."""
    found = {word: [path for path in vfs.files() if word in vfs.peek(path)] for word in words}
    return {word: paths for word, paths in found.items() if paths}


def keys_of(vfs: SimVfs, given: Secrets | None = None) -> Keys:
    """The store's, read from its files."""
    keys = read_keys(vfs, (given or Given()).given(), Random(1).randbytes)
    assert keys is not None
    return keys


def sealing(world: World, machine: int = 0) -> Sealing:
    """Of a running server."""
    boot = world.machines[machine].boot
    assert boot is not None
    return boot.server.node.sealing  # type: ignore[no-any-return]


async def sealed(world: World, machine: int = 0) -> None:
    """Wait until nothing plain is left."""
    for _ in range(600):
        if not sealing(world, machine).is_due:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(sealing(world, machine).reasons)


async def check_all(client: Client, last: int = ALL) -> None:
    """All messages and the consumer are there."""
    state = (await client.api("STREAM.INFO.S"))["state"]
    assert (state["messages"], state["last_seq"]) == (last, last)
    for seq in range(1, last + 1):
        message = (await client.api("STREAM.MSG.GET.S", {"seq": seq}))["message"]
        assert (message["subject"], base64.b64decode(message["data"])) == (f"s.{seq % 3}", body(seq))
    info = await client.api("CONSUMER.INFO.S.C")
    assert info["ack_floor"]["stream_seq"] == ACKED
    assert (await client.api("STREAM.INFO.OTHER"))["state"]["messages"] == 3


def convert(vfs: SimVfs, given: Secrets | None = None, last: int = ALL, limits: Limits = LIMITS) -> SimVfs:
    """The same store, encrypted."""

    async def story(world: World, client: Client) -> None:
        await sealed(world)
        await check_all(client, last)

    return play_over(vfs, story, secrets=given or Given(), limits=limits)[0]


def cut(vfs: SimVfs, at: int, given: Secrets | None = None) -> SimVfs:
    """The disk after a power cut at the ``at``-th disk operation from the start on, if it comes to that."""
    quiet()
    world = World(Random(at), limits=LIMITS)
    machine = world.machine
    machine.secrets = given or Given()
    left: list[SimVfs] = []
    try:
        machine.change_disk(vfs.clone(), is_own=True)
        machine.vfs.kill()
        machine.crash_at_disk_operation(at, 1e6)

        async def main() -> None:
            machine.power_on()
            for _ in range(600):
                if machine.boot is None:
                    break
                await asyncio.sleep(0.1)
                boot = machine.boot
                if boot is not None and boot.is_ready and not boot.server.node.sealing.is_due:
                    break

        world.run(main())
        left.append(machine.vfs.clone())
    finally:
        world.close()
    assert world.loop.failures == [], world.loop.failures
    return left[0]


def operations(vfs: SimVfs, given: Secrets | None = None) -> int:
    """How many disk operations the whole of it takes, about."""
    counted: list[int] = []

    async def story(world: World, _: Client) -> Any:
        await sealed(world)
        counted.append(world.machine.vfs.boundaries)

    play_over(vfs, story, secrets=given or Given())
    return counted[0] - vfs.boundaries


def put_file(vfs: SimVfs, path: str, content: bytes) -> None:
    """The file holds this, durably."""
    if "/" in path:
        vfs.mkdir(path.rpartition("/")[0])
    handle = vfs.open(path, create=True)
    vfs.truncate(handle, 0)
    vfs.pwrite(handle, [content], 0)
    vfs.fsync(handle)
    vfs.close(handle)
    vfs.fsync_dir(path.rpartition("/")[0])
