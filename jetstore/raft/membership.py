"""Who belongs to a group, and how that may change.

A member is a number that is given once in the life of a group: a removed or wiped member that returns gets a new one.
So what an old member says is told from what its successor says by its number alone. The configuration says which node,
and which incarnation of it, a number stands for; ``next_member`` is the high-water mark: no number is ever reused.

Two kinds of change (Raft paper §6, thesis §4)::

    simple   at most one voter differs: any majority of the old voters meets any majority of the new ones
    joint    old ─enter→ (outgoing = old voters, voters = new voters) ─leave→ new
             in between every decision needs a majority of both; a voter that is to become a learner waits in
             ``learners_next``, since it still votes in the outgoing half

The two guards of thesis §4.1 and of the 2015 erratum are the leader's: one change in flight, and none before an entry
of the leader's own term is committed. What is here is arithmetic on values; a log entry carries the whole resulting
configuration (docs/format/raft_configuration.md), so the one in effect is the last in the log, committed or not, and
truncating the log takes it back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from struct import Struct, error
from types import MappingProxyType
from typing import NamedTuple

from jetstore.errors import ConfChangeRefused, Corruption, FormatUnknown


class NodeIncarnation(NamedTuple):
    """Which life of which node a member is on: a node whose disk was lost comes back with another incarnation."""

    node: str
    incarnation: int


class Transition(Enum):
    """How a change takes effect."""

    AUTO = "auto"
    """Simple where that is enough, else joint."""
    SIMPLE = "simple"
    """Refused when more than one voter differs."""
    JOINT = "joint"


class ChangeKind(Enum):
    """What one step of a change does."""

    ADD_LEARNER = "add-learner"
    ADD_VOTER = "add-voter"
    PROMOTE = "promote"
    DEMOTE = "demote"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class ChangeStep:
    """One step: either about a member (by number), or about a node that gets a new number.

    That is the next one unless ``member`` names a later one, which somebody has set aside for it.
    """

    kind: ChangeKind
    member: int = 0
    node: NodeIncarnation | None = None


@dataclass(frozen=True, slots=True)
class ConfChange:
    """A wish; ``Configuration.changed`` says what it comes to, or refuses it."""

    steps: tuple[ChangeStep, ...]
    """Empty: leave the joint configuration."""
    transition: Transition = Transition.AUTO
    auto_leave: bool = True
    """The leader leaves the joint configuration as soon as entering it is committed."""

    @classmethod
    def add_learner(cls, node: str, incarnation: int, member: int = 0) -> ConfChange:
        """A new member that receives everything and counts for nothing. ``member``: its number (0 = the next one)."""
        return cls((ChangeStep(ChangeKind.ADD_LEARNER, member, NodeIncarnation(node, incarnation)),))

    @classmethod
    def add_voter(cls, node: str, incarnation: int) -> ConfChange:
        """A new member that votes at once. A node uses ``add_learner``, then ``promote``."""
        return cls((ChangeStep(ChangeKind.ADD_VOTER, node=NodeIncarnation(node, incarnation)),))

    @classmethod
    def promote(cls, *members: int) -> ConfChange:
        """Learners become voters."""
        return cls(tuple(ChangeStep(ChangeKind.PROMOTE, member) for member in members))

    @classmethod
    def demote(cls, member: int) -> ConfChange:
        """A voter becomes a learner."""
        return cls((ChangeStep(ChangeKind.DEMOTE, member),))

    @classmethod
    def remove(cls, *members: int) -> ConfChange:
        """Members leave the group for good."""
        return cls(tuple(ChangeStep(ChangeKind.REMOVE, member) for member in members))

    @classmethod
    def replace(cls, old_member: int, learner: int) -> ConfChange:
        """One joint change: a learner that caught up becomes a voter in place of another member."""
        return cls(
            (ChangeStep(ChangeKind.PROMOTE, learner), ChangeStep(ChangeKind.REMOVE, old_member)), Transition.JOINT
        )

    @classmethod
    def leave_joint(cls) -> ConfChange:
        """From a joint configuration to its incoming half."""
        return cls(())


_NOBODY: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Configuration:
    """The members of a group. Immutable; equal configurations have equal bytes.

    ``Configuration.none()`` is that of a member which knows of no group yet: nobody votes, nothing can be decided.
    """

    voters: frozenset[int]
    members: Mapping[int, NodeIncarnation]
    """Exactly the numbers in the four sets."""
    next_member: int
    """Above every number that was ever given in this group."""
    voters_outgoing: frozenset[int] = _NOBODY
    """The other half of a joint configuration; empty otherwise."""
    learners: frozenset[int] = _NOBODY
    learners_next: frozenset[int] = _NOBODY
    """Voters of the outgoing half that become learners when it is left."""
    auto_leave: bool = False
    _ids: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises ConfChangeRefused, naming what is wrong, if these sets are not a configuration."""
        object.__setattr__(self, "_ids", tuple(sorted(self.members)))
        _check(self)
        object.__setattr__(self, "members", MappingProxyType({i: self.members[i] for i in self._ids}))

    def __hash__(self) -> int:
        return hash((self.voters, self.voters_outgoing, self.learners, self._ids, self.next_member))

    @classmethod
    def none(cls) -> Configuration:
        """Nobody: the configuration of a member before it was told of one."""
        return cls(_NOBODY, {}, 1)

    @classmethod
    def founding(cls, nodes: Iterable[tuple[str, int]]) -> Configuration:
        """The first configuration of a group: voters 1..n on these (node, incarnation), in this order."""
        members = {number: NodeIncarnation(*node) for number, node in enumerate(nodes, 1)}
        return cls(frozenset(members), members, len(members) + 1)

    @property
    def is_joint(self) -> bool:
        """Whether decisions need two majorities."""
        return bool(self.voters_outgoing)

    @property
    def all_voters(self) -> frozenset[int]:
        """Everybody who votes in one of the halves."""
        return self.voters | self.voters_outgoing

    @property
    def all_members(self) -> tuple[int, ...]:
        """Every number, ascending: the order in which a leader walks over them."""
        return self._ids

    def is_voter(self, member: int) -> bool:
        """Whether it votes in one of the halves."""
        return member in self.voters or member in self.voters_outgoing

    def is_learner(self, member: int) -> bool:
        """Whether it belongs to the group and does not vote in either half."""
        return member in self.learners

    def member_on(self, node: str) -> int:
        """The highest (newest) number of a member on this node; 0 = none."""
        return max((number for number in self._ids if self.members[number].node == node), default=0)

    def changed(self, change: ConfChange) -> Configuration:
        """What this change comes to. Raises ConfChangeRefused, naming what does not fit; nothing is changed then."""
        if not change.steps:
            return self._left()
        if self.is_joint:
            raise ConfChangeRefused("a joint change is under way: it has to be left first")
        draft = _Draft(self)
        for step in change.steps:
            draft.take(step)
        if not draft.voters:
            raise ConfChangeRefused("no voter would be left")
        is_simple = len(draft.voters ^ self.voters) <= 1
        if change.transition is Transition.SIMPLE and not is_simple:
            differing = sorted(draft.voters ^ self.voters)
            raise ConfChangeRefused(f"a simple change may change one voter, this one changes {differing}")
        if change.transition is Transition.JOINT or not is_simple:
            return draft.joint(auto_leave=change.auto_leave)
        return draft.simple()

    def encode(self) -> bytes:
        """Its canonical bytes (docs/format/raft_configuration.md)."""
        parts = [_HEAD.pack(KIND, VERSION, self.auto_leave, self.next_member, len(self._ids))]
        for number in self._ids:
            node, incarnation = self.members[number]
            name = node.encode()
            parts.append(_MEMBER.pack(number, incarnation, self._roles(number), len(name)))
            parts.append(name)
        return b"".join(parts)

    def _roles(self, number: int) -> int:
        roles = 0
        for bit, numbers in zip(_ROLE_BITS, self._sets(), strict=True):
            if number in numbers:
                roles |= bit
        return roles

    def _sets(self) -> tuple[frozenset[int], frozenset[int], frozenset[int], frozenset[int]]:
        return self.voters, self.voters_outgoing, self.learners, self.learners_next

    def _left(self) -> Configuration:
        if not self.is_joint:
            raise ConfChangeRefused("there is no joint change to leave")
        learners = self.learners | self.learners_next
        staying = self.voters | learners
        members = {number: self.members[number] for number in self._ids if number in staying}
        return Configuration(self.voters, members, self.next_member, learners=learners)


