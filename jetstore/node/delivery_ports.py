"""What delivering to consumers needs of the group driver, as Protocols."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from jetstore.clock import Clock
from jetstore.consumer.state import ConsumerState
from jetstore.errors import Corruption
from jetstore.limits import Limits
from jetstore.store.ports import MessageLog


class LedStream(Protocol):
    """The applied state of the stream this node leads (``jetstore.stream.stream.Stream``)."""

    @property
    def name(self) -> str: ...
    @property
    def consumers(self) -> Mapping[str, ConsumerState]: ...
    @property
    def log(self) -> MessageLog: ...
    def next_time_ns(self, now_ns: int, count: int = 1) -> int:
        """A time for an entry: now, or just after every time given before."""


class StreamLeader(Protocol):
    """The group driver of a stream, leading."""

    @property
    def stream(self) -> LedStream: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    def propose(self, data: bytes, cache: object = None) -> asyncio.Future[Any]:  # Any: an outcome of apply
        """Done after commit and apply, with an object whose ``result`` is what the consumer's apply returned.

        Raises NotNow, or fails with it, if nothing was proposed. Never done if the outcome stays unknown.
        """

    def note_damage(self, error: Corruption) -> None:
        """Stored messages turned out to be unreadable."""


class Sink(Protocol):
    """Who gets messages: a pull request, or the push consumer's deliver subject."""

    @property
    def target(self) -> bytes: ...
