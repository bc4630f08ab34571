"""PubAcks on their way out: those of one turn of the event loop are formatted together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jetstore.hot.wire import format_pub_acks, pub_ack_payloads
from server.route.delivery import Columns, Delivery
from server.route.sublist import Sublist

_GROUPS_MIN = 4
"""PubAcks of one call are sorted by inbox only if that leaves at least this many for each."""


class PubAcks:
    """Those that wait to be sent, in runs of one stream.

    They go out when a journal block is applied, or in the loop's next turn: what a block acknowledges is formatted once
    for each connection, not once for each stream.
    """

    def __init__(
        self,
        sublist: Sublist,
        delivery: Delivery,
        route: Callable[[Columns], None],
        flush_soon: Callable[[], None],
    ) -> None:
        """``route`` publishes as the system; ``flush_soon`` sees to it that ``flush`` is called."""
        self._sublist = sublist
        self._delivery = delivery
        self._route = route
        self._flush_soon = flush_soon
        self._runs: list[tuple[bytes, Sequence[bytes], Sequence[int]]] = []
        """Stream, reply subjects, sequences."""

    def add(self, stream: bytes, replies: Sequence[bytes], seqs: Sequence[int]) -> None:
        """One PubAck per reply subject that is not empty."""
        if b"" in replies:
            wanted = [at for at, reply in enumerate(replies) if reply]
            replies = [replies[at] for at in wanted]
            seqs = [seqs[at] for at in wanted]
        if replies:
            if not self._runs:
                self._flush_soon()
            self._runs.append((stream, replies, seqs))

    def flush(self) -> bool:
        """Send those that wait; whether there were any."""
        runs, self._runs = self._runs, []
        if not runs:
            return False
        if len(runs) == 1 or len(runs) * _GROUPS_MIN <= sum([len(replies) for _, replies, _ in runs]):
            for name, replies, seqs in runs:
                self._of_stream(name, replies, seqs)
        else:
            self._of_many(
                [reply for _, replies, _ in runs for reply in replies],
                [b'{"stream":"%b","seq":%d}' % (name, seq) for name, _, seqs in runs for seq in seqs],
            )
        return True

    def _of_many(self, replies: Sequence[bytes], payloads: Sequence[bytes]) -> None:
        """PubAcks of many streams, few of each."""
        match = self._sublist.match_all(replies)
        if match is None:
            groups = _by_inbox(replies)
            if groups:
                for positions in groups:
                    self._of_many([replies[at] for at in positions], [payloads[at] for at in positions])
                return
        elif match.is_empty:
            return
        self._route(Columns(replies, (), (), payloads))

    def _of_stream(self, name: bytes, replies: Sequence[bytes], seqs: Sequence[int]) -> None:
        match = self._sublist.match_all(replies)
        if match is None:
            groups = _by_inbox(replies)
            if groups:
                for positions in groups:
                    self._of_stream(name, [replies[at] for at in positions], [seqs[at] for at in positions])
                return
        elif match.is_empty:
            return
        elif len(match.plain) == 1 and not (match.queues or match.internal or match.bridges or match.remotes):
            subscription = match.plain[0]
            if not subscription.max_messages and subscription.shadow is None:
                self._delivery.acks(subscription, format_pub_acks(name, replies, subscription.sid, seqs), len(replies))
                return
        self._route(Columns(replies, (), (), pub_ack_payloads(name, seqs)))


def _by_inbox(replies: Sequence[bytes]) -> list[list[int]]:
    """The positions of each inbox; none if that would leave few for each."""
    groups: dict[bytes, list[int]] = {}
    for at, reply in enumerate(replies):
        groups.setdefault(reply.rpartition(b".")[0], []).append(at)
    return list(groups.values()) if len(groups) > 1 and len(groups) * _GROUPS_MIN <= len(replies) else []
