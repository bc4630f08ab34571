"""Priority groups of a pull consumer: which of the waiting requests may be served now.

*overflow*: a request with thresholds is served only above one of them. *pinned_client*: one client, named by an id that
its deliveries carry, is served; the others stand by. *prioritized*: the lowest number first. All of it is the
leader's own and not in the log: with another leader somebody else gets pinned.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from random import Random
from typing import TYPE_CHECKING, Protocol

from jetstore.model.consumer import ConsumerConfig, PriorityPolicy
from jetstore.model.infos import PriorityGroupState
from jetstore.node.advisories import nuid

if TYPE_CHECKING:
    from jetstore.node.pull_request import PullRequest

WRONG_PIN = b"423 Nats-Wrong-Pin-Id"
PIN_MISMATCH = b"423 Nats-Pin-Id mismatch"


class PinEvents(Protocol):
    """Who is told about pins."""

    def pinned(self, group: str, pin_id: str) -> None:
        """A client became the pinned one."""

    def unpinned(self, group: str, reason: str) -> None:
        """It is no longer."""


class Priorities:
    """The policy of one consumer and, with ``pinned_client``, who is pinned."""

    def __init__(self, config: ConsumerConfig, rng: Random, events: PinEvents) -> None:
        """Nobody is pinned."""
        self._rng = rng
        self._events = events
        self.pin_id = ""
        self._pinned_ns = 0
        self._pinned_group = ""
        self.deadline_s = inf
        """When the pin is lost unless its client asks again (loop time)."""
        self.follow(config)

    def follow(self, config: ConsumerConfig) -> None:
        """The configuration is now this."""
        policy = config.priority_policy
        self.groups = config.priority_groups
        self.is_overflow = policy is PriorityPolicy.OVERFLOW
        self.is_pinned = policy is PriorityPolicy.PINNED_CLIENT
        self.is_prioritized = policy is PriorityPolicy.PRIORITIZED
        self._timeout_s = config.priority_timeout / 1e9
        if not self.is_pinned:
            self._forget()

    def state(self) -> tuple[PriorityGroupState, ...]:
        """What infos show: the first group, with the pin."""
        return tuple(PriorityGroupState(group, self.pin_id, self._pinned_ns) for group in self.groups[:1])

    # -- choosing -----------------------------------------------------------------------------------------------------

    def candidates(self, waiting: Iterable[PullRequest], pending: int, ack_pending: int) -> Iterable[PullRequest]:
        """Those that may be served now, who comes first first; without a pin also those that could get it."""
        if self.is_overflow:
            return [request for request in waiting if request.is_above(pending, ack_pending)]
        if self.is_prioritized:
            return sorted(waiting, key=lambda request: request.priority)
        if self.is_pinned and self.pin_id:
            return [request for request in waiting if request.pin_id]
        return waiting

    def settle(
        self, ready: list[PullRequest], now_s: float, now_ns: int
    ) -> tuple[list[PullRequest], list[PullRequest]]:
        """There is something to deliver: (who gets it, who has a pin that no longer counts)."""
        if not self.is_pinned:
            return ready, []
        if not self.pin_id:
            wanted = next((request for request in ready if not request.pin_id), None)
            if wanted is not None:
                self.pin_id = wanted.pin_id = nuid(self._rng)
                self._pinned_ns = now_ns
                self._pinned_group = wanted.group
                self.touch(now_s)
                self._events.pinned(wanted.group, self.pin_id)
        served = [request for request in ready if request.pin_id and request.pin_id == self.pin_id]
        stale = [request for request in ready if request.pin_id and request.pin_id != self.pin_id]
        return served, stale

    # -- the pin ------------------------------------------------------------------------------------------------------

    def is_mismatch(self, request: PullRequest, now_s: float) -> bool:
        """Whether a new request names another pin than the one that counts. A right one keeps it alive."""
        if not self.is_pinned or not request.pin_id or not self.pin_id:
            return False
        if request.pin_id != self.pin_id:
            return True
        self.touch(now_s)
        return False

    def touch(self, now_s: float) -> None:
        """The pinned client was heard of."""
        self.deadline_s = now_s + self._timeout_s if self._timeout_s else inf

    def unpin(self, reason: str) -> None:
        """Nobody is pinned from now on."""
        if self.pin_id:
            group = self._pinned_group
            self._forget()
            self._events.unpinned(group, reason)

    def _forget(self) -> None:
        self.pin_id = self._pinned_group = ""
        self._pinned_ns = 0
        self.deadline_s = inf
