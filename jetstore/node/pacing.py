"""How fast a consumer may send: the pace at which messages came (replay original), and a bit rate."""

from __future__ import annotations

from collections.abc import Sequence

from jetstore.model.consumer import ConsumerConfig, ReplayPolicy
from jetstore.store.ports import Message

BURST_BYTES = 1 << 20
"""What a rate limit lets through at once."""


class Pacer:
    """Says how many of the next messages may go now, and when the one after them may."""

    def __init__(self, config: ConsumerConfig, backlog_last_seq: int) -> None:
        """``backlog_last_seq``: messages up to here are replayed at their original pace, if that is wanted."""
        self.wait_until_s = 0.0
        """Loop time before which nothing more may go; 0 = no reason to wait."""
        self._replay_last_seq = backlog_last_seq if config.replay_policy == ReplayPolicy.ORIGINAL else 0
        self._replay_from: tuple[float, int] | None = None
        self.set_rate(config)
        self._spent_until_s = 0.0

    def set_rate(self, config: ConsumerConfig) -> None:
        """Follow a changed configuration."""
        self._bytes_per_s = config.rate_limit_bps / 8

    def allowed(self, messages: list[Message], now_s: float) -> list[Message]:
        """The messages from the start that may go now; the list itself is not changed."""
        self.wait_until_s = 0.0
        if not messages:
            return messages
        if self._replay_last_seq:
            messages = self._replayed(messages, now_s)
        if self._bytes_per_s and messages:
            messages = self._rated(messages, now_s)
        return messages

    def _replayed(self, messages: list[Message], now_s: float) -> list[Message]:
        if messages[0].seq > self._replay_last_seq:
            self._replay_last_seq = 0
            return messages
        if self._replay_from is None:
            self._replay_from = (now_s, messages[0].time_ns)
        start_s, start_ns = self._replay_from
        for position, message in enumerate(messages):
            due_s = start_s + (message.time_ns - start_ns) / 1e9
            if due_s > now_s and message.seq <= self._replay_last_seq:
                self.wait_until_s = due_s
                return messages[:position]
        return messages

    def _rated(self, messages: Sequence[Message], now_s: float) -> list[Message]:
        """A token bucket kept as the time at which what was sent is paid for."""
        paid_s = max(self._spent_until_s, now_s - BURST_BYTES / self._bytes_per_s)
        allowed: list[Message] = []
        for message in messages:
            if paid_s > now_s:
                self.wait_until_s = paid_s
                break
            paid_s += (len(message.subject) + len(message.header) + len(message.data)) / self._bytes_per_s
            allowed.append(message)
        self._spent_until_s = paid_s
        return allowed
