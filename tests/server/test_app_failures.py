"""An error nobody expected stops the node; it does not go on half done, and it does not hang."""

from __future__ import annotations

import asyncio

import pytest

from server import run
from server.app import Server
from server.config.options import Options
from server.surroundings import Surroundings


async def failing_start(self: Server, host: str | None = None) -> int:
    """A start whose work fails in a callback, so that whoever waits for it waits for ever."""
    del self, host

    def fail() -> None:
        raise RuntimeError("half done")

    loop = asyncio.get_running_loop()
    loop.call_soon(fail)
    return int(await loop.create_future())


def test_an_unexpected_error_in_a_callback_ends_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Server, "start", failing_start)
    around = Surroundings(Options, lambda options: None, lambda: None, lambda path: None)
    assert asyncio.run(asyncio.wait_for(run.serve(Options(), around), 20)) == 1
