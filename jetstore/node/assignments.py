"""The groups of this node: exactly those that the applied metadata gives it a member of.

Whoever appears in the metadata is opened (what the journal knows of it was found at start) or begins anew (its founding
record went into the block of the entry that created it); whoever disappears is buried: tombstone first, then the files.
A group that the metadata names and the journal does not know is damage: it is alarmed and answered for, never founded.

A node is a member under the number that the metadata gives it. A new number for a group that is here under an older one
means that the older one's promises are void: its data go, and the group begins anew, empty, under the new number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog

from jetstore.errors import Corruption, NotNow
from jetstore.meta.placement import Member
from jetstore.meta.state import MetaState, StreamAssignment, encode_abandoned, encode_skip
from jetstore.meta.stream_key import account_of, stream_key
from jetstore.model.stream import StorageType, StreamConfig
from jetstore.node.delivery import CONSUMER_DELETED
from jetstore.node.fast_batches import OpenCount
from jetstore.node.group import MEMBER, Group, Replication
from jetstore.node.lost import LostStream
from jetstore.node.meta_group import MetaGroup
from jetstore.node.ports import Outlet
from jetstore.node.stream_group import StreamGroup
from jetstore.raft.membership import Configuration
from jetstore.store.ports import GroupRecovery, Kind, Record
from jetstore.stream.entries import encode_config
from jetstore.stream.stream import Stream
from jetstore.types import META_GROUP, GroupUid, RaftIndex, Term

if TYPE_CHECKING:
    from jetstore.node.node import Node

log = structlog.get_logger(__name__)


class Assignments:
    """Follows the metadata. ``streams`` and ``lost`` are what this node has, by name."""

    def __init__(self, node: Node) -> None:
        """Nothing is open before ``meta_applied`` sees metadata that is current."""
        self._node = node
        self.streams: dict[str, StreamGroup] = {}
        self.lost: dict[str, LostStream] = {}
        """Streams that the metadata names and the store does not hold any more: alarmed, never founded again."""
        self._recovered: dict[GroupUid, GroupRecovery] = {}
        """What the journal knew at start of groups that are not open."""
        self._unnamed: dict[GroupUid, int] = {}
        """Groups with a founding record that no applied metadata has named yet, and the member number in it."""
        self._numbers: dict[GroupUid, int] = {}
        """The member number that the journal has, or will have, of each group that it has no tombstone of."""
        self._forgotten: set[GroupUid] = set()
        """Open groups that do not take part: votes or entries of theirs are lost."""
        self._beginning: set[GroupUid] = set()
        """Groups that wait for their new founding record."""
        self._tombstones: set[GroupUid] = set()
        """Groups whose tombstone the journal carries until a metadata checkpoint covers it."""
        self._given_up: set[tuple[GroupUid, Term]] = set()
        """Streams half made from archives whose end this node has proposed, leading in this term."""
        self._fast_batches = OpenCount()
        """Of all streams together."""
        self._is_following = False
        """The metadata was current once since start: groups come and go with it."""
        self._followed: MetaState | None = None
        """The state that everything here agrees with, but for what is ``changed`` in it."""
        self._config_due: dict[str, None] = {}
        """Streams whose desired configuration is neither applied here nor proposed."""
        self.touched: dict[str, None] = {}
        """Streams that have changed since ``Admitting`` looked (and cleared it)."""

    @property
    def _meta(self) -> MetaGroup:
        return self._node.meta

    def recovered(self, groups: dict[GroupUid, GroupRecovery]) -> None:
        """What the journal knew at start."""
        self._recovered = {uid: recovery for uid, recovery in groups.items() if uid != META_GROUP}
        self._numbers = {uid: known.generation for uid, known in self._recovered.items() if known.generation}

    # -- following ------------------------------------------------------------------------------------------------

    def meta_applied(self) -> None:
        """Entries of the metadata were applied, or another state is installed."""
        if self._is_following:
            machine = self._meta.machine
            self._follow(machine.changed if machine is self._followed else self._all_names())
        elif self._meta.is_current:
            self._is_following = True
            self._begin()

    def meta_current(self) -> None:
        """All of the metadata that this node had is applied, and it is nobody's turn to add to it."""
        if not self._is_following and self._meta.core.log.applied_index:
            self.meta_applied()

    def _begin(self) -> None:
        """The metadata is as new as anybody's, for the first time since start: what it does not name has to go."""
        node, machine = self._node, self._meta.machine
        assigned = {a.uid for a in machine.streams.values() if self._member(a)}
        numbers = {a.uid: a.placement.next_member for a in machine.streams.values()}
        known = assigned | set(self._recovered) | {META_GROUP}
        for uid in sorted(set(self._recovered) - assigned):
            number = self._recovered[uid].generation
            if not number:  # its tombstone stands; its files may not all be gone
                del self._recovered[uid]
                self._tombstones.add(uid)
                self._remove_files(uid)
            elif uid < machine.next_uid and number < numbers.get(uid, number + 1):
                self._entomb(uid)
            else:  # the entry that names it may be in the log and not readable yet: then it is opened as it was
                self._unnamed[uid] = number
                if node.cluster is None:  # nobody else may still name it
                    self._meta.propose_with(encode_skip(uid), None)
        self._follow(self._all_names())
        for finding in node.parts.indexes.findings:
            log.warning("index rebuilt", finding=finding)
        node.files.quarantine_unknown(known | set(self._unnamed), node.clock.wall_ns())  # the buried ones are removed

    def _all_names(self) -> Iterable[str]:
        return dict.fromkeys([*self.streams, *self.lost, *self._meta.machine.streams])

    def _follow(self, changed: Iterable[str]) -> None:
        """Bring the groups of these streams in line with the metadata: a few, or (after a start, an install) all."""
        machine = self._followed = self._meta.machine
        names = list(changed)
        machine.changed.clear()
        if self._node.cluster is not None:
            self.touched |= dict.fromkeys(names)
        for name in names:
            group = self.streams.get(name) or self.lost.get(name)
            if group is None:
                continue
            assignment = self._assigned(name)
            if assignment is None or assignment.uid != group.uid:
                self._forget(name)
                self._entomb(group.uid)
            elif self._member(assignment) != _number_of(group):
                self._forget(name)
                self._begin_anew(assignment)
        for name in names:
            assignment = self._assigned(name)
            is_here = name in self.streams or name in self.lost
            if assignment is not None and not is_here and assignment.uid not in self._beginning:
                self._open(assignment)
        for uid, number in sorted(self._unnamed.items()):
            named = machine.streams.get(machine.by_uid.get(uid, ""))
            is_passed = uid < machine.next_uid and (named is None or number < named.placement.next_member)
            if is_passed and uid not in self._beginning:
                del self._unnamed[uid]
                self._entomb(uid)
        for name in dict.fromkeys([*names, *self._config_due]):
            open_group = self.streams.get(name)
            if open_group is None:
                self._config_due.pop(name, None)
                continue
            self.bring_config_up(open_group)
            if open_group.is_restoring and not machine.streams[name].is_restoring:
                open_group.restored()
        self.give_up_restores()

    def _assigned(self, name: str) -> StreamAssignment | None:
        """The stream, if it is there and this node has a member of its group."""
        assignment = self._meta.machine.streams.get(name)
        return assignment if assignment is not None and self._member(assignment) else None

    def give_up_restores(self) -> None:
        """Streams made from archives whose maker is gone: whoever leads the metadata deletes them."""
        meta = self._meta
        if not meta.core.is_leader:
            return
        for name in list(meta.machine.restoring):
            assignment = meta.machine.streams[name]
            key = assignment.uid, meta.core.term
            is_mine = assignment.uid in self._node.backups.restoring
            if not is_mine and key not in self._given_up:
                with suppress(NotNow):
                    meta.propose_with(encode_abandoned(assignment), None)
                    self._given_up.add(key)

    def found(self, uid: GroupUid, members: tuple[Member, ...]) -> list[Record]:
        """The founding record of this node's member of a group that gets new members (``MetaGroup.found``)."""
        number = self._number(members)
        known = self._numbers.get(uid, 0)
        if not number or number == known:
            if number and uid not in self._recovered and not self._is_open(uid):
                self._unnamed[uid] = number
            return []
        if known and uid not in self._unnamed:
            return []  # it gives way when the entry is applied, not before
        return self._founding_records(uid, number, known)

    def _founding_records(self, uid: GroupUid, number: int, known: int) -> list[Record]:
        self._unnamed[uid] = self._numbers[uid] = number
        self._tombstones.discard(uid)
        void = [founding_record(uid, 0)] if known else []  # the other number's is not below this one's for certain
        return [*void, founding_record(uid, number)]

    def found_missing(self, machine: MetaState, journal_last: RaftIndex) -> list[Record]:
        """Founding records that a crash cut off between an installed metadata head and its RESET line.

        Members that entries gave which the journal had, up to ``journal_last``, were founded with those.
        """
        return self.founded_since(machine, journal_last)

    def founded_since(self, machine: MetaState, index: RaftIndex) -> list[Record]:
        """Founding records of members that this node was given by entries behind ``index``."""
        records: list[Record] = []
        for assignment in sorted(machine.streams.values(), key=lambda a: a.uid):
            placement = assignment.placement
            number = self._member(assignment)
            if any(m.number == number and m.since > index for m in placement.wanted + placement.leaving):
                records += self.found(assignment.uid, placement.wanted + placement.leaving)
            elif not placement.wanted and assignment.created_index > index:
                records += self.found(assignment.uid, ())
        return records

    def _member(self, assignment: StreamAssignment) -> int:
        """This node's member number in a stream's group; 0 = none."""
        return self._number(assignment.placement.wanted + assignment.placement.leaving)

    def _number(self, members: tuple[Member, ...]) -> int:
        cluster = self._node.cluster
        if cluster is None:
            return MEMBER if not members else 0
        own = (cluster.identity.node_id, cluster.identity.incarnation)
        return max((member.number for member in members if member.home == own), default=0)

    def _is_open(self, uid: GroupUid) -> bool:
        here: list[StreamGroup | LostStream] = [*self.streams.values(), *self.lost.values()]
        return any(group.uid == uid for group in here)

    def amnesiac(self) -> list[tuple[GroupUid, int]]:
        """Groups in which this node's member does not know any more what it has promised, and its numbers there."""
        lost: list[StreamGroup | LostStream] = list(self.lost.values())
        lost += [group for group in self.streams.values() if group.uid in self._forgotten]
        return [(group.uid, _number_of(group)) for group in lost]

    # -- opening --------------------------------------------------------------------------------------------------

    def try_lost_again(self) -> None:
        """Open what could not be read: the device may have recovered."""
        for name in [name for name, lost in self.lost.items() if lost.uid in self._recovered]:
            assignment = self.lost[name].assignment
            self._forget(name)
            self._open(assignment)

    def _open(self, assignment: StreamAssignment) -> None:
        uid, number = assignment.uid, self._member(assignment)
        recovered = self._recovered.pop(uid, None)
        if recovered is not None and recovered.generation and recovered.generation != number:
            self._begin_anew(assignment)
            return
        is_new = recovered is None
        try:
            if self._unnamed.get(uid) != number if is_new else not self._numbers.get(uid):
                raise Corruption("the journal does not know the group", file="journal", offset=0)
            group = self._group(assignment, recovered)
        except Corruption as error:
            is_member = recovered is not None and recovered.generation and not _lost_memory(recovered)
            if recovered is not None and is_member and self._node.behind is not None:
                self._open_without_state(assignment, recovered, error)
                return
            if recovered is not None:
                self._recovered[uid] = recovered
            self.lost[assignment.name] = LostStream(
                assignment, number, error, self._node.outlet_of(account_of(assignment.name))
            )
            log.error("stream damaged", stream=assignment.name, uid=uid, error=str(error))
            return
        self._unnamed.pop(uid, None)
        if group.paused_by is None:
            group.start()
        if is_new and self._meta.core.is_leader and assignment.placement.version == 1:
            group.campaign()  # who creates leads first
        if group.core.log.faulty_index is not None or group.paused_by is not None:
            log.error(
                "stream faulty",
                stream=group.name,
                index=group.core.log.faulty_index,
                last_index=group.core.log.last_index,
            )
            if self._node.cluster is None:
                group.announce_fault()
            if group.paused_by is None and group.is_alone:
                self._node.resuming.stands_still(group)

    def _group(self, assignment: StreamAssignment, recovered: GroupRecovery | None) -> StreamGroup:
        node = self._node
        head: bytes | None = None
        is_newer = False
        if recovered is not None:
            before = recovered.checkpoint_hash
            head, recovered = node.files.head_of(recovered)
            is_newer = recovered.checkpoint_hash != before
            if is_newer:
                node.files.secure(recovered)  # before files that only an older checkpoint names are removed
        storage = str(assignment.config.get("storage", "file"))
        group = self._driver(assignment, recovered, node.files.open_stream(assignment.uid, storage, head))
        problem = recovery_problem(recovered, is_alone=node.cluster is None)
        if problem:
            self._forgotten.add(group.uid)
            group.paused_by = Corruption(f"the log of stream {group.name} {problem}", file="journal", offset=0)
        if recovered is not None and is_newer:  # a head without its CKPT line: from now on it counts
            group.add_record(reset_record(recovered))
        return group

    def _open_without_state(self, assignment: StreamAssignment, recovered: GroupRecovery, error: Corruption) -> None:
        """The checkpoint cannot be read, the log can: this member goes on voting and storing, and asks for a state."""
        assert self._node.behind is not None
        log.error("stream damaged, its state is fetched", stream=assignment.name, uid=assignment.uid, error=str(error))
        storage = str(assignment.config.get("storage", "file"))
        group = self._driver(assignment, recovered, self._node.files.placeholder(recovered, storage))
        group.bar()
        group.start()
        self._node.behind.lost(group)

    def _driver(self, assignment: StreamAssignment, recovered: GroupRecovery | None, stream: Stream) -> StreamGroup:
        """The driver of a stream's group, recovered or (None) new. Not started yet."""
        node = self._node
        group = StreamGroup(
            uid=assignment.uid,
            name=assignment.name,
            stream=stream,
            recovery=recovered,
            commit=node.commit,
            limits=node.limits,
            loop=node.loop,
            clock=node.clock,
            outlet=node.outlet_of(account_of(assignment.name)),
            rng=node.parts.rng,
            admission=node.admission,
            on_applied=lambda applied: node.storage.note_applied(group),
            on_pause=self._on_pause,
            replication=self._replication(assignment),
        )
        group.on_led = self._led
        group.ingest.fast.all = self._fast_batches
        if node.rooms is not None:
            is_memory = assignment.config.get("storage") == StorageType.MEMORY.value
            group.ingest.room = node.rooms.of(group.key, in_memory=is_memory)
        group.is_restoring = assignment.is_restoring
        leaders = node.leaders
        if leaders is not None:
            group.on_quorum_lost = leaders.lost
            group.delivery.on_created = lambda consumer: leaders.created(group, consumer)
        account = account_of(assignment.name)
        group.find_stream = lambda name: self.find_stream(stream_key(account, name))
        group.find_at = self._find_at
        group.assigned = self.assigned
        if node.behind is not None:
            group.on_damage = node.behind.damaged
        self.streams[assignment.name] = group
        node.storage.add(group)
        return group

    def find_stream(self, key: str) -> StreamGroup | None:
        """A stream of this node that can be copied from."""
        group = self.streams.get(key)
        return None if group is None or group.is_restoring else group

    def _find_at(self, outlet: Outlet, name: str) -> StreamGroup | None:
        """A stream of the account that has this outlet; streams of an account that is the only one have plain keys."""
        found = (self.find_stream(key) for key in (stream_key(outlet.account, name), name))
        return next((group for group in found if group is not None and group.outlet is outlet), None)

    def assigned(self, key: str) -> tuple[GroupUid, StreamConfig] | None:
        """Group and desired configuration of a stream, None if there is none. Raises NotNow while that is not known."""
        if not self._meta.serves or self._meta.is_faulty:
            raise NotNow("the metadata is not up to date")
        assignment = self._meta.machine.streams.get(key)
        return None if assignment is None else (assignment.uid, StreamConfig.from_json(assignment.config))

    def _replication(self, assignment: StreamAssignment) -> Replication | None:
        cluster = self._node.cluster
        if cluster is None:
            return None
        return Replication(
            host=cluster.host,
            member=self._member(assignment),
            configuration=Configuration.founding(assignment.members),
            boot=cluster.identity.boot_counter,
            random_below=self._node.parts.rng.randrange,
        )

    def _led(self, group: StreamGroup) -> None:
        self.bring_config_up(group)
        if self._node.leaders is not None:
            self._node.leaders.elected(group)

    def bring_config_up(self, group: StreamGroup) -> None:
        """Propose the desired configuration to the stream's own group if that has not been done; a leader's duty."""
        assignment = self._meta.machine.streams.get(group.key)
        self._config_due.pop(group.key, None)
        if assignment is None or assignment.uid != group.uid:
            return
        if max(group.stream.config_version, group.config_proposed) >= assignment.version:
            return
        self._config_due[group.key] = None  # who leads does it, and this may be who leads next
        if not group.serves or group.is_faulty:
            return
        config = StreamConfig.from_json(assignment.config)
        try:
            group.propose_with(encode_config(assignment.version, assignment.created_ns, config), None)
        except NotNow:
            return
        group.config_proposed = assignment.version
        del self._config_due[group.key]

    # -- the end of a group ---------------------------------------------------------------------------------------

    def _forget(self, name: str) -> None:
        """A stream is gone: stop its group, take it off the router."""
        group = self.streams.pop(name, None)
        if group is not None:
            self._forgotten.discard(group.uid)
            group.delivery.stop(CONSUMER_DELETED)
            group.stop()
            self._node.storage.discard(group.uid)
        lost = self.lost.pop(name, None)
        if lost is not None:
            lost.close()

    def _begin_anew(self, assignment: StreamAssignment) -> None:
        """Under a new number: what the old one had is void, durably, then its files go, then the group is opened."""
        uid, name = assignment.uid, assignment.name
        number = self._member(assignment)
        log.warning("group begins anew under another number", stream=name, number=number, old=self._numbers.get(uid))
        self._beginning.add(uid)
        self._recovered.pop(uid, None)

        def durable() -> None:
            self._beginning.discard(uid)
            self._remove_files(uid)
            if self._is_following:
                self._follow([name])

        *before, founding = self._founding_records(uid, number, self._numbers.get(uid, 0))
        for record in before:
            self._meta.add_record(record)
        self._meta.add_record(founding, durable)

    def _entomb(self, uid: GroupUid) -> None:
        """Write the group's tombstone; its files go once that is durable."""
        self._numbers.pop(uid, None)
        self._recovered.pop(uid, None)

        def durable() -> None:
            if uid not in self._numbers:  # it may have been founded again meanwhile
                self._tombstones.add(uid)
            self._remove_files(uid)

        self._meta.add_record(founding_record(uid, 0), durable)

    @property
    def has_tombstones(self) -> bool:
        """Whether the journal carries dead groups in its table that a metadata checkpoint would free it of."""
        return bool(self._tombstones)

    def meta_checkpointed(self) -> None:
        """The metadata checkpoint proves that these uids are dead: the journal need not carry that any more."""
        if self._tombstones:
            forgotten, self._tombstones = sorted(self._tombstones), set()
            self._node.parts.disk.call("forget_groups", forgotten).add_done_callback(seen)

    def _remove_files(self, uid: GroupUid) -> None:
        self._node.storage.discard(uid)
        for command in ("remove_group_dir", "index_drop"):
            self._node.parts.disk.call(command, uid).add_done_callback(seen)

    def _on_pause(self, group: Group) -> None:
        if isinstance(group, StreamGroup):
            self.paused(group)

    def paused(self, group: StreamGroup) -> None:
        """A group stands still and takes no publishes: files that only it needs must not fill the journal.

        With peers it need not stay so: somebody else leads, and the state is fetched anew. A lone member tries again.
        """
        behind = self._node.behind
        if group.is_alone:
            self._node.resuming.stands_still(group)
        elif behind is not None and not group.is_barred:
            group.bar()
            group.hand_over()
            if group.paused_by is not None:
                group.note_damage(group.paused_by)
            behind.lost(group)
        self.tell_standing()

    def tell_standing(self) -> None:
        """Tell the journal which groups stand still."""
        standing = [other.uid for other in self.streams.values() if other.is_faulty]
        self._node.parts.disk.call("leave_uncounted", standing).add_done_callback(seen)


