"""Read errors during one start cost nothing: what the device shows again at the next start is all there."""

from __future__ import annotations

import errno
from random import Random

import pytest
from damaged_store import ACKED, LIMITS, body, put, small_store

from jepsen.sim.client import Client
from jepsen.sim.command import quiet
from jepsen.sim.vfs import SimVfs
from jepsen.sim.world import World

CHECKPOINTED, ABOVE = 12, 8
READS_MAX = 200
"""No start of this store makes more."""


async def check_whole(client: Client) -> None:
    for number in range(1, CHECKPOINTED + ABOVE + 1):
        got = await client.api("STREAM.MSG.GET.S", {"seq": number})
        assert got["message"]["seq"] == number
    direct = await client.request("$JS.API.DIRECT.GET.S", b'{"seq":%d}' % CHECKPOINTED)
    assert direct.data == body(CHECKPOINTED)
    info = await client.api("CONSUMER.INFO.S.C")
    assert info["ack_floor"]["stream_seq"] == ACKED
    others = await client.api("STREAM.INFO.OTHER")
    assert others["state"]["messages"] == 3
    await put(client, CHECKPOINTED + ABOVE + 1, CHECKPOINTED + ABOVE + 2)


def start_with_errors(store: SimVfs, pattern: str, nth: int, *, sticky: bool) -> bool:
    """Start over a copy of the store while reads fail, then again while none does; whether one failed."""
    world = World(Random(nth), limits=LIMITS)
    machine = world.machine
    try:
        machine.vfs = store.clone()
        machine.vfs.kill()
        machine.disk_error("pread", pattern, errno.EIO, nth, sticky)
        met = False

        async def main() -> None:
            nonlocal met
            machine.power_on()
            await machine.ready(1.0)
            met = bool(machine.vfs.fault_counts)
            machine.heal_disk()
            machine.kill(0.1)
            await check_whole(await world.up())

        world.run(main())
    finally:
        world.close()
    assert world.loop.failures == [], world.loop.failures
    return met


@pytest.mark.parametrize("pattern", ["*", "journal/*", "groups/*", "IDENTITY*"])
@pytest.mark.parametrize("sticky", [True, False])
def test_nothing_is_missing_afterwards(pattern: str, sticky: bool) -> None:
    quiet()
    store = small_store(CHECKPOINTED, ABOVE)
    nth = 1
    while start_with_errors(store, pattern, nth, sticky=sticky):
        nth += 1
    assert 1 < nth < READS_MAX
