"""What a consumer is to get next, found and read. At damage it ends: nothing is skipped, somebody is told, later again.

The one place where the leader's side of a consumer looks at stored messages. Whoever asks does so before anything is
reserved or proposed, so that there is nothing to undo when the answer is ``Corruption``.
"""

from __future__ import annotations

from collections.abc import Sequence

from jetstore.consumer.state import ConsumerState
from jetstore.errors import Corruption
from jetstore.node.delivery_ports import StreamLeader
from jetstore.store.ports import Message

DAMAGE_RETRY_S = 1.0
"""How soon a consumer that stands before an unreadable message looks again."""


class DeliveryReader:
    """Reads for one consumer."""

    def __init__(self, leader: StreamLeader, state: ConsumerState) -> None:
        """``leader`` is told of damage."""
        self._leader = leader
        self._state = state
        self.hold_until_s = 0.0
        """After damage was met: when to look again, and not to look for what is due before (it would stay due)."""

    def stand_still(self, error: Corruption) -> None:
        """What to deliver next cannot be found or read: say so, and look again after a while."""
        self._leader.note_damage(error)
        self.hold_until_s = self._leader.loop.time() + DAMAGE_RETRY_S

    def plan_new(self, max_messages: int, from_seq: int = 0) -> list[int]:
        """The next undelivered sequences, at most ``max_messages``; from ``from_seq`` on if that is further.

        With damage somewhere ahead it is only the one next. Raises ``Corruption`` if that is in doubt itself.
        """
        try:
            return self._state.plan_new(max_messages, from_seq)
        except Corruption as error:
            self.stand_still(error)
            return self._state.plan_new(1, from_seq)

    def read(self, seqs: Sequence[int], bytes_max: int) -> list[Message]:
        """Messages from the first of ``seqs`` on, about ``bytes_max`` of them. It ends before an unreadable one."""
        messages = self._leader.stream.log
        bytes_max = max(min(bytes_max, self._leader.limits.delivery_batch_bytes), 1)
        try:
            return messages.read_many(seqs, bytes_max)
        except Corruption as error:
            self.stand_still(error)
        found: list[Message] = []
        size = 0
        try:
            for seq in seqs:
                for message in messages.read_many((seq,), 1):
                    found.append(message)
                    size += len(message.subject) + len(message.header) + len(message.data)
                if size >= bytes_max:
                    break
        except Corruption as error:
            self.stand_still(error)
        return found
