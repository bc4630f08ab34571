"""Keeps one connection of one purpose to one configured address: dials, pauses (longer and longer, jittered), dials.

It does not dial while the node that lives at its address is connected anyway, by whoever dialled. Refusals are no
reason to stop: an operator may mend them on the other side. An address that turns out to be this node itself is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import structlog

from jetstore.limits import Limits
from jetstore.node.link.hello import Purpose
from jetstore.node.link.link import ALREADY_CONNECTED, Link
from jetstore.node.link.ports import Route

log = structlog.get_logger(__name__)

_REPORT_EVERY = 60
"""Of the attempts that fail in a row, the first and then each this many are logged."""


@dataclass(slots=True)
class Target:
    """A configured address, shared by its two diallers."""

    route: Route
    node_id: str = ""
    """Who was last found there."""
    is_self: bool = False


class Dialler:
    """One task; ``stop`` ends it."""

    def __init__(
        self,
        target: Target,
        purpose: Purpose,
        *,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        rng: Random,
        make_link: Callable[[Purpose, Route], Link],
        connect: Callable[[Callable[[], Link], Route], Awaitable[Any]],
        is_served: Callable[[str, Purpose], bool],
    ) -> None:
        """``is_served(node_id, purpose)``: there is such a connection; ``wake`` is called when one goes or comes."""
        self.target = target
        self.purpose = purpose
        self.failures = 0
        """In a row."""
        self._loop = loop
        self._limits = limits
        self._rng = rng
        self._make_link = make_link
        self._connect = connect
        self._is_served = is_served
        self._changed = asyncio.Event()
        self._link: Link | None = None
        self._task = loop.create_task(self._run())

    def wake(self) -> None:
        """Something has changed: look again (the pause after a failure still counts)."""
        self._changed.set()

    async def stop(self) -> None:
        """Dial no more; a connection that is up stays."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        target = self.target
        while not target.is_self:
            if self._is_wanted():
                link = await self._dial()
                if target.is_self:
                    log.info("route leads to this node itself", route=str(target.route))
                    return
                if link is not None:
                    await link.closed
                    lived_s = self._loop.time() - link.up_since_s
                    self.failures = 0 if lived_s > self._limits.link_reconnect_max_s else self.failures + 1
                await asyncio.sleep(self._pause_s())
            else:
                self._changed.clear()
                await self._changed.wait()

    def _is_wanted(self) -> bool:
        if self.target.node_id:
            return not self._is_served(self.target.node_id, self.purpose)
        return self.purpose is Purpose.RAFT  # it finds out who is there, for both

    def _pause_s(self) -> float:
        limits = self._limits
        pause_s: float = min(limits.link_reconnect_max_s, limits.link_reconnect_min_s * 2 ** min(self.failures, 20))
        return pause_s * self._rng.uniform(0.5, 1.0)

    async def _dial(self) -> Link | None:
        """A connection that is up; None: there is none, and it was said why."""
        route = self.target.route
        link: Link | None = None

        def make() -> Link:
            nonlocal link
            link = self._make_link(self.purpose, route)
            return link

        try:
            async with asyncio.timeout(self._limits.link_hello_timeout_s):
                await self._connect(make, route)
                assert link is not None
                reason = await asyncio.shield(link.settled)
        except (OSError, TimeoutError, ValueError) as error:  # ValueError: no name of a host
            reason = str(error) or type(error).__name__
        except asyncio.CancelledError:
            if link is not None:
                link.abort("this node stops")
            raise
        if link is not None and reason:
            link.abort(reason)
        if not reason:
            return link
        if reason == ALREADY_CONNECTED:
            return None
        if self.failures % _REPORT_EVERY == 0 and not self.target.is_self:
            log.warning("cannot connect to a route", route=str(route), purpose=self.purpose.name.lower(), reason=reason)
        self.failures += 1
        return None
