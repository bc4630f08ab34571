"""A node whose disk was lost comes back as another node: who leads the metadata takes it in, in place of the old one.

It has the old one's name, another node id (or another incarnation), and no cluster. Nothing it says counts before it is
a member, and it becomes one under a number that was never used: of the metadata group first, as a learner, then as a
voter in the same joint change in which the old number leaves (``placing``); then of each stream's group, likewise. A
node that has lost what it promised in one group only gets a new number in that group.

A stream whose configuration asks for another number of replicas gets as many members: added ones where fewest streams
are; of those that are too many the leader stays, then who is connected.

Everything is looked at again and again, from applied metadata and who is connected: nothing else is remembered.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import structlog

from jetstore.errors import JetstoreError, NotNow
from jetstore.meta.placement import Member, wanted_at
from jetstore.meta.state import StreamAssignment, encode_admit, encode_reassign
from jetstore.node.cluster import INVITE
from jetstore.node.spares import spares
from jetstore.types import GroupUid

if TYPE_CHECKING:
    from jetstore.node.cluster import Cluster
    from jetstore.node.link.hello import Hello
    from jetstore.node.node import Node

log = structlog.get_logger(__name__)

LOOK_S = 0.5
REASSIGNED_MAX = 64
"""Streams that get another member in one look."""
LOST = "placement.lost"


class Admitting:
    """Built by a node that has a cluster; works while it leads the metadata."""

    def __init__(self, node: Node, cluster: Cluster) -> None:
        """Hears from others at once; works while ``run`` runs."""
        self._node = node
        self._cluster = cluster
        self._looked: tuple[int, int] | None = None
        """Term of this node's lead and version of the list of nodes for which every stream was looked at."""
        self._unfinished: dict[str, None] = {}
        """Streams that want other members, as far as it was seen: nobody to take their places, or not settled yet."""
        cluster.links.register(LOST, self._hear_lost)

    async def run(self) -> None:
        """Work, for as long as the node lives."""
        while True:
            await asyncio.sleep(LOOK_S)
            self._tell_lost()
            if self._node.meta.serves:
                self._admit()
                self._invite()
                self._place_streams()
            else:
                self._looked = None
                self._node.assignments.touched.clear()

    # -- the metadata group -------------------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Propose the first node that has come in place of another; one at a time."""
        state = self._node.meta.machine
        if state.nodes is not None and not state.nodes.is_settled:
            return
        homes = set(self._node.homes())
        for hello in self._cluster.peers():
            if _home(hello) in homes or not self._takes_a_place(hello):
                continue
            log.warning("a node has come back without its disk: it is taken in anew", node=hello.node_name)
            founding = self._cluster.identity.founding
            self._propose(encode_admit(state, founding, hello.node_name, _home(hello)))
            return

    def _takes_a_place(self, hello: Hello) -> bool:
        """Whether it belongs to no cluster and a member of its name is not there (any more), or an earlier life."""
        state = self._node.meta.machine
        if hello.cluster_id and hello.node_id not in {home[0] for home in self._node.homes()}:
            return False
        names = state.names or {node.node_id: node.name for node in self._cluster.identity.founding}
        for node_id, incarnation in self._node.homes():
            if names[node_id] != hello.node_name:
                continue
            if node_id == hello.node_id:
                return incarnation < hello.incarnation
            return not self._cluster.host.is_up(node_id) and node_id != self._cluster.identity.node_id
        return not hello.cluster_id and hello.node_name in names.values()  # of one that was removed from the cluster

    def _invite(self) -> None:
        """Tell members that have never answered under which number they are members."""
        core = self._node.meta.core
        nodes = self._node.meta.machine.nodes
        if nodes is None or core.leading is None or core.configurations.index > core.log.committed_index:
            return
        for hello in self._cluster.peers():
            number = nodes.number_on(_home(hello))
            progress = core.leading.progress.get(number)
            if progress is not None and not progress.match_index:
                self._request(hello.node_id, INVITE, self._cluster.invitation(_home(hello), number))

    # -- streams --------------------------------------------------------------------------------------------------

    def _place_streams(self) -> None:
        """Streams whose members are not what they should be get others: as many as configured, on nodes that are here.

        A member on a node that is not in the cluster any more is replaced at once; the number of members is changed
        once all that was wished before has been done.
        """
        begun = 0
        looked_at = self._to_look_at()
        for name in looked_at:
            assignment = self._node.meta.machine.streams.get(name)
            if assignment is None or not (self._wants_others(assignment) or self._wants_resizing(assignment)):
                continue
            self._unfinished[name] = None
            if begun == REASSIGNED_MAX:
                continue
            wanted = self._replaced(assignment)
            if wanted is None and assignment.placement.is_settled:
                wanted = self._resized(assignment)
            if wanted is not None:
                self._propose(encode_reassign(assignment, wanted))
                begun += 1

    def _to_look_at(self) -> list[str]:
        """Streams that have changed, and those that were not as they should be; all, when that may be true of any."""
        state, assignments = self._node.meta.machine, self._node.assignments
        touched, assignments.touched = assignments.touched, {}
        unfinished, self._unfinished = self._unfinished, {}
        now = self._node.meta.core.term, state.nodes.version if state.nodes is not None else 0
        if now == self._looked:
            return list(unfinished | touched)
        self._looked = now
        return list(state.streams)

    def _wants_others(self, assignment: StreamAssignment) -> bool:
        """Whether a member that others could replace is on a node that is not in the cluster any more."""
        state, wanted = self._node.meta.machine, assignment.placement.wanted
        if state.nodes is None or len(wanted) == 1:  # a lone copy is not given up
            return False
        here = {member.home for member in state.nodes.wanted}
        return any(member.home not in here for member in wanted)

    @staticmethod
    def _wants_resizing(assignment: StreamAssignment) -> bool:
        return len(assignment.placement.wanted) not in (0, _replicas(assignment))

    def _replaced(self, assignment: StreamAssignment) -> list[Member] | None:
        """Members in place of those on nodes that are not in the cluster any more; None: there are none.

        Who has no successor is replaced by a spare node, or else dropped: then it does not count for quorums any more,
        and ``_resized`` adds another one as soon as there is a node for it.
        """
        state, placement = self._node.meta.machine, assignment.placement
        if not self._wants_others(assignment):
            return None
        here = set(self._node.homes())
        gone = [member for member in placement.wanted if member.home not in here]
        taken = {member.home for member in placement.wanted + placement.leaving}
        successors = {member: home for member in gone if (home := state.successor(member.home)) and home not in taken}
        others = iter(spares(self._node, taken | set(successors.values())))
        wanted, number = [member for member in placement.wanted if member not in gone], placement.next_member
        for member in gone:
            home = successors.get(member) or next(others, None)
            if home is not None:
                wanted.append(Member(number, *home))
                number += 1
        return wanted or None

    def _resized(self, assignment: StreamAssignment) -> list[Member] | None:
        """The members of a stream whose number of replicas was changed; None: they are as many as they should be."""
        placement, count = assignment.placement, _replicas(assignment)
        if not self._wants_resizing(assignment):
            return None
        homes = [member.home for member in placement.wanted]
        if len(homes) > count:
            staying = sorted(homes, key=lambda home: (home != self._leads(assignment), not self._is_up(home)))[:count]
            return wanted_at(placement, [home for home in homes if home in staying])
        added = spares(self._node, homes)[: count - len(homes)]
        return wanted_at(placement, [*homes, *added]) if added else None

    def _leads(self, assignment: StreamAssignment) -> tuple[str, int] | None:
        """Where the stream is led, if this node can tell."""
        group = self._node.streams.get(assignment.name)
        where = group.core.configuration.members.get(group.core.leader) if group is not None else None
        return (where.node, where.incarnation) if where is not None else None

    def _is_up(self, home: tuple[str, int]) -> bool:
        return home[0] == self._cluster.identity.node_id or self._cluster.host.is_up(home[0])

    # -- one group of a node --------------------------------------------------------------------------------------

    def _tell_lost(self) -> None:
        """Say which groups this node has forgotten its promises of."""
        core = self._node.meta.core
        where = core.configuration.members.get(core.leader)
        for uid, number in self._node.assignments.amnesiac():
            if core.is_leader:
                self._renumber(uid, number)
            elif where is not None:
                self._request(where.node, LOST, json.dumps({"uid": uid, "number": number}).encode())

    async def _hear_lost(self, node_id: str, payload: bytes) -> bytes:
        fields = json.loads(payload)
        self._renumber(fields["uid"], fields["number"], node_id)
        return b""

    def _renumber(self, uid: int, number: int, node_id: str = "") -> None:
        assignment = self._assignment(uid)
        if assignment is None or not assignment.placement.is_settled or len(assignment.placement.wanted) < 2:
            return
        placement = assignment.placement
        lost = [member for member in placement.wanted if member.number == number]
        if lost and node_id in ("", lost[0].node):
            log.warning("a member has lost its memory: it gets another number", stream=assignment.name, number=number)
            others = [member for member in placement.wanted if member.number != number]
            self._propose(encode_reassign(assignment, [*others, Member(placement.next_member, *lost[0].home)]))

    def _assignment(self, uid: int) -> StreamAssignment | None:
        state = self._node.meta.machine
        return state.streams.get(state.by_uid.get(GroupUid(uid), ""))

    # -- common ---------------------------------------------------------------------------------------------------

    def _propose(self, entry: bytes) -> None:
        try:
            self._node.meta.propose_with(entry, None)
        except NotNow:
            return  # it is seen again

    def _request(self, node_id: str, method: str, payload: bytes) -> None:
        try:
            request = self._cluster.links.request(node_id, method, payload)
        except (JetstoreError, OSError):
            return  # it is said again
        request.add_done_callback(_heard)


def _replicas(assignment: StreamAssignment) -> int:
    return max(int(assignment.config.get("num_replicas", 1)), 1)


def _home(hello: Hello) -> tuple[str, int]:
    return hello.node_id, hello.incarnation


def _heard(future: asyncio.Future[bytes]) -> None:
    if not future.cancelled():
        future.exception()
