"""Mirrors, sources and schedules over a kill: what was copied stays, the rest follows, nothing comes twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest
from test_sessions import Session

from jepsen.real.process import JETSTORE, ServerProcess

STREAMS = (
    {"name": "O", "subjects": ["o.>"]},
    {"name": "M", "mirror": {"name": "O"}},
    {"name": "S", "sources": [{"name": "O", "filter_subject": "o.1"}]},
    {"name": "H", "subjects": ["h.>"], "allow_msg_schedules": True},
)


async def _last(session: Session, stream: str) -> dict[str, int]:
    ((_, _, body),) = await session.ask(1, f"$JS.API.STREAM.INFO.{stream}")
    state: dict[str, int] = json.loads(body)["state"]
    return state


async def _round(port: int, number: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await reader.readline()
    writer.write(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nSUB in.* 1\r\n')
    session = Session(reader, writer)
    async with asyncio.timeout(30):
        for config in STREAMS if not number else ():
            await session.ask(1, f"$JS.API.STREAM.CREATE.{config['name']} {json.dumps(config)}")
        if not number:
            await session.ask(1, "h.s x | Nats-Schedule: @every 1s | Nats-Schedule-Target: h.t")
        fired = (await _last(session, "H"))["last_seq"]
        for at in range(50):
            await session.ask(1, f"o.{at % 2} {at}")
        for stream, count in (("M", 50 * (number + 1)), ("S", 25 * (number + 1)), ("H", fired + 1)):
            while (await _last(session, stream))["last_seq"] < count:  # noqa: ASYNC110 - another process does it
                await asyncio.sleep(0.02)
        assert (await _last(session, "M"))["messages"] == 50 * (number + 1)
        assert (await _last(session, "S"))["messages"] == 25 * (number + 1)
        if number:  # an origin made anew is copied from its start
            await session.ask(1, "$JS.API.STREAM.DELETE.O")
            await session.ask(1, f"$JS.API.STREAM.CREATE.O {json.dumps(STREAMS[0])}")
            await session.ask(1, "o.1 new")
            while (await _last(session, "S"))["messages"] < 25 * (number + 1) + 1:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.02)
    writer.close()
    await writer.wait_closed()


@pytest.mark.real
def test_copying_goes_on_after_a_kill(start_server: Callable[..., ServerProcess]) -> None:
    process = start_server(JETSTORE)
    asyncio.run(_round(process.port, 0))
    process.kill()
    process.start()
    asyncio.run(_round(process.port, 1))
