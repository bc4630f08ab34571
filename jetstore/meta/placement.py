"""Who is to hold a stream: the members that the cluster wants, and those that leave, with numbers never given twice.

The metadata wants; the stream's own group changes. A *reassign* entry names the wanted members, those that stay under
their numbers, new ones under new numbers. Who is not wanted any more is *leaving*: it keeps its copy, and its vote as
long as its group's configuration has it. When that configuration is committed with the wanted members and nobody else,
a *settled* entry says so, and who leaves may delete. A number that was dropped never comes back, and a node that leaves
gets no new one before that is settled: so whatever a group's leader does that goes by older metadata is a step on the
way of the newer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from jetstore.types import RaftIndex


class Member(NamedTuple):
    """A member of a group, as the metadata assigns it."""

    number: int
    """Its member number in the group."""
    node: str
    incarnation: int
    since: RaftIndex = RaftIndex(0)
    """The metadata entry that gave it: who has applied that, and is this node, has the group."""

    @property
    def home(self) -> tuple[str, int]:
        """The (node id, incarnation) that it lives on."""
        return self.node, self.incarnation


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a group is, and is to be."""

    wanted: tuple[Member, ...] = ()
    """By number, ascending; () = the one node of a standalone server."""
    next_member: int = 1
    """Above every number that was ever given."""
    version: int = 1
    """+1 with every change of ``wanted``; 1 at creation."""
    leaving: tuple[Member, ...] = ()
    """Not wanted any more, and perhaps members still."""
    is_settled: bool = True
    """The group's configuration was committed with exactly the wanted members."""

    @classmethod
    def founding(cls, homes: Iterable[tuple[str, int]], since: RaftIndex) -> Placement:
        """That of a new group: 1, 2, … in this order."""
        wanted = tuple(Member(number, *home, since) for number, home in enumerate(homes, 1))
        return cls(wanted, len(wanted) + 1)

    def number_on(self, home: tuple[str, int]) -> int:
        """The newest number of a member there, leaving ones included; 0 = none."""
        return max((member.number for member in self.wanted + self.leaving if member.home == home), default=0)

    def reassigned(self, wanted: Sequence[Member], index: RaftIndex) -> Placement | None:
        """The placement after such an entry; None if it does not fit this one.

        ``wanted`` may keep members, and give new numbers: to nodes that have none, or that have lost theirs with all
        that it promised (then it is dropped by the same entry).
        """
        kept = {member.number: member for member in self.wanted}
        leaving = {member.home for member in self.leaving}
        result: list[Member] = []
        next_member = self.next_member
        for member in sorted(wanted):
            if member.number in kept and kept[member.number].home == member.home:
                result.append(kept[member.number])
            elif member.number >= next_member and member.home not in leaving:
                next_member = member.number + 1
                result.append(member._replace(since=index))
            else:
                return None
        if not result or len({member.node for member in result}) < len(result):
            return None
        staying = {member.number for member in result}
        dropped = tuple(member for member in self.wanted if member.number not in staying)
        return Placement(tuple(result), next_member, self.version + 1, self.leaving + dropped, is_settled=False)

    def settled(self) -> Placement:
        """Nobody but the wanted members is left."""
        return replace(self, leaving=(), is_settled=True)

    def to_json(self) -> list[Any]:
        """As the metadata's head has it."""
        return [self.version, self.next_member, self.is_settled, self.wanted, self.leaving]

    @classmethod
    def from_json(cls, fields: Sequence[Any]) -> Placement:
        """What ``to_json`` gave."""
        version, next_member, is_settled, wanted, leaving = fields
        return cls(members_of(wanted), next_member, version, members_of(leaving), is_settled)


def members_of(rows: Iterable[Sequence[Any]]) -> tuple[Member, ...]:
    """Members from their JSON arrays."""
    return tuple(Member(*row) for row in rows)


def wanted_at(placement: Placement, homes: Sequence[tuple[str, int]]) -> list[Member]:
    """What an entry has to want so that exactly these nodes hold the group: who is there stays, others get numbers."""
    kept = {member.home: member for member in placement.wanted}
    number = placement.next_member
    wanted = []
    for home in homes:
        if home in kept:
            wanted.append(kept[home])
        else:
            wanted.append(Member(number, *home))
            number += 1
    return wanted