class _Draft:
    """A configuration while the steps of one change are taken."""

    def __init__(self, before: Configuration) -> None:
        self.before = before
        self.voters = set(before.voters)
        self.learners = set(before.learners)
        self.members = dict(before.members)
        self.next_member = before.next_member

    def take(self, step: ChangeStep) -> None:
        if step.kind is ChangeKind.ADD_LEARNER:
            self.learners.add(self._new_member(step))
        elif step.kind is ChangeKind.ADD_VOTER:
            self.voters.add(self._new_member(step))
        else:
            self._take_known(step.kind, step.member)

    def _take_known(self, kind: ChangeKind, member: int) -> None:
        if member not in self.voters and member not in self.learners:
            raise ConfChangeRefused(f"{kind.value}: member {member} is not in the group")
        if kind is ChangeKind.PROMOTE:
            if member in self.voters:
                raise ConfChangeRefused(f"promote: member {member} is a voter already")
            self.learners.discard(member)
            self.voters.add(member)
        elif kind is ChangeKind.DEMOTE:
            if member in self.learners:
                raise ConfChangeRefused(f"demote: member {member} is a learner already")
            self.voters.discard(member)
            self.learners.add(member)
        else:
            self.voters.discard(member)
            self.learners.discard(member)

    def _new_member(self, step: ChangeStep) -> int:
        if step.node is None:
            raise ConfChangeRefused(f"{step.kind.value}: no node named")
        if 0 < step.member < self.next_member:
            raise ConfChangeRefused(f"{step.kind.value}: number {step.member} may have been given before")
        number = step.member or self.next_member
        self.next_member = number + 1
        self.members[number] = step.node
        return number

    def simple(self) -> Configuration:
        staying = self.voters | self.learners
        members = {number: node for number, node in self.members.items() if number in staying}
        return Configuration(frozenset(self.voters), members, self.next_member, learners=frozenset(self.learners))

    def joint(self, *, auto_leave: bool) -> Configuration:
        outgoing = self.before.voters
        staying = self.voters | self.learners | outgoing
        return Configuration(
            frozenset(self.voters),
            {number: node for number, node in self.members.items() if number in staying},
            self.next_member,
            voters_outgoing=outgoing,
            learners=frozenset(self.learners - outgoing),
            learners_next=frozenset(self.learners & outgoing),
            auto_leave=auto_leave,
        )


