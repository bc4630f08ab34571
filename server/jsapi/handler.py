"""``ApiHandler``: takes API requests off the router, answers them in order per stream, and audits them.

Theory of operation. Requests arrive as ``Inbound`` runs. Each is put in the lane of the stream it names (account-wide
ones share a lane); a lane is a queue with one task that lives while the queue is not empty, so requests for one
stream are answered in the order they came and streams do not wait for each other. At most
``limits.api_requests_max`` requests wait; what comes on top is dropped without reply, as nats-server does. Direct
gets have a lane of their own whose replies leave in one publish per run. A handler that fails in a way it should not
leaves its request unanswered (the outcome is unknown), is logged, and the lane goes on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING, Final

import structlog

from jetstore.clock import Clock
from jetstore.errors import ApiError, Corruption, DiskFull, NotNow, OperatingError, OutcomeUnknown
from jetstore.limits import Limits
from jetstore.model.api_errors import api_error, error_json
from jetstore.model.infos import ApiStats
from jetstore.model.json import encode
from jetstore.model.levels import API_LEVEL
from jetstore.model.names import Dice, unique_id
from jetstore.model.server_limits import ServerLimits
from jetstore.model.times import format_time
from jetstore.node.advisories import in_domain
from jetstore.node.ports import Inbound, InboundHandler, InternalSubscription, Outlet
from server.jsapi.direct import Replies, direct_get, status_header
from server.jsapi.ports import JetStreamNode
from server.jsapi.request import Backend, JsonDict, Request
from server.jsapi.table import (
    DIRECT_PATTERN,
    SUBSCRIBED,
    SYSTEM_SUBSCRIBED,
    Endpoint,
    find_endpoint,
    needs_cluster,
)

if TYPE_CHECKING:
    from server.jsapi.elsewhere import Elsewhere, PassOn

log = structlog.get_logger("jsapi")

AUDIT_SUBJECT: Final = b"$JS.EVENT.ADVISORY.API"
LEVEL_HEADER: Final = b"Nats-Required-Api-Level"
_TYPE: Final = "io.nats.jetstream.api.v1.{}_response"
_REPLIES_AT_ONCE: Final = 256
_DIRECT_PREFIX: Final = DIRECT_PATTERN.removesuffix(">").encode()
TURN_S: Final = 0.005
"""Answers that need no waiting follow each other for about this long; then everything else of the event loop comes."""


class ApiHandler:
    """The JetStream API of one account. ``start`` subscribes, ``close`` ends; counters are plain ints."""

    def __init__(
        self,
        node: JetStreamNode,
        outlet: Outlet,
        clock: Clock,
        dice: Dice,
        limits: Limits,
        *,
        server_name: str,
        client_info: Callable[[object], JsonDict],
        server_limits: ServerLimits | None = None,
        is_strict: bool = True,
        is_system: bool = False,
        is_refusing: bool = False,
        elsewhere: Elsewhere | None = None,
        pass_on: PassOn = lambda node_id, batch, hops: False,
        of_account: Callable[[str], JetStreamNode | None] = lambda account: None,
        on_dropped: Callable[[int], None] = lambda count: None,
    ) -> None:
        """``is_system``: for the system account, which has an API of its own and asks for those ``of_account``.

        ``is_refusing``: for an account without JetStream. ``elsewhere``: there are other nodes. ``on_dropped`` hears
        how many requests of a run found no room among those that wait: they get no answer.
        """
        self.total = 0
        """Answered requests as nats-server counts them: without direct gets, messages got, and resets."""
        self.errors = 0
        self.dropped = 0
        self._outlet = outlet
        self._limits = limits
        self._client_info = client_info
        self._is_system = is_system
        self._is_refusing = is_refusing
        self._on_dropped = on_dropped
        self._elsewhere = elsewhere
        self._pass_on = pass_on
        self._backend = Backend(
            node,
            clock,
            dice,
            server_name,
            server_limits or ServerLimits(),
            self.stats,
            client_info,
            is_strict,
            elsewhere,
            outlet.domain,
            of_account,
        )
        self._lanes: dict[str, deque[tuple[Endpoint, Request]]] = {}
        self._direct: deque[Request] = deque()
        self._waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._subscriptions: list[InternalSubscription] = []
        self._is_closed = False
        self._turn_ends_s = 0.0
        """Loop time at which the lanes, all together, let go."""

    def stats(self) -> ApiStats:
        """The counters as infos and monitoring show them; the request being answered is not among them."""
        return ApiStats(self.total, self.errors, self._waiting)

    def start(self) -> None:
        """Begin to answer."""
        patterns = SYSTEM_SUBSCRIBED if self._is_system else SUBSCRIBED
        self._subscriptions = [self._outlet.subscribe(pattern.encode(), self) for pattern in patterns]
        if not (self._is_system or self._is_refusing):
            direct: InboundHandler = _DirectInbound(self)
            self._subscriptions.append(self._outlet.subscribe(DIRECT_PATTERN.encode(), direct))

    async def close(self) -> None:
        """Stop answering; requests that wait get no reply. Idempotent."""
        self._is_closed = True
        self.leave()
        self._lanes.clear()
        self._direct.clear()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def leave(self) -> None:
        """Take no more requests; what is under way comes to its end. Idempotent."""
        for subscription in self._subscriptions:
            subscription.close()
        self._subscriptions.clear()

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way."""
        return not self._tasks

    # -- intake ---------------------------------------------------------------------------------------------------

    def on_messages(self, batch: Inbound) -> None:
        """A run of API requests. Unknown subjects are swallowed."""
        here = self._left_here(batch, 0)
        if here is not None:
            self._take(here)

    def traced_to(self, subject: bytes) -> bytes:
        """On which subject a traced request counts as one to a service of the system account; b"" = as none."""
        return b"" if self._is_system else subject

    def on_passed_on(self, batch: Inbound, hops: int) -> None:
        """Requests that other nodes passed on; direct gets come in runs of their own."""
        here = self._left_here(batch, hops)
        if here is None or self._is_closed:
            return
        if here.subjects[0].startswith(_DIRECT_PREFIX):
            self._take_direct(here)
        else:
            self._take(here)

    def _left_here(self, batch: Inbound, hops: int) -> Inbound | None:
        if self._elsewhere is None:
            return batch
        return self._elsewhere.pass_on(batch, hops, self._pass_on, is_system=self._is_system)

    def _take(self, batch: Inbound) -> None:
        dropped = self.dropped
        for i, request in enumerate(_requests(batch)):
            found = find_endpoint(batch.subjects[i].decode("utf-8", "replace"), is_system=self._is_system)
            if found is None:
                continue
            if self._waiting >= self._limits.api_requests_max:
                self.dropped += 1
                continue
            endpoint, names = found
            self._waiting += 1
            lane = names[0] if names else ""
            queue = self._lanes.get(lane)
            if queue is None:
                queue = self._lanes[lane] = deque()
                self._spawn_lane(lane)
            queue.append((endpoint, _with_names(request, names)))
        if self.dropped > dropped:
            self._on_dropped(self.dropped - dropped)

    def on_direct(self, batch: Inbound) -> None:
        """A run of direct gets."""
        here = self._left_here(batch, 0)
        if here is not None:
            self._take_direct(here)

    def _take_direct(self, batch: Inbound) -> None:
        was_idle = not self._direct
        dropped = self.dropped
        for i, request in enumerate(_requests(batch)):
            if self._waiting + len(self._direct) >= self._limits.api_requests_max:
                self.dropped += 1
                continue
            tokens = batch.subjects[i].decode("utf-8", "replace").split(".")
            self._direct.append(_with_names(request, tuple(tokens[4:])))
        if self.dropped > dropped:
            self._on_dropped(self.dropped - dropped)
        if was_idle and self._direct:
            self._own(self._answer_direct(), lambda: self._restart_direct())

    def _spawn_lane(self, lane: str) -> None:
        self._own(self._answer_lane(lane), lambda: self._restart_lane(lane))

    def _own(self, work: Coroutine[None, None, None], restart: Callable[[], None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if task.cancelled() or self._is_closed:
                return
            error = task.exception()
            if error is not None:
                log.error("api request failed", error=repr(error), exc_info=error)
                restart()

        task.add_done_callback(done)

    def _restart_lane(self, lane: str) -> None:
        if self._lanes.get(lane):
            self._spawn_lane(lane)
        else:
            self._lanes.pop(lane, None)

    def _restart_direct(self) -> None:
        if self._direct:
            self._own(self._answer_direct(), lambda: self._restart_direct())

    # -- answering ------------------------------------------------------------------------------------------------

    async def _answer_lane(self, lane: str) -> None:
        queue = self._lanes[lane]
        confirmed = 0
        """Reads, from the next one on, that had come before it was sure that this node leads the stream."""
        while queue:
            endpoint, request = queue.popleft()
            self._waiting -= 1
            if endpoint.confirms and not confirmed and queue:
                confirmed = await self._confirm_run(request, queue)
            if confirmed:
                confirmed -= 1
                request = replace(request, is_confirmed=True)
            await self._answer(endpoint, request)
            if queue:
                await self._let_others()
        self._lanes.pop(lane, None)

    async def _confirm_run(self, first: Request, queue: deque[tuple[Endpoint, Request]]) -> int:
        """Make sure once for a read and those right behind it that this node leads; for how many that holds."""
        count = 1 + sum(1 for _ in takewhile(lambda waiting: waiting[0].confirms, queue))
        return count if count > 1 and await self._backend.node.confirm(first.names[0]) else 0

    async def _let_others(self) -> None:
        """Let the event loop do everything else if this turn of it has lasted long enough."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._turn_ends_s:
            return
        await asyncio.sleep(0)
        now_s = loop.time()
        if now_s >= self._turn_ends_s:  # the first lane of the new turn; the others go on within its time
            self._turn_ends_s = now_s + TURN_S

    async def _answer(self, endpoint: Endpoint, request: Request) -> None:
        try:
            _check_level(request)
            if self._is_refusing and not needs_cluster(endpoint):
                raise api_error("JSNotEnabledForAccountErr")
            fields = await endpoint.handler(self._backend, request)
        except OperatingError as error:
            if not isinstance(error, DiskFull):
                log.error("api request without a known outcome", subject=request.subject.decode(), error=repr(error))
                return
            self._reply(endpoint, request, None, api_error("JSInsufficientResourcesErr"))
        except ApiError as error:
            self._reply(endpoint, request, None, error)
        except OutcomeUnknown:
            return  # it may still come about: whoever asked is told nothing definite
        except NotNow:
            self._reply(endpoint, request, None, api_error("JSClusterNotAvailErr"))
        except Corruption as error:
            self._reply(endpoint, request, None, api_error("JSStreamGeneralErrorF", err=error))
        else:
            if fields is not None:
                self._reply(endpoint, request, fields, None)

    def _reply(self, endpoint: Endpoint, request: Request, fields: JsonDict | None, error: ApiError | None) -> None:
        is_create = endpoint.words == "STREAM.INFO" and request.header_value(b"Nats-Response-Type") == b"create"
        body: JsonDict = {"type": _TYPE.format("stream_create" if is_create else endpoint.response)}
        if error is not None:
            body["error"] = error_json(error)
            body.update(endpoint.on_error)
        else:
            body.update(fields or {})
        payload = encode(body)
        if request.reply:
            self._outlet.publish([request.reply], (), [payload])
        if endpoint.is_tracked and (error is not None or endpoint.audits_success):
            self.total += 1
            self.errors += error is not None
            if self._outlet.has_interest(AUDIT_SUBJECT):
                self._audit(request, payload)

    def _audit(self, request: Request, response: bytes) -> None:
        advisory: JsonDict = {
            "type": "io.nats.jetstream.advisory.v1.api_audit",
            "id": unique_id(self._backend.dice),
            "timestamp": format_time(self._backend.clock.wall_ns()),
            "server": self._backend.server_name,
            "client": self._client_info(request.client),
            "subject": request.subject.decode("utf-8", "replace"),
        }
        if request.body:
            advisory["request"] = request.body.decode("utf-8", "replace")
        advisory["response"] = response.decode()
        advisory |= in_domain(self._outlet)
        self._outlet.publish([AUDIT_SUBJECT], (), [encode(advisory)])

    async def _answer_direct(self) -> None:
        queue, replies = self._direct, Replies()
        try:
            while queue:
                # Left in the queue until answered: a run that arrives meanwhile must not start a second task.
                request = queue[0]
                try:
                    if _is_level_too_high(request):
                        replies.add(request.reply, status_header("412 Required Api Level"))
                    else:
                        await direct_get(self._backend, request, replies)
                finally:
                    if queue:
                        queue.popleft()
                is_long = asyncio.get_running_loop().time() >= self._turn_ends_s
                if len(replies.subjects) >= _REPLIES_AT_ONCE or is_long:
                    self._send(replies)
                    replies = Replies()
                if queue and is_long:
                    await self._let_others()
        finally:
            self._send(replies)

    def _send(self, replies: Replies) -> None:
        wanted = [i for i, subject in enumerate(replies.subjects) if subject]
        if not wanted or self._is_closed:
            return
        self._outlet.publish(
            [replies.subjects[i] for i in wanted],
            [replies.header_lens[i] for i in wanted],
            [replies.payloads[i] for i in wanted],
        )


class _DirectInbound:
    """The direct gets' side of an ``ApiHandler``."""

    def __init__(self, handler: ApiHandler) -> None:
        self._handler = handler

    def on_messages(self, batch: Inbound) -> None:
        self._handler.on_direct(batch)


def _requests(batch: Inbound) -> list[Request]:
    has_headers = bool(batch.header_lens)
    requests = []
    for i, subject in enumerate(batch.subjects):
        payload = batch.payloads[i]
        header_len = batch.header_lens[i] if has_headers else 0
        requests.append(
            Request(subject, (), batch.replies[i], payload[:header_len], payload[header_len:], batch.client)
        )
    return requests


def _with_names(request: Request, names: tuple[str, ...]) -> Request:
    return Request(request.subject, names, request.reply, request.header, request.body, request.client)


def _is_level_too_high(request: Request) -> bool:
    asked = request.header_value(LEVEL_HEADER) if request.header else b""
    if not asked:
        return False
    return not (asked.isdigit() and len(asked) < 10 and int(asked) <= API_LEVEL)


def _check_level(request: Request) -> None:
    if _is_level_too_high(request):
        raise api_error("JSRequiredApiLevelErr")
