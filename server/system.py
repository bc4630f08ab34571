"""Who answers under ``$SYS.REQ``: subscriptions and tasks; the answers are made in ``server/monitor/system.py``.

That module is loaded with the first request: monitoring takes a fifth of the time of a start.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from random import Random
from typing import TYPE_CHECKING, Any, Final

import structlog

from jetstore.node.ports import Inbound, InternalSubscription
from server.net.connection import ClientConnection
from server.protocol.reasons import CloseReason
from server.route.router import Router

if TYPE_CHECKING:
    from server.monitor.ports import MonitorSource
    from server.monitor.system import SystemPages

log = structlog.get_logger("system")

WAITING_MAX: Final = 1024
"""Requests that wait; what comes on top is dropped without reply."""
_PAGES: Final = (
    *("IDZ", "STATSZ", "VARZ", "SUBSZ", "CONNZ", "ROUTEZ", "LEAFZ", "GATEWAYZ", "ACCOUNTZ", "JSZ", "HEALTHZ"),
)
_ABOUT_ACCOUNTS: Final = ("SUBSZ", "CONNZ", "LEAFZ", "JSZ", "INFO", "STATZ", "CONNS")
_PREFIX: Final = "$SYS.REQ.SERVER."
_ACCOUNT_PREFIX: Final = "$SYS.REQ.ACCOUNT."
_OWN: Final = {
    b"$SYS.REQ.SERVER.PING.CONNZ": "CONNZ",
    b"$SYS.REQ.ACCOUNT.PING.CONNZ": "CONNZ",
    b"$SYS.REQ.ACCOUNT.PING.STATZ": "STATZ",
}
"""What members of every account may ask, about their own."""
_OWN_PATTERN: Final = b"$SYS.REQ.*.PING.*"
USER_INFO: Final = b"$SYS.REQ.USER.INFO"
_USER_PATTERN: Final = b"$SYS.REQ.USER.*"
"""A pattern, so that an account without literal subscriptions stays one (``route/sublist.py``)."""
UNSHARED: Final = (_OWN_PATTERN, _USER_PATTERN)
"""Every node answers these to its own clients."""


class SystemServices:
    """See the module's docstring. ``start`` subscribes, ``close`` ends."""

    def __init__(
        self,
        server_id: str,
        system: Router,
        others: Iterable[Router],
        source: Callable[[], MonitorSource],
        connection: Callable[[int], ClientConnection | None],
        reload: Callable[[], str],
        rng: Random,
    ) -> None:
        """``connection``: the open one of a cid; ``reload`` reads the configuration again: "" or what is wrong."""
        self._server_id = server_id
        self._system = system
        self._others = list(others)
        self._source = source
        self._connection = connection
        self._reload = reload
        self._rng = rng
        self._pages: SystemPages | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._subscriptions: list[InternalSubscription] = []

    def start(self) -> None:
        """Begin to answer."""
        own = f"{_PREFIX}{self._server_id}."
        subjects = [f"{_PREFIX}PING", *(start + name for start in (f"{_PREFIX}PING.", own) for name in _PAGES)]
        subjects += [own + "RELOAD", own + "KICK", *(f"{_ACCOUNT_PREFIX}*.{name}" for name in _ABOUT_ACCOUNTS)]
        here = _Requests(self._system, self, is_system=True)
        self._subscriptions = [self._system.subscribe(subject.encode(), here) for subject in subjects]
        for router in (self._system, *self._others):
            requests = _Requests(router, self, is_system=router is self._system)
            self._subscriptions.append(router.subscribe(_USER_PATTERN, requests))
        for router in self._others:
            self._subscriptions.append(router.subscribe(_OWN_PATTERN, _Requests(router, self)))

    async def close(self) -> None:
        """Answer nothing more. Idempotent."""
        for subscription in self._subscriptions:
            subscription.close()
        self._subscriptions.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def pages(self) -> SystemPages:
        """What makes the answers."""
        if self._pages is None:
            from server.monitor.system import SystemPages

            self._pages = SystemPages(self._source(), self._rng)
        return self._pages

    def reloaded(self) -> None:
        """The options changed: answers show the new ones."""
        if self._pages is not None:
            self._pages.source = self._source()

    def take(self, router: Router, batch: Inbound) -> None:
        """A run of requests in one account."""
        for at, (subject, reply) in enumerate(zip(batch.subjects, batch.replies, strict=True)):
            if not reply or len(self._tasks) >= WAITING_MAX:
                continue
            header_len = batch.header_lens[at] if batch.header_lens else 0
            body = batch.payloads[at][header_len:]
            task = asyncio.get_running_loop().create_task(self._answer(router, subject, reply, body, batch.client))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("system request failed", error=repr(error), exc_info=error)

    async def _answer(self, router: Router, subject: bytes, reply: bytes, body: bytes, client: object) -> None:
        if subject == USER_INFO:
            if isinstance(client, ClientConnection):
                router.publish([reply], (), [self.pages.wrapped(user_info(client))])
            return
        text = subject.decode("utf-8", "replace")
        _, _, name = text.removeprefix(_PREFIX).partition(".")
        answer: bytes | None
        if router is not self._system:
            answer = await self.pages.answer_about(router.account, _OWN[subject], body, is_own=True)
        elif text.startswith(_ACCOUNT_PREFIX):
            account, _, name = text.removeprefix(_ACCOUNT_PREFIX).rpartition(".")
            answer = await self.pages.answer_about(account, name, body)
        elif name == "RELOAD":
            answer = self.pages.wrapped(None, self._reload())
        elif name == "KICK":
            answer = self.pages.wrapped(None, self._kick(body))
        else:
            answer = await self.pages.answer(name, body, is_ping=subject.startswith(b"$SYS.REQ.SERVER.PING"))
        if answer is not None:
            router.publish([reply], (), [answer])

    def _kick(self, body: bytes) -> str:
        """Close a connection; what is wrong, or "" if nothing is."""
        try:
            given = json.loads(body)
            cid = given["cid"] if isinstance(given, dict) else None
        except (ValueError, KeyError):
            cid = None
        connection = self._connection(cid) if isinstance(cid, int) else None
        if connection is None:
            return "no such client or leafnode id"
        connection.close(CloseReason.KICKED)
        return ""


