"""A connection for tests of routers."""

from __future__ import annotations

from collections.abc import Callable

from server.route.subscription import Answers, Permits, Subscription
from server.route.tracing import MessageTrace


class FakeSink:
    """A connection that keeps its output."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.echo = True
        self.headers = True
        self.no_responders = False
        self.verbose = False
        self.is_closed = False
        self.subscriptions: dict[bytes, Subscription] = {}
        self.out_msgs = 0
        self.out_bytes = 0
        self.permits: Permits | None = None
        self.responses: Answers | None = None
        self.trace: MessageTrace | None = None
        self.out = b""
        self.pending = 0
        self.congested = False
        self.waiting: list[Callable[[], None]] = []
        self.info = b""

    def request_info(self, account: str, *, is_shared: bool) -> bytes:
        return b"%b of %b, shared: %d" % (self.info, account.encode(), is_shared) if self.info else b""

    def send(self, chunk: bytes) -> None:
        self.out += chunk

    def traced_as(self) -> tuple[int, str, str]:
        return 1, self.name, ""

    def take(self) -> bytes:
        out, self.out = self.out, b""
        return out

    def pending_bytes(self) -> int:
        return self.pending

    def when_writable(self, callback: Callable[[], None]) -> None:
        self.waiting.append(callback)

    def is_congested(self) -> bool:
        return self.congested
