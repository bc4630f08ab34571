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

from jetstore.model.subjects import is_subset
from jetstore.node.ports import Inbound, InternalSubscription
from jetstore.stream.headers import PLAIN_START, REQUEST_INFO, value
from server.net.connection import ClientConnection
from server.protocol.encoding import ACCEPT_ENCODING, compressed
from server.protocol.reasons import CloseReason
from server.route.router import Router
from server.route.sublist import has_wildcard

if TYPE_CHECKING:
    from server.monitor.ports import MonitorSource
    from server.monitor.system import SystemPages

log = structlog.get_logger("system")

WAITING_MAX: Final = 1024
"""Requests that wait; what comes on top is dropped without reply."""
_PAGES: Final = (
    *("IDZ", "STATSZ", "VARZ", "SUBSZ", "CONNZ", "ROUTEZ", "LEAFZ", "GATEWAYZ", "ACCOUNTZ", "JSZ", "HEALTHZ"),
)
_NEVER_ENCODED: Final = frozenset(("", "IDZ", "STATSZ"))
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
SUBSCRIBERS: Final = "$SYS.DEBUG.SUBSCRIBERS"
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
        self._members: dict[Router, list[InternalSubscription]] = {}
        """For what members of an account may ask."""

    def start(self) -> None:
        """Begin to answer."""
        own = f"{_PREFIX}{self._server_id}."
        subjects = [f"{_PREFIX}PING", *(start + name for start in (f"{_PREFIX}PING.", own) for name in _PAGES)]
        subjects += [
            own + "RELOAD",
            own + "KICK",
            own + "LDM",
            SUBSCRIBERS,
            *(f"{_ACCOUNT_PREFIX}*.{name}" for name in _ABOUT_ACCOUNTS),
        ]
        here = _Requests(self._system, self, is_system=True)
        self._subscriptions = [self._system.subscribe(subject.encode(), here) for subject in subjects]
        for router in (self._system, *self._others):
            requests = _Requests(router, self, is_system=router is self._system)
            self._members[router] = [router.subscribe(_USER_PATTERN, requests)]
        for router in self._others:
            self._members[router].append(router.subscribe(_OWN_PATTERN, _Requests(router, self)))

    def add(self, router: Router) -> None:
        """One more account: its members may ask, too."""
        self._others.append(router)
        requests = _Requests(router, self)
        self._members[router] = [router.subscribe(pattern, requests) for pattern in (_USER_PATTERN, _OWN_PATTERN)]

    def remove(self, router: Router) -> None:
        """Nobody asks there any more."""
        self._others.remove(router)
        for subscription in self._members.pop(router):
            subscription.close()

    async def close(self) -> None:
        """Answer nothing more. Idempotent."""
        for subscription in (*self._subscriptions, *(each for own in self._members.values() for each in own)):
            subscription.close()
        self._subscriptions.clear()
        self._members.clear()
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
            cut = batch.header_lens[at] if batch.header_lens else 0
            header, body = batch.payloads[at][:cut], batch.payloads[at][cut:]
            answering = self._answer(router, subject, reply, header, body, batch.client)
            task = asyncio.get_running_loop().create_task(answering)
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("system request failed", error=repr(error), exc_info=error)

    async def _answer(
        self, router: Router, subject: bytes, reply: bytes, header: bytes, body: bytes, client: object
    ) -> None:
        if subject == SUBSCRIBERS.encode():
            asking = self._asking(header)
            if asking is not None:
                router.publish([reply], (), [b"%d" % subscribers(asking, body.decode("utf-8", "replace"))])
            return
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
        elif name in ("KICK", "LDM"):
            cid = _cid(body)
            if cid is None:
                return
            answer = self.pages.wrapped(None, self._kick(cid) if name == "KICK" else self._send_away(cid))
        else:
            answer = await self.pages.answer(name, body, is_ping=subject.startswith(b"$SYS.REQ.SERVER.PING"))
        if answer is not None:
            encoding, answer = _encoded(header, answer) if name not in _NEVER_ENCODED else (b"", answer)
            block = b"%bContent-Encoding: %b\r\n\r\n" % (PLAIN_START, encoding) if encoding else b""
            router.publish([reply], [len(block)] if block else (), [block + answer])

    def _asking(self, header: bytes) -> Router | None:
        """The account that asks through an import, else the system account."""
        told = value(header, REQUEST_INFO) if header else b""
        if not told:
            return self._system
        try:
            info = json.loads(told)
        except ValueError:
            return None
        name = (info.get("svc") or info.get("acc")) if isinstance(info, dict) else None
        return next((router for router in (self._system, *self._others) if router.account == name), None)

    def _kick(self, cid: int) -> str:
        """Close a connection; what is wrong, or "" if nothing is."""
        connection = self._connection(cid)
        if connection is None:
            return "no such client or leafnode id"
        connection.close(CloseReason.KICKED)
        return ""

    def _send_away(self, cid: int) -> str:
        """Tell a client to go elsewhere, as a lame duck does; what is wrong, or "" if nothing is."""
        connection = self._connection(cid)
        if connection is None:
            return "no such client id"
        if not connection.send_lame_duck():
            return "client does not support Lame Duck Mode or is not ready to receive the notification"
        return ""


def _cid(body: bytes) -> int | None:
    """The connection that a request means (0: none); None: it is no such request."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        return None
    cid = given.get("cid", 0) if isinstance(given, dict) else None
    return cid if isinstance(cid, int) and not isinstance(cid, bool) else None


def subscribers(router: Router, text: str) -> int:
    """How many clients' subscriptions of an account get a subject, or are within a pattern; of one queue, if named."""
    wanted, _, queue = text.strip().partition(" ")
    subject = wanted.encode()
    if has_wildcard(subject):
        found = [each for each in router.sublist.all() if is_subset(each.subject.decode("utf-8", "replace"), wanted)]
    else:
        match = router.sublist.match(subject)
        found = [*match.plain, *(member for _, members in match.queues for member in members)]
    return sum(each.sink is not None and (not queue or each.queue == queue.encode()) for each in found)


def _encoded(header: bytes, answer: bytes) -> tuple[bytes, bytes]:
    """An answer as the request wants it; errors stay as they are."""
    wanted = value(header, ACCEPT_ENCODING) if header else b""
    if not wanted or b'"error":{"code":' in answer:
        return b"", answer
    return compressed(wanted.decode("utf-8", "replace"), answer)


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
