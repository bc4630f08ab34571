"""One member of one Raft group as a pure state machine: inputs change memory only, outputs say what the driver must do.

The driver's loop::

    core.tick() / core.step(message) / core.propose(...)        # memory only
    for message in core.take_messages(): send it                # what may leave now
    ready = core.ready()                                        # hard state, repairs, entries: one journal block
    ... the block is durable ...
    core.stored(ready.token)                                    # releases what implied it, commits what a quorum has
    core.to_apply() → apply → core.applied(index)
    core.take_events()                                          # reads that are confirmed, checkpoints that are needed

Several Readies may be on their way to disk at once; completions arrive in order. A message that implies durable state
(a vote, an acknowledgement) appears only after ``stored``; a leader's appends appear at once, parallel to its own disk,
and it counts its own copy only when that is durable.

Who does what: this file holds term, vote and role. ``inbox.py`` decides what is heard and hands it on; ``election.py``
wins a term, ``leader.py`` is what exists only while leading it, ``follower.py`` takes what a leader sends, and
``writes.py`` keeps the order of disk and messages. Source: Raft paper §5–6, Ongaro's thesis §3, 4, 6, 9.6, 10;
``docs/raft.md`` is the manual.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from jetstore.errors import ConfChangeRefused, NotNow
from jetstore.raft.configurations import Configurations
from jetstore.raft.election import Election
from jetstore.raft.follower import Follower
from jetstore.raft.inbox import step
from jetstore.raft.leader import Leader
from jetstore.raft.log import Entry, RaftLog
from jetstore.raft.membership import KIND as CONFIGURATION_KIND
from jetstore.raft.membership import ConfChange, Configuration
from jetstore.raft.message import Message, MessageKind
from jetstore.raft.options import RaftOptions
from jetstore.raft.ready import (
    Event,
    HardState,
    LeaderChanged,
    Ready,
    Removed,
    Role,
    Status,
    Token,
)
from jetstore.raft.writes import Writes
from jetstore.types import RaftIndex, Term

__all__ = ["HardState", "RaftCore", "RaftOptions", "Ready", "Role", "Status", "Token"]

CONFIGURATION_BYTE = bytes((CONFIGURATION_KIND,))


class RaftCore:
    """A member of one group. ``log`` is readable by the driver; only this package changes it."""

    def __init__(
        self,
        *,
        member: int,
        configuration: Configuration,
        hard_state: HardState,
        log: RaftLog,
        random_below: Callable[[int], int],
        boot: int = 0,
        options: RaftOptions | None = None,
    ) -> None:
        """A member as recovery found it: a follower, in the recovered term.

        ``configuration`` is the checkpoint's; entries of the log that carry newer ones count from there.
        ``random_below(n)`` gives an int in [0, n). ``boot`` counts the starts of this member's node.
        """
        self.abstains_term = Term(0)
        """The vote record lagged behind the log: how this member voted in that term is unknown, so it does not."""
        if log.last_term > hard_state.term:
            hard_state = HardState(log.last_term, 0)
            self.abstains_term = log.last_term
        self.member = member
        self.log = log
        self.options = options or RaftOptions()
        self.random_below = random_below
        self.boot = boot
        self.role = Role.FOLLOWER
        self.term = hard_state.term
        self.vote = hard_state.vote
        self.leader = 0
        """The member that leads this term, as far as is known; 0 = nobody."""
        self.is_quiescent = False
        self.is_removed = False
        self.configurations = Configurations(configuration, log)
        self.election: Election = Election(self)
        self.follower: Follower = Follower(self)
        self.leading: Leader | None = None
        """What exists only while this member leads."""
        self.writes = Writes(self)
        self.events: list[Event] = []
        self._told_leader = (0, self.term)
        self._configuration_done = log.checkpoint_index  # configurations up to here were seen committed
        self.election.reset()

    # -- inputs ---------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """One unit of time has passed. A quiesced group needs none."""
        if self.is_quiescent:
            return
        if self.leading is not None:
            self.leading.tick()
        else:
            self.follower.tick()
            self.election.tick()

    def campaign(self) -> None:
        """Stand for election: a pre-vote first, unless nobody else votes. Nothing happens if this member may not."""
        self.wake()
        if self.role is not Role.LEADER:
            self.election.campaign()

    def propose(self, data: bytes, message_count: int = 0, cache: object = None, *, term: Term | None = None) -> Entry:
        """Append to the leader's log; the entry's (term, index) identify what becomes of it.

        Raises NotNow when this member does not lead (in ``term``, if given), or takes nothing at the moment: then it is
        definitely not proposed.
        """
        leading = self.leading
        if leading is None:
            raise NotNow("no leader")
        if leading.closed_by:
            raise NotNow(leading.closed_by)
        if term is not None and term != self.term:
            raise NotNow(f"term is {self.term}, not {term}")
        log = self.log
        if log.unapplied_bytes > self.options.unapplied_bytes_max:
            raise NotNow("too much is under way")
        assert data[:1] != CONFIGURATION_BYTE, "a configuration is proposed as a change"
        if self.is_quiescent:
            self.wake()
        entry = Entry(self.term, RaftIndex(log.last_index + 1), data, message_count, cache)
        log.append(entry)
        return entry

    def propose_conf_change(self, change: ConfChange, *, is_forced: bool = False) -> Entry:
        """Append the configuration that ``change`` comes to; it is in effect at once (§6).

        Raises ConfChangeRefused if it does not fit the configuration, NotNow if it does not fit the moment: one change
        at a time, none before an entry of the own term is committed, no promotion of a learner that is far behind, no
        removal that leaves fewer voters alive than a quorum (unless ``is_forced``).
        """
        if self.leading is None:
            raise NotNow("no leader")
        self.wake()
        return self.leading.propose_conf_change(change, is_forced=is_forced)

    def transfer_leader(self, member: int) -> None:
        """Hand leadership over: proposals are refused until it is done, or one election timeout later (thesis §3.10).

        Raises NotNow if this member does not lead, ConfChangeRefused if ``member`` is no voter.
        """
        if self.leading is None:
            raise NotNow("no leader")
        if member not in self.configuration.voters:
            raise ConfChangeRefused(f"member {member} is no voter")
        if member != self.member:
            self.wake()
            self.leading.transfer(member)

    def read_index(self, context: object) -> None:
        """Ask what must be applied here before a read is up to date: a ``ReadState`` event with ``context`` answers.

        Raises NotNow if no leader is known.
        """
        self.wake()
        if self.leading is not None:
            self.leading.read_index(self.member, context)
        elif self.leader:
            self.follower.read_index(context)
        else:
            raise NotNow("no leader")

    def forget_leader(self) -> None:
        """Act as if no leader had been heard of: this follower may grant votes at once. A leader ignores it."""
        if self.leading is None:
            self.wake()
            self.leader = 0
            self._tell_leader()

    def quiesce(self, absent: frozenset[int] = frozenset()) -> bool:
        """Stop ticking until something happens, followers too. False, and nothing changed, if something is under way.

        ``absent``: members whose nodes are known to be gone, which need not be up to date; wake the group when one
        returns.
        """
        return self.leading is not None and self.leading.quiesce(absent)

    def wake(self) -> None:
        """Tick again; a leader lets its followers know."""
        if self.is_quiescent:
            self.is_quiescent = False
            self.election.elapsed_ticks = 0
            if self.leading is not None:
                self.leading.wants_heartbeat = True

    def suspect_leader(self) -> None:
        """The leader's node is not heard any more: wake, and protect the leader no longer from other candidates."""
        if self.leading is None:
            self.wake()
            self.election.elapsed_ticks = max(self.election.elapsed_ticks, self.options.election_ticks)

    def compact(self, index: RaftIndex) -> None:
        """Drop applied entries up to ``index`` from memory. A follower that still needs them gets a checkpoint."""
        self.log.compact(index)
        self.configurations.forget_below(self.log.checkpoint_index)

    def restored(self, index: RaftIndex, term: Term, configuration: Configuration) -> None:
        """A checkpoint of another member is installed and durable: the log restarts at its (index, term).

        Entries beyond it stay if they continue it. ``index`` must not be below what is applied here.
        """
        stays = self.log.restored(index, term)
        self.writes.restored(index, stays=stays)
        self.configurations.restored(configuration)
        if term > self.term or (self.leading is not None and not stays):
            self.become_follower(max(term, self.term), 0)  # a later leader committed what this one never had
        self.configuration_changed()
        self._configuration_committed()
        if self.leading is not None:
            self.leading.try_to_open()
        else:
            self.follower.restored(index)

    def report_snapshot(self, member: int, index: RaftIndex) -> None:
        """``member`` has installed a checkpoint at ``index``, or (0) gave up: go on with it."""
        if self.leading is not None:
            self.leading.report_snapshot(member, index)

    def report_unreachable(self, member: int) -> None:
        """The link to ``member`` broke: what was under way to it may be lost."""
        if self.leading is not None:
            self.leading.report_unreachable(member)

    # -- outputs --------------------------------------------------------------------------------------------------

    def has_ready(self) -> bool:
        """Whether ``ready()`` would list something to write."""
        return self.writes.has_ready()

    def ready(self, max_bytes: int | None = None) -> Ready:
        """Everything to write that was not handed out before (at least one entry, then up to ``max_bytes``)."""
        return self.writes.ready(max_bytes)

    def has_hard_state(self) -> bool:
        """Whether ``ready_hard_state()`` would list something to write."""
        return self.writes.has_hard_state()

    def ready_hard_state(self) -> Ready:
        """Term and vote alone, for a driver whose journal may have room for nothing else: so it votes all the same.

        Its token may come back before those that were handed out earlier. A driver that calls this takes every hard
        state so, before ``ready``: an older one must never be written after a newer one.
        """
        return self.writes.ready_hard_state()

    def stored(self, token: Token) -> None:
        """What ``ready()`` listed under this token is durable."""
        self.writes.stored(token)
        leading = self.leading
        if leading is not None:
            leading.stored()
        elif self.role is Role.CANDIDATE:
            if self.writes.is_hard_state_durable and self.log.durable_index == self.log.last_index:
                self.election.stored()
        elif token.index or token.repaired:
            self.follower.stored()

    def to_apply(self) -> list[Entry]:
        """Committed and durable entries in order, up to a FAULTY one.

        Those whose data ``is_configuration`` are the core's own: the state machine takes them as empty entries.
        """
        return self.log.to_apply()

    def applied(self, index: RaftIndex) -> None:
        """The state machine has taken everything up to ``index``."""
        self.log.applied(index)

    def take_messages(self) -> list[Message]:
        """What may be sent now. A leader's new entries are put into appends here, so one call carries a whole batch."""
        if self.leading is not None:
            self.leading.flush()
        return self.writes.take_messages()

    def take_events(self) -> list[Event]:
        """What happened, or is asked of the driver, since the last call."""
        events, self.events = self.events, []
        return events

    def status(self) -> Status:
        """This member's view, for people and for placement."""
        leading = self.leading
        log = self.log
        return Status(
            member=self.member,
            role=self.role,
            term=self.term,
            vote=self.vote,
            leader=self.leader,
            configuration=self.configuration,
            committed_index=log.committed_index,
            applied_index=log.applied_index,
            durable_index=log.durable_index,
            last_index=log.last_index,
            last_term=log.last_term,
            is_quiescent=self.is_quiescent,
            transfer_to=leading.transfer_to if leading is not None else 0,
            faulty=tuple(log.faulty),
            waiting_for=leading.waiting_for() if leading is not None else (),
            progress={m: p.status() for m, p in leading.progress.items()} if leading is not None else {},
        )

    @property
    def is_leader(self) -> bool:
        """Whether this member leads its term."""
        return self.role is Role.LEADER

    @property
    def serves(self) -> bool:
        """Whether this member leads and has applied everything that was committed before its term.

        A lone voter's answers are up to date then; with other voters, a read needs ``read_index`` besides.
        """
        leading = self.leading
        return (
            leading is not None
            and leading.term_start_index is not None
            and self.log.applied_index >= leading.term_start_index
        )

    @property
    def configuration(self) -> Configuration:
        """The configuration in effect: the last one in the log, committed or not."""
        return self.configurations.current

    def configuration_at(self, index: RaftIndex) -> Configuration:
        """The one in effect as of an index that is not below the checkpoint: what a checkpoint there must carry."""
        return self.configurations.at(index)

    # -- messages -------------------------------------------------------------------------------------------------

    def step(self, message: Message) -> None:
        """A message from another member arrived; any order, any delay, any number of times."""
        step(self, message)

    def removed(self, index: RaftIndex) -> None:
        """The configuration that is committed at ``index`` does not name this member any more: stand no longer."""
        if not self.is_removed:
            self.is_removed = True
            self.events.append(Removed(index))

    def send(self, kind: MessageKind, to: int, **fields: object) -> None:
        """Send in this member's term, once the term and vote that it implies are durable (R10)."""
        message = Message(kind, self.member, to, self.term, boot=self.boot, **fields)  # type: ignore[arg-type]
        self.writes.post(message)

    def post(self, message: Message) -> None:
        """The same for a message that is complete."""
        self.writes.post(message)

    # -- rules that the parts share -------------------------------------------------------------------------------

    def become_follower(self, term: Term, leader: int) -> None:
        """Follow ``leader`` (0 = nobody known yet) in ``term``, which is this one or a later one."""
        assert term >= self.term, "terms only grow (R5)"
        if term > self.term:
            self.set_hard_state(term, 0)
            self.follower.new_term()
        if self.leading is not None:
            leading, self.leading = self.leading, None
            leading.resigned()
            self.is_quiescent = False
        elif leader != self.leader:
            self.follower.leader_lost()
        self.role = Role.FOLLOWER
        self.leader = leader
        self.election.reset()
        self._tell_leader()

    def follow(self, leader: int) -> None:
        """A leader of this term was heard."""
        assert self.role is not Role.LEADER, "two leaders in one term (R1)"
        assert self.leader in (0, leader), "two leaders in one term (R1)"
        if self.role is not Role.FOLLOWER or self.leader != leader:
            self.become_follower(self.term, leader)
        self.election.elapsed_ticks = 0
        self.election.faulty_timeouts = 0

    def become_leader(self) -> None:
        """This term is won, and that this member voted for itself is durable (R6)."""
        assert self.writes.is_hard_state_durable, "leader before its vote is durable"
        assert self.vote == self.member
        self.role = Role.LEADER
        self.leader = self.member
        self.leading = Leader(self)
        self._tell_leader()
        self.leading.start()

    def set_hard_state(self, term: Term, vote: int) -> None:
        """Change term or vote in memory; what is sent from now on waits until it is durable."""
        assert term > self.term or (term == self.term and self.vote in (0, vote)), "one vote per term (R6)"
        self.writes.hard_state_changed(is_new_term=term > self.term)
        self.term, self.vote = term, vote

    def advance_commit(self, index: RaftIndex) -> bool:
        """Note that everything up to ``index`` is committed; whether that is news."""
        if index <= self.log.committed_index:
            return False
        self.log.commit(index)
        if self._configuration_done < self.configurations.index:
            self._configuration_committed()
        return True

    def _configuration_committed(self) -> None:
        committed = self.log.committed_index
        self.configurations.forget_below(self.log.checkpoint_index)
        if self.configurations.index <= committed:
            self._configuration_done = self.configurations.index
        configuration = self.configurations.at(committed)
        if self.member not in configuration.members and self.member < configuration.next_member:
            self.removed(committed)

    def append_from_leader(self, entries: Iterable[Entry]) -> None:
        """Take entries that follow the log's last one."""
        for entry in entries:
            self.log.append(entry)
            assert entry.data is not None
            if self.configurations.appended(entry.index, entry.data):
                self.configuration_changed()

    def truncate_from(self, index: RaftIndex) -> None:
        """Remove what never was committed: memory now, the journal with the next entries written at ``index``."""
        self.log.truncate_from(index)
        self.writes.truncated(index)
        if self.configurations.truncated(index):
            self.configuration_changed()

    def repair(self, entry: Entry) -> None:
        """Put the bytes of an unreadable slot back, to be written as a REPAIR record."""
        self.log.repair(entry)
        self.writes.repairs.append(entry)
        if self.configurations.repaired():
            self.configuration_changed()

    def configuration_changed(self) -> None:
        """Another configuration is in effect."""
        if self.leading is not None:
            self.leading.configuration_changed()

    def _tell_leader(self) -> None:
        now = (self.leader, self.term)
        if now != self._told_leader:
            self._told_leader = now
            self.events.append(LeaderChanged(*now))
