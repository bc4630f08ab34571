"""A small world for RaftCores: disks that may lose what was not stored, a network that does what it is told.

Nothing here is random and nothing happens by itself: golden scripts and the random cluster decide. ``World.watchers``
hear of everything that matters, in order: a checker, or a printer.

A member's disk is what recovery would find. Blocks (``Ready``) wait in ``Member.pending`` until ``store`` makes them
durable; a crash keeps any prefix of them. Damage leaves an entry's line and takes its bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from zlib import crc32

from jetstore.raft.core import RaftCore, RaftOptions
from jetstore.raft.log import Entry, RaftLog
from jetstore.raft.membership import Configuration, is_configuration
from jetstore.raft.message import Message
from jetstore.raft.ready import CheckpointFetch, CheckpointWanted, Event, HardState, Ready, Removed
from jetstore.types import RaftIndex, Term


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A durable snapshot. ``state`` is the digest of everything applied up to ``index``."""

    index: int
    term: int
    configuration: Configuration
    state: int = 0


def fold(state: int, entry: Entry) -> int:
    """The state machine: a running digest that no two different histories share."""
    data = entry.data
    assert data is not None, "applied an entry that nobody can read"
    return crc32(entry.index.to_bytes(8, "little") + (b"" if is_configuration(data) else data), state)


@dataclass
class Disk:
    """What one member has durably."""

    checkpoint: Checkpoint
    hard_state: HardState = HardState(Term(0), 0)
    entries: list[Entry] = field(default_factory=list)
    """Everything above the checkpoint, durable; ``data`` None = damaged."""
    boot: int = 0

    @property
    def last_index(self) -> int:
        return self.checkpoint.index + len(self.entries)

    @property
    def last(self) -> tuple[int, int]:
        """(term, index) of the last entry there is evidence of."""
        return (self.entries[-1].term if self.entries else self.checkpoint.term), self.last_index

    def entry(self, index: int) -> Entry | None:
        position = index - self.checkpoint.index - 1
        return self.entries[position] if 0 <= position < len(self.entries) else None

    def term_at(self, index: int) -> int | None:
        if index == self.checkpoint.index:
            return self.checkpoint.term
        found = self.entry(index)
        return found.term if found else None

    def write(self, ready: Ready) -> None:
        """One block becomes durable: hard state, repaired slots, then entries, which replace what stands there."""
        if ready.hard_state is not None:
            self.hard_state = ready.hard_state
        for slot in ready.repairs:
            found = self.entry(slot.index)
            if found is not None and found.term == slot.term:
                self.entries[slot.index - self.checkpoint.index - 1] = slot
        entries = [entry for entry in ready.entries if entry.index > self.checkpoint.index]
        if entries:
            keep = entries[0].index - self.checkpoint.index - 1
            assert 0 <= keep <= len(self.entries), f"a hole before {entries[0].index}: {self.last_index} is the last"
            if len(entries) == len(ready.entries):
                assert self.term_at(entries[0].index - 1) == ready.prev_term, "prev_term names another entry"
            del self.entries[keep:]
            self.entries += entries

    def damage(self, index: int, *, with_line: bool = False) -> bool:
        """The bytes of an entry become unreadable; its line still says that it exists, and that it is no configuration.

        ``with_line``: that line is unreadable, too, and the entry known from what stands behind it.
        """
        found = self.entry(index)
        if found is None or found.data is None:
            return False
        is_plain = not with_line and not is_configuration(found.data)
        self.entries[index - self.checkpoint.index - 1] = replace(found, data=None, cache=None, is_plain=is_plain)
        return True

    def install(self, checkpoint: Checkpoint) -> None:
        """Replace the checkpoint; a suffix that fits behind it stays."""
        if self.term_at(checkpoint.index) == checkpoint.term:
            self.entries = self.entries[checkpoint.index - self.checkpoint.index :]
        else:
            self.entries = []
        self.checkpoint = checkpoint

    def log(self, resident_bytes_max: int) -> RaftLog:
        """As recovery finds it."""
        return RaftLog(
            checkpoint_index=RaftIndex(self.checkpoint.index),
            checkpoint_term=Term(self.checkpoint.term),
            entries=list(self.entries),
            resident_bytes_max=resident_bytes_max,
        )


