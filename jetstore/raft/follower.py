"""Taking what a leader sends: entries, heartbeats, the offer of a checkpoint; and asking it for reads.

What is acknowledged is the *match*: how far this log is known to agree with the leader's in this term, durable, and
readable. The evidenced last (term, index) goes with every answer: it tells damage from amnesia (STORAGE §7). Source:
Raft paper §5.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jetstore.raft.message import Message, MessageKind
from jetstore.raft.ready import CheckpointFetch, ReadState
from jetstore.types import RaftIndex, Term

if TYPE_CHECKING:
    from jetstore.raft.core import RaftCore


class Follower:
    """One member's knowledge of the leader of its term."""

    def __init__(self, core: RaftCore) -> None:
        self.core = core
        self.verified_index = RaftIndex(0)
        """Up to here this log is the leader's."""
        self.leader_committed = RaftIndex(0)
        """What the leader said is committed, whether it is here or not."""
        self.sequence = 0
        """The highest of the leader's requests that came."""
        self._reads: dict[int, tuple[object, int]] = {}  # number → context, age in ticks at which it is given up
        self._read_number = core.boot << 32  # an answer to a read of before a restart is not one of now
        self._ticks = 0
        self._owes_answer = False
        self._told_index = RaftIndex(0)

    def new_term(self) -> None:
        """What is known of a leader belongs to its term."""
        self.verified_index = RaftIndex(0)
        self.leader_committed = RaftIndex(0)
        self.sequence = 0
        self._owes_answer = False
        self._told_index = RaftIndex(0)
        self.leader_lost()

    def leader_lost(self) -> None:
        """The reads that it was asked for will not be answered."""
        for context, _ in self._reads.values():
            self.core.events.append(ReadState(context, None))
        self._reads.clear()

    def tick(self) -> None:
        """Give up reads whose answer is long overdue."""
        self._ticks += 1
        for number in [n for n, (_, deadline) in self._reads.items() if deadline <= self._ticks]:
            context, _ = self._reads.pop(number)
            self.core.events.append(ReadState(context, None))

    @property
    def match_index(self) -> RaftIndex:
        """How far this log agrees with the leader's, durably and readably."""
        log = self.core.log
        index = min(self.verified_index, log.durable_index)
        if log.faulty_index is not None:
            index = min(index, RaftIndex(log.faulty_index - 1))
        return RaftIndex(index)

    # -- from the leader ------------------------------------------------------------------------------------------

    def handle_append(self, message: Message) -> None:
        """Entries behind (index, log_term); refused when that one is not here."""
        core = self.core
        core.follow(message.sender)
        self.sequence = max(self.sequence, message.sequence)
        self.leader_committed = max(self.leader_committed, message.commit)
        log = core.log
        prev_index = message.index
        term = log.term_at(prev_index)
        is_dropped = term is None and prev_index <= log.last_index  # applied, and every leader has what is committed
        if term != message.log_term and not is_dropped:
            assert prev_index > log.committed_index, "a leader contradicts what is committed (R3)"
            self._refuse(message)
            return
        self._take(message)
        last_index = RaftIndex(prev_index + len(message.entries))
        self.verified_index = max(self.verified_index, last_index, log.committed_index)
        core.advance_commit(min(message.commit, self.verified_index))
        if self._is_settled():
            self._answer(MessageKind.APPEND_RESPONSE)
        else:
            self._owes_answer = True

    def _take(self, message: Message) -> None:
        """Skip what is here, repair what is unreadable, replace what an earlier leader left, append the rest."""
        core = self.core
        log = core.log
        entries = message.entries
        for position, entry in enumerate(entries):
            if entry.index > log.last_index:
                core.append_from_leader(entries[position:])
                return
            term = log.term_at(entry.index)
            if term is None:  # applied and dropped
                continue
            if term != entry.term:
                assert entry.index > self.verified_index, "a leader contradicts itself (R2)"
                core.truncate_from(entry.index)
                core.append_from_leader(entries[position:])
                return
            if log.unreadable(entry.index, entry.term):
                core.repair(entry)

    def _refuse(self, message: Message) -> None:
        """Name the greatest index where the logs may agree: one round per term instead of one per entry."""
        core = self.core
        log = core.log
        hint_index = log.last_at_most(message.index, message.log_term)
        core.send(
            MessageKind.APPEND_RESPONSE,
            message.sender,
            index=message.index,
            is_rejected=True,
            hint_index=hint_index,
            hint_term=log.term_at(hint_index) or Term(0),
            last_index=log.durable_index,
            last_term=log.durable_term,
            sequence=self.sequence,
        )

    def _is_settled(self) -> bool:
        """Whether the match would be no better after what is being written."""
        if self._unreadable_index():
            return True
        log = self.core.log
        is_repaired = log.faulty_index is None or log.faulty_index > self.verified_index
        return is_repaired and log.durable_index >= self.verified_index

    def _unreadable_index(self) -> RaftIndex:
        """The entry of the leader's log whose bytes are missing here; 0 = none."""
        log = self.core.log
        index = log.faulty_index
        if index is None or index > self.verified_index or log.entry(index).data is not None:
            return RaftIndex(0)
        return index

    def _answer(self, kind: MessageKind) -> None:
        core = self.core
        log = core.log
        self._told_index = self.match_index
        core.send(
            kind,
            core.leader,
            index=self._told_index,
            hint_index=self._unreadable_index(),
            last_index=log.durable_index,  # what a crash would leave of the evidence (R10)
            last_term=log.durable_term,
            sequence=self.sequence,
        )

    def stored(self) -> None:
        """Something became durable: acknowledge it if a leader waits for that."""
        if self._owes_answer and self.core.leader:
            self._owes_answer = not self._is_settled()
            if not self._owes_answer or self.match_index > self._told_index:
                self._answer(MessageKind.APPEND_RESPONSE)

    def restored(self, index: RaftIndex) -> None:
        """An installed checkpoint is committed, so every leader of this term or later has what it covers."""
        self.verified_index = max(self.verified_index, index)
        if self.core.leader:
            self._answer(MessageKind.APPEND_RESPONSE)

    def handle_heartbeat(self, message: Message) -> None:
        """The leader is alive, and this much is committed."""
        core = self.core
        core.follow(message.sender)
        self.sequence = max(self.sequence, message.sequence)
        self.leader_committed = max(self.leader_committed, message.commit)
        log = core.log
        core.advance_commit(min(message.commit, self.verified_index))
        is_idle = message.commit == log.last_index == log.committed_index and not log.faulty
        if message.is_quiescent and is_idle and message.sequence == self.sequence:
            core.is_quiescent = True  # no answer: it would wake the leader
            log.release()
            return
        core.wake()
        self._answer(MessageKind.HEARTBEAT_RESPONSE)

    def handle_snapshot(self, message: Message) -> None:
        """The leader has dropped what comes next here: its checkpoint must be fetched."""
        core = self.core
        core.follow(message.sender)
        self.sequence = max(self.sequence, message.sequence)
        log = core.log
        is_readable = log.faulty_index is None or log.faulty_index > message.index
        if log.committed_index >= message.index and is_readable:
            self.verified_index = max(self.verified_index, log.committed_index)
            self._answer(MessageKind.APPEND_RESPONSE)
        else:
            core.events.append(CheckpointFetch(message.sender, message.index, message.log_term))

    # -- reads ----------------------------------------------------------------------------------------------------

    def read_index(self, context: object) -> None:
        """Ask the leader; the answer, or that there is none, becomes a ``ReadState``."""
        core = self.core
        if len(self._reads) >= core.options.reads_max:
            core.events.append(ReadState(context, None))
            return
        self._read_number += 1
        self._reads[self._read_number] = (context, self._ticks + core.options.election_ticks)
        core.send(MessageKind.READ_INDEX, core.leader, context=self._read_number)

    def handle_read_index_response(self, message: Message) -> None:
        """The leader proved that it led when it was asked, or could not."""
        found = self._reads.pop(message.context, None)
        if found is not None:
            self.core.events.append(ReadState(found[0], None if message.is_rejected else message.index))