def _number_of(group: StreamGroup | LostStream) -> int:
    return group.member if isinstance(group, LostStream) else group.core.member


def founding_record(uid: GroupUid, member: int) -> Record:
    """The GROUP line of a member (0 = the group's tombstone)."""
    return Record(Kind.GROUP, uid, Term(0), Term(0), RaftIndex(0), RaftIndex(0), 0, member, b"")


def reset_record(recovered: GroupRecovery) -> Record:
    """The RESET line of the checkpoint that a group was opened from."""
    index, term = recovered.checkpoint_index, recovered.checkpoint_term
    return Record(Kind.RESET, recovered.uid, term, Term(0), index, index, 0, recovered.checkpoint_hash, b"")


def recovery_problem(recovered: GroupRecovery | None, *, is_alone: bool) -> str:
    """Why a group must not take part, from what the journal lost of it; "" = it may."""
    if recovered is None:
        return ""
    if recovered.is_stopped:
        return "has a line of an unknown kind"
    if not recovered.last_known:
        return "has lost its last entries"
    if not recovered.hard_state_known and not is_alone:  # it may have voted: a lone voter has nobody to contradict
        return "has lost its vote"
    return ""


def _lost_memory(recovered: GroupRecovery) -> bool:
    """Whether the member must not even vote."""
    return bool(recovery_problem(recovered, is_alone=False))


def seen(future: asyncio.Future[Any]) -> None:
    """A failure to tidy up is not lost: a poisoned disk fails the journal, too, and the next start tidies up again."""
    if not future.cancelled():
        future.exception()