class Watcher:
    """Hears of everything. All methods are optional."""

    def block(self, member: Member, ready: Ready) -> None:
        """It listed something to write."""

    def will_store(self, member: Member, ready: Ready) -> None:
        """That block is about to be durable: the disk is still as it was."""

    def is_durable(self, member: Member, ready: Ready) -> None:
        """It is; the core may never hear of it (a crash)."""

    def stored(self, member: Member, ready: Ready) -> None:
        """That block is durable, and the core was told."""

    def sent(self, member: Member, message: Message) -> None:
        """A message left."""

    def applied(self, member: Member, entry: Entry) -> None:
        """It applied an entry."""

    def installed(self, member: Member, checkpoint: Checkpoint) -> None:
        """It installed a checkpoint in place of its log."""

    def happened(self, member: Member, event: Event) -> None:
        """Its core told of something."""


class Member:
    """One core, its disk, and what is on the way between them."""

    def __init__(self, world: World, number: int, disk: Disk) -> None:
        self.world = world
        self.number = number
        self.disk = disk
        self.core: RaftCore | None = None
        self.pending: deque[Ready] = deque()
        """Blocks that are written and not durable."""
        self.is_async = False
        """Blocks wait for ``store``; otherwise each is durable at once."""
        self.splits = False
        """Hard states are blocks of their own."""
        self.is_full = False
        """The disk takes hard states only; blocks with more wait, and term and vote overtake them."""
        self.applies = True
        self.is_archived = False
        """It was told that it no longer belongs to the group."""
        self.applied_index = disk.checkpoint.index
        self.applied_term = disk.checkpoint.term
        self.state = disk.checkpoint.state
        self.fetch: CheckpointFetch | None = None
        self._saved: Checkpoint | None = None
        """A durable checkpoint that the log was not cut back to yet."""
        self._saved_bytes = 0
        self.options = world.options

    @property
    def is_up(self) -> bool:
        return self.core is not None

    @property
    def running(self) -> RaftCore:
        assert self.core is not None, f"member {self.number} is down"
        return self.core

    def start(self) -> None:
        """Recovery: a core that knows what the disk knows."""
        assert self.core is None
        self.disk.boot += 1
        if self._saved is not None:
            self.disk.install(self._saved)
            self._saved = None
        checkpoint = self.disk.checkpoint
        self.applied_index, self.applied_term = checkpoint.index, checkpoint.term
        self.state = checkpoint.state
        self.fetch = None
        self.core = RaftCore(
            member=self.number,
            configuration=checkpoint.configuration,
            hard_state=self.disk.hard_state,
            log=self.disk.log(self.world.resident_bytes_max),
            random_below=self.world.dice(self.number),
            boot=self.disk.boot,
            options=self.options,
        )
        self.pump()

    def crash(self, keep: int = 0) -> None:
        """Power cut: of the blocks under way the first ``keep`` reached the disk, unknown to anybody."""
        for ready in list(self.pending)[:keep]:
            self._write(ready)
        self.pending.clear()
        self.core = None

    def _ready(self) -> Ready:
        core = self.running
        if self.splits and core.has_hard_state():
            return core.ready_hard_state()
        return core.ready(self.world.block_bytes)

    def store(self, count: int | None = None) -> bool:
        """The next blocks that find room become durable; whether there were any."""
        busy = False
        while count != 0:
            position = next((i for i, r in enumerate(self.pending) if not (self.is_full and _has_bodies(r))), None)
            if position is None:
                break
            busy = True
            ready = self.pending[position]
            del self.pending[position]
            self._write(ready)
            self.running.stored(ready.token)
            for watcher in self.world.watchers:
                watcher.stored(self, ready)
            if count is not None:
                count -= 1
        return busy

    def _write(self, ready: Ready) -> None:
        for watcher in self.world.watchers:
            watcher.will_store(self, ready)
        self.disk.write(ready)
        for watcher in self.world.watchers:
            watcher.is_durable(self, ready)

    def pump(self) -> None:
        """Do what the core lists until it lists nothing: blocks, messages, entries to apply, events."""
        core = self.core
        while core is not None and core is self.core:
            busy = False
            while core.has_ready():
                busy = True
                ready = self._ready()
                self.pending.append(ready)
                for watcher in self.world.watchers:
                    watcher.block(self, ready)
            if not self.is_async:
                busy |= self.store()
            for message in core.take_messages():
                busy = True
                self.world.send(self, message)
            for event in core.take_events():
                busy = True
                self._happened(event)
            if self.applies:
                busy |= self._apply()
            if not busy:
                return

    def _apply(self) -> bool:
        entries = self.running.to_apply()
        for entry in entries:
            assert entry.index == self.applied_index + 1, f"applied {self.applied_index}, next offered {entry.index}"
            self.applied_index, self.applied_term = entry.index, entry.term
            self.state = fold(self.state, entry)
            for watcher in self.world.watchers:
                watcher.applied(self, entry)
        if entries:
            self.running.applied(RaftIndex(self.applied_index))
        return bool(entries)

    def _happened(self, event: Event) -> None:
        for watcher in self.world.watchers:
            watcher.happened(self, event)
        if isinstance(event, CheckpointWanted):
            self.checkpoint()
        elif isinstance(event, CheckpointFetch):
            self.fetch = event
        elif isinstance(event, Removed):
            self.is_archived = True

    def checkpoint(self) -> Checkpoint:
        """A durable checkpoint of what is applied; the log keeps its entries."""
        if self.applied_index > self.saved.index:
            configuration = self.running.configuration_at(RaftIndex(self.applied_index))
            self._saved = Checkpoint(self.applied_index, self.applied_term, configuration, self.state)
            self._saved_bytes = self.running.log.applied_bytes_total
        return self.saved

    @property
    def saved(self) -> Checkpoint:
        """The newest durable checkpoint."""
        return self._saved or self.disk.checkpoint

    def compact(self) -> None:
        """Checkpoint, then let go of everything it covers, on disk and in memory."""
        made = self.checkpoint()
        if self._saved is not None:
            self.disk.install(made)
            self._saved = None
            core = self.running
            core.log.checkpointed(RaftIndex(made.index), Term(made.term), self._saved_bytes)
            core.compact(RaftIndex(made.index))

    def install(self, checkpoint: Checkpoint) -> None:
        """A fetched checkpoint replaces what it covers, and makes room. Blocks under way are finished first."""
        self.is_full = False
        self.drain()
        self.disk.install(checkpoint)
        self._saved = None
        self.fetch = None
        if checkpoint.index > self.applied_index:
            self.applied_index, self.applied_term = checkpoint.index, checkpoint.term
            self.state = checkpoint.state
        for watcher in self.world.watchers:
            watcher.installed(self, checkpoint)
        self.running.restored(RaftIndex(checkpoint.index), Term(checkpoint.term), checkpoint.configuration)

    def drain(self) -> None:
        """Everything the core wants written is durable now."""
        core = self.running
        while core.has_ready() or self.pending:
            if core.has_ready():
                ready = self._ready()
                self.pending.append(ready)
                for watcher in self.world.watchers:
                    watcher.block(self, ready)
            self.store()