def _check(configuration: Configuration) -> None:
    c = configuration
    everybody = c.voters | c.voters_outgoing | c.learners | c.learners_next
    if everybody != set(c.members):
        raise ConfChangeRefused(
            f"members without a role, or roles without a member: {sorted(everybody ^ set(c.members))}"
        )
    for number in c.members:
        if not 0 < number < c.next_member:
            raise ConfChangeRefused(f"member {number} is not below the next number, {c.next_member}")
    if both := c.learners & c.all_voters:
        raise ConfChangeRefused(f"learner and voter at once: {sorted(both)}")
    if wrong := (c.learners_next - c.voters_outgoing) | (c.learners_next & c.voters):
        raise ConfChangeRefused(f"a next learner is a voter of the outgoing half only: {sorted(wrong)}")
    if not c.voters and everybody:
        raise ConfChangeRefused("no voter")
    if c.auto_leave and not c.is_joint:
        raise ConfChangeRefused("nothing to leave by itself: the configuration is not joint")
    for role, numbers in (("voters", c.voters), ("voters", c.voters_outgoing), ("learners", c.learners)):
        nodes: dict[str, int] = {}
        for number in sorted(numbers):
            node = c.members[number].node
            if node in nodes:
                raise ConfChangeRefused(f"two {role} on node {node!r}: members {nodes[node]} and {number}")
            nodes[node] = number
    for number, (node, incarnation) in c.members.items():
        if not 0 < len(node.encode()) <= NODE_BYTES_MAX:
            raise ConfChangeRefused(f"member {number}: a node id has 1 to {NODE_BYTES_MAX} bytes")
        if not 0 <= incarnation < 1 << 64:
            raise ConfChangeRefused(f"member {number}: incarnation {incarnation} does not fit 64 bits")
    if len(c.members) > MEMBERS_MAX:
        raise ConfChangeRefused(f"{len(c.members)} members; at most {MEMBERS_MAX}")


# -- bytes: docs/format/raft_configuration.md -------------------------------------------------------------------------

KIND = 0xC0
"""First byte of a configuration, unlike that of any other entry of a log."""
VERSION = 0
NODE_BYTES_MAX = 255
MEMBERS_MAX = 64
"""Members of one group, learners included."""

_HEAD = Struct("<BBBQH")
_MEMBER = Struct("<QQBB")
_ROLE_BITS = (1, 2, 4, 8)
_WHERE = "raft configuration"


def is_configuration(data: bytes) -> bool:
    """Whether an entry's data are a configuration."""
    return data[:1] == b"\xc0"


def decode_configuration(data: bytes) -> Configuration:
    """The configuration that ``encode`` wrote.

    Raises FormatUnknown for another kind, version, flag or role; Corruption for bytes that are no configuration or not
    the canonical ones.
    """
    try:
        kind, version, flags, next_member, count = _HEAD.unpack_from(data, 0)
        if (kind, version) != (KIND, VERSION) or flags > 1:
            raise FormatUnknown(
                "kind, version or flags",
                file=_WHERE,
                offset=0,
                expected=(KIND, VERSION, "0 or 1"),
                actual=(kind, version, flags),
            )
        at, members = _HEAD.size, {}
        sets: tuple[list[int], ...] = ([], [], [], [])
        for _ in range(count):
            number, incarnation, roles, length = _MEMBER.unpack_from(data, at)
            if roles > 15:
                raise FormatUnknown("role", file=_WHERE, offset=at, expected="0 to 15", actual=roles)
            at += _MEMBER.size
            members[number] = NodeIncarnation(data[at : at + length].decode(), incarnation)
            at += length
            for bit, numbers in zip(_ROLE_BITS, sets, strict=True):
                if roles & bit:
                    numbers.append(number)
        voters, outgoing, learners, learners_next = (frozenset(numbers) for numbers in sets)
        found = Configuration(voters, members, next_member, outgoing, learners, learners_next, bool(flags))
    except (error, UnicodeDecodeError, ConfChangeRefused) as wrong:
        raise Corruption(f"not a configuration: {wrong}", file=_WHERE, offset=0) from None
    if found.encode() != data:
        raise Corruption(
            "not the canonical bytes", file=_WHERE, offset=0, expected=found.encode().hex(), actual=data.hex()
        )
    return found