class _Requests:
    """The handler of one account's subscriptions."""

    def __init__(self, router: Router, services: SystemServices, *, is_system: bool = False) -> None:
        self._router = router
        self._services = services
        self._is_system = is_system

    def on_messages(self, batch: Inbound) -> None:
        if self._is_system and not batch.subjects[0].startswith(b"$SYS.REQ.USER."):
            self._services.take(self._router, batch)
            return
        # A pattern, and not all that it matches is answered.
        for at, subject in enumerate(batch.subjects):
            if subject == USER_INFO or (not self._is_system and subject in _OWN):
                self._services.take(self._router, _one(batch, at))
            elif batch.replies[at]:
                self._refuse(subject, batch.replies[at], batch.client)

    def traced_to(self, subject: bytes) -> bytes:
        """On which subject a traced request counts as one to a service of the system account; b"" = as none."""
        if self._is_system:
            return b""
        return b"$SYS.REQ.USER.%b.INFO" % self._router.account.encode() if subject == USER_INFO else subject

    def _refuse(self, subject: bytes, reply: bytes, client: object) -> None:
        """Nobody answers this, unless somebody else subscribes to it."""
        match = self._router.sublist.match(subject)
        is_lonely = not (match.plain or match.queues or match.bridges or match.remotes)
        if is_lonely and isinstance(client, ClientConnection) and client.no_responders:
            status = b"NATS/1.0 503\r\nNats-Subject: %b\r\n\r\n" % subject
            self._router.publish([reply], [len(status)], [status])


def _one(batch: Inbound, at: int) -> Inbound:
    header_lens = batch.header_lens[at : at + 1]
    end = at + 1
    return Inbound(
        batch.subjects[at:end],
        batch.replies[at:end],
        header_lens,
        batch.payloads[at:end],
        batch.account,
        batch.client,
    )


def user_info(client: ClientConnection) -> dict[str, Any]:  # Any: JSON values
    """What ``$SYS.REQ.USER.INFO`` says about a client."""
    user = client.user
    shown: dict[str, Any] = {
        "user": user.shown_name or user.name,
        "account": client.account.name,
        "account_name": client.account.name,
    }
    if user.permissions is not None:
        shown["permissions"] = user.permissions.described()
    return shown
