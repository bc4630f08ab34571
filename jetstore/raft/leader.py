"""What exists only while a member leads: progress of the others, the commit rule, reads, transfer, check-quorum.

Born when a term is won, thrown away when it is lost: nothing in here survives a term. The other halves of it are
``replication.py`` (what goes out, what the answers mean) and ``conf_change.py`` (membership).

A leader with unreadable entries is closed: it appends nothing, not even the no-op of its term, until each of them is
repaired, covered by a checkpoint, or proved never committed (``repair.py``). So what it drops is never of its own term.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jetstore.raft.conf_change import after_commit, propose
from jetstore.raft.log import Entry
from jetstore.raft.membership import ConfChange
from jetstore.raft.message import Message, MessageKind
from jetstore.raft.progress import Progress, ProgressState
from jetstore.raft.quorum import committed_index, is_quorum
from jetstore.raft.read_index import Read, ReadRounds
from jetstore.raft.ready import Fenced, ReadState
from jetstore.raft.repair import Resolution
from jetstore.raft.replication import Replication
from jetstore.types import RaftIndex

if TYPE_CHECKING:
    from jetstore.raft.core import RaftCore

UNREADABLE = "unreadable entries are being resolved"
"""Why a leader takes no proposals."""


class Leader:
    """One leader's term."""

    def __init__(self, core: RaftCore) -> None:
        self.core = core
        self.progress: dict[int, Progress] = {}
        """Of every other member, ascending."""
        self.replication = Replication(core, self)
        self.term_start_index: RaftIndex | None = None
        """Of the no-op of this term; None while closed by unreadable entries."""
        self.closed_by = ""
        """Why proposals are refused; "" = they are taken."""
        self.transfer_to = 0
        self.wants_heartbeat = True
        """Everybody is to hear of this leader at the next ``flush``."""
        self.tells_commit = True
        """Whoever does not know what is committed is told at the next ``flush``, if need be by a message of its own."""
        self.reads = ReadRounds(core.options.reads_max)
        self._is_leaving = False  # a commit may end the joint configuration, or this leadership
        self.is_alone = False
        """No other voter: it is its own quorum."""
        self._resolution = Resolution()
        self._heartbeat_ticks = 0
        self._quorum_ticks = 0
        self._transfer_ticks = 0
        self.configuration_changed()

    def start(self) -> None:
        """Append the no-op of §5.4.2, which commits what older terms left; or find the missing bytes first."""
        if self.core.log.faulty_index is None:
            self._open()
            return
        self.closed_by = UNREADABLE
        if self.is_alone:  # its log is what was committed: nothing will be dropped, and what is readable is applied
            self.term_start_index = self.append(b"").index
        self.core.election.ask_for_bytes()

    def _open(self) -> None:
        self.closed_by = ""
        if self.term_start_index is None:
            self.term_start_index = self.append(b"").index

    def append(self, data: bytes) -> Entry:
        """Append what the leader itself has to say: a no-op, a configuration."""
        core = self.core
        entry = Entry(core.term, RaftIndex(core.log.last_index + 1), data)
        core.append_from_leader([entry])
        return entry

    def resigned(self) -> None:
        """Leadership is gone: nobody will prove these reads."""
        for read in self.reads.drain():
            self._answer_read(read, None)

    # -- time -----------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Heartbeats, check-quorum, the end of a transfer that takes too long."""
        options = self.core.options
        self._heartbeat_ticks += 1
        if self._heartbeat_ticks >= options.heartbeat_ticks:
            self._heartbeat_ticks = 0
            self.wants_heartbeat = True
            for progress in self.progress.values():
                progress.is_offered = False
        if self.transfer_to:
            self._transfer_ticks += 1
            if self._transfer_ticks >= options.election_ticks:
                self._end_transfer()
        self._quorum_ticks += 1
        if self._quorum_ticks >= options.election_ticks:
            self._quorum_ticks = 0
            self._check_quorum()

    def _check_quorum(self) -> None:
        """Step down when no quorum was heard for an election timeout: a newer leader may exist (thesis §6.2)."""
        core = self.core
        configuration = core.configuration
        active = {member for member, progress in self.progress.items() if progress.is_active and not progress.is_fenced}
        if configuration.is_voter(core.member):
            active.add(core.member)
        if not is_quorum(configuration.voters, configuration.voters_outgoing, active):
            core.become_follower(core.term, 0)
            return
        for progress in self.progress.values():
            progress.was_active, progress.is_active = progress.is_active, False
            if progress.state is ProgressState.SNAPSHOT:
                progress.is_paused = False  # offer it again: the offer, or the whole fetch, may be lost
        if core.log.faulty_index is not None:
            core.election.ask_for_bytes()

    # -- commit ---------------------------------------------------------------------------------------------------

    def maybe_commit(self) -> None:
        """Commit what a quorum of the configuration in effect holds durably, if it is of this term (§5.4.2)."""
        core = self.core
        log = core.log
        if self.is_alone:
            index = log.durable_index
        else:
            configuration = core.configuration
            index = committed_index(configuration.voters, configuration.voters_outgoing, self._match)
        if index <= log.committed_index or log.term_at(index) != core.term:
            return
        if log.committed_index < max(core.configurations.index, self.term_start_index or 0):
            self.tells_commit = True
        core.advance_commit(index)
        if len(self.reads):
            assert core.log.committed_index >= (self.term_start_index or 0)
            self.reads.release_deferred(log.committed_index, self.replication.sequence)
            self.confirm_reads()
        if self._is_leaving:
            after_commit(core, self)

    def _own_match(self) -> RaftIndex:
        log = self.core.log
        if log.faulty_index is None:
            return log.durable_index
        return min(log.durable_index, RaftIndex(log.faulty_index - 1))

    def _match(self, member: int) -> int:
        if member == self.core.member:
            return self._own_match()
        progress = self.progress[member]
        return 0 if progress.is_fenced else progress.match_index

    @property
    def has_committed_own_term(self) -> bool:
        """Whether an entry of this term is committed: then its commit index is the group's."""
        log = self.core.log
        return self.term_start_index is not None and log.committed_index >= self.term_start_index

    def stored(self) -> None:
        """Something of this member's own became durable."""
        if self.closed_by:
            self.try_to_open()
        log = self.core.log
        if log.durable_index > log.committed_index:
            self.maybe_commit()

    # -- configuration --------------------------------------------------------------------------------------------

    def propose_conf_change(self, change: ConfChange, *, is_forced: bool) -> Entry:
        """See ``RaftCore.propose_conf_change``."""
        return propose(self.core, self, change, is_forced=is_forced)

    def configuration_changed(self) -> None:
        """Keep progress of exactly the members of the configuration that is now in effect.

        A new one is first asked about the end of the log, but never beyond an unreadable entry: from there on the log
        may be dropped, and what a leader's log and another have in common must never shrink within a term.
        """
        core = self.core
        configuration = core.configuration
        known = self.progress
        next_index = core.log.faulty_index or RaftIndex(core.log.last_index + 1)
        self.progress = {
            member: known.get(member) or Progress(next_index, core.options)
            for member in configuration.all_members
            if member != core.member
        }
        self.is_alone = configuration.all_voters == {core.member}
        self._is_leaving = configuration.is_joint or not configuration.is_voter(core.member)
        if self.transfer_to and self.transfer_to not in configuration.voters:
            self._end_transfer()

    # -- answers --------------------------------------------------------------------------------------------------

    def handle_append_response(self, message: Message) -> None:
        """How far a member has come; or that it could not follow."""
        self.replication.heard(message, is_append=True)

    def handle_heartbeat_response(self, message: Message) -> None:
        """A member is alive, and has come this far."""
        self.replication.heard(message, is_append=False)

    def advanced(self, member: int) -> None:
        """A member holds more than was known."""
        self.maybe_commit()
        if self.transfer_to == member:
            self._hand_over()

    def fence(self, member: int, progress: Progress, message: Message) -> None:
        """It lost what it acknowledged: nothing it says counts in this term any more (durability.md §8)."""
        progress.is_fenced = True
        progress.probe()
        self.core.events.append(Fenced(member, progress.acked_index, message.last_index))

    def flush(self) -> None:
        """Put what members need into messages."""
        if self.progress:
            if self.reads.asked_sequence >= self.replication.sequence and len(self.reads):
                self.wants_heartbeat = True
            if self.wants_heartbeat:
                self.replication.send_heartbeats()
            self.replication.send_appends()
        self.wants_heartbeat = False
        self.tells_commit = self.core.options.tells_commit_at_once

    def report_snapshot(self, member: int, index: RaftIndex) -> None:
        """A member's fetch of a checkpoint ended: at ``index``, or (0) without one."""
        progress = self.progress.get(member)
        if progress is not None and progress.state is ProgressState.SNAPSHOT:
            if index:
                progress.probe_from(RaftIndex(index + 1))
            else:
                progress.is_paused = progress.is_offered = False

    def report_unreachable(self, member: int) -> None:
        """What was under way to a member may be lost."""
        progress = self.progress.get(member)
        if progress is not None and progress.state is ProgressState.REPLICATE:
            progress.probe()

    # -- reads ----------------------------------------------------------------------------------------------------

    def read_index(self, member: int, context: object) -> None:
        """A read of this member, or one that a follower forwarded."""
        core = self.core
        read = Read(member, context)
        if self.has_committed_own_term:
            is_taken = self.reads.add(read, core.log.committed_index, self.replication.sequence)
        else:
            is_taken = self.reads.defer(read)
        if not is_taken:
            self._answer_read(read, None)
        self.confirm_reads()

    def handle_read_index(self, message: Message) -> None:
        """A follower has a read."""
        self.read_index(message.sender, message.context)

    def confirm_reads(self) -> None:
        """Answer the reads that a quorum's answers prove: they were asked before a request that it has answered."""
        core = self.core
        configuration = core.configuration
        if self.is_alone:
            sequence = self.replication.sequence + 1
        else:
            voters, outgoing = configuration.voters, configuration.voters_outgoing
            sequence = committed_index(voters, outgoing, self._answered)
        for read, index in self.reads.confirmed(sequence):
            self._answer_read(read, index)

    def _answered(self, member: int) -> int:
        if member == self.core.member:
            return self.replication.sequence + 1
        progress = self.progress[member]
        return 0 if progress.is_fenced else progress.sequence

    def _answer_read(self, read: Read, index: RaftIndex | None) -> None:
        core = self.core
        if read.member == core.member:
            core.events.append(ReadState(read.context, index))
        else:
            core.send(
                MessageKind.READ_INDEX_RESPONSE,
                read.member,
                context=read.context,
                index=index or RaftIndex(0),
                is_rejected=index is None,
            )

    # -- transfer -------------------------------------------------------------------------------------------------

    def transfer(self, member: int) -> None:
        """Refuse proposals, bring ``member`` up to date, tell it to stand (thesis §3.10)."""
        if self.transfer_to != member:
            self.transfer_to = member
            self._transfer_ticks = 0
            self.closed_by = "leadership is being transferred"
            self._hand_over()

    def _hand_over(self) -> None:
        core = self.core
        if self.progress[self.transfer_to].match_index == core.log.last_index:
            core.send(MessageKind.TIMEOUT_NOW, self.transfer_to)

    def _end_transfer(self) -> None:
        self.transfer_to = 0
        self.closed_by = UNREADABLE
        self.try_to_open()

    def leave_office(self) -> None:
        """The committed configuration has no vote for this leader: hand over to whoever is furthest, and step down."""
        core = self.core
        self.flush()
        voters = [member for member in self.progress if member in core.configuration.voters]
        best = max(voters, key=lambda member: (self.progress[member].match_index, -member))
        core.send(MessageKind.TIMEOUT_NOW, best)
        core.become_follower(core.term, 0)

    # -- quiescence -----------------------------------------------------------------------------------------------

    def quiesce(self, absent: frozenset[int]) -> bool:
        """See ``RaftCore.quiesce``."""
        core = self.core
        log = core.log
        last_index = log.last_index
        if self.closed_by or core.is_quiescent or len(self.reads) or core.has_ready():
            return False
        if not (self.has_committed_own_term and log.applied_index == log.durable_index == last_index):
            return False
        if core.configuration.is_joint:
            return False
        present = [member for member in self.progress if member not in absent]
        if any(self.progress[member].match_index != last_index for member in present):
            return False
        if any(self.progress[member].is_fenced for member in present):
            return False
        for member in present:
            self.replication.send_heartbeat(member, self.progress[member], is_quiescent=True)
        self.wants_heartbeat = False
        core.is_quiescent = True
        log.release()
        return True

    # -- unreadable entries ---------------------------------------------------------------------------------------

    def heard_answer(self, message: Message) -> None:
        """A voter answered about an entry that this leader cannot read."""
        core = self.core
        self._resolution.heard(message.sender, message.index, message.answer)
        first = self._first_unreadable()
        if first is not None and self._resolution.is_never(first, core.configuration):
            core.truncate_from(first)  # nothing from there on was ever sent, see ``configuration_changed``
            self.try_to_open()

    def waiting_for(self) -> tuple[int, ...]:
        """Voters whose answer about the first unreadable entry is missing."""
        first = self._first_unreadable()
        if first is None:
            return ()
        return self._resolution.missing(first, self.core.configuration, self.core.member)

    def _first_unreadable(self) -> RaftIndex | None:
        log = self.core.log
        return next((index for index in log.faulty if log.entry(index).data is None), None)

    def try_to_open(self) -> None:
        """Begin, or go on, to take proposals if nothing stands against it any more."""
        if self.core.log.faulty_index is None and not self.transfer_to:
            self._open()