def _has_bodies(ready: Ready) -> bool:
    return bool(ready.entries or ready.repairs)


class World:
    """Members, the messages between them, and who may talk to whom."""

    def __init__(
        self,
        dice: Callable[[int], Callable[[int], int]],
        options: RaftOptions | None = None,
        watchers: Iterable[Watcher] = (),
    ) -> None:
        self.dice = dice
        """Member number → its ``random_below``."""
        self.options = options or RaftOptions()
        self.watchers: Sequence[Watcher] = list(watchers)
        self.members: dict[int, Member] = {}
        self.in_flight: list[Message] = []
        self.cuts: set[tuple[int, int]] = set()
        """(sender, receiver) pairs whose messages are lost."""
        self.block_bytes: int | None = None
        self.resident_bytes_max = 1 << 30

    def found(self, configuration: Configuration) -> None:
        """The founding members, each with an empty disk."""
        for number in configuration.all_members:
            self.add(number, configuration)

    def add(self, number: int, configuration: Configuration | None = None) -> Member:
        """A member with an empty disk; one that joins later knows of no configuration."""
        checkpoint = Checkpoint(0, 0, configuration or Configuration.none())
        member = Member(self, number, Disk(checkpoint))
        self.members[number] = member
        return member

    def send(self, member: Member, message: Message) -> None:
        for watcher in self.watchers:
            watcher.sent(member, message)
        self.in_flight.append(message)

    def is_cut(self, message: Message) -> bool:
        return (message.sender, message.to) in self.cuts

    def deliver(self, message: Message) -> bool:
        """Hand a message over (it is not taken out of ``in_flight`` here). False: nobody there, or cut off."""
        receiver = self.members.get(message.to)
        if receiver is None or receiver.core is None or self.is_cut(message):
            return False
        receiver.core.step(message)
        return True

    def fetch(self, member: Member) -> bool:
        """Let a member have the checkpoint it asked for, if its source is up and has one that is new enough."""
        wanted = member.fetch
        if wanted is None or member.core is None:
            return False
        source = self.members.get(wanted.source)
        if source is None or source.core is None or (wanted.source, member.number) in self.cuts:
            return False
        checkpoint = source.saved
        if checkpoint.index < wanted.index:
            checkpoint = source.checkpoint()
        if checkpoint.index < member.applied_index:
            member.fetch = None  # it came by itself meanwhile; the leader asks again if not
            return False
        if checkpoint.index < wanted.index:
            return False
        member.install(checkpoint)
        return True
