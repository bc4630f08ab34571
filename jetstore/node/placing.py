"""The members of groups follow the metadata: whoever leads a group that is to have others changes its configuration.

Looked at again and again, from applied metadata and the configuration in effect alone: a change of leader, a restart, a
lost message or a newer wish cost time, nothing else. Per look one step::

    wanted, not there       → learner, under the number that the metadata gave
    learners nearly current → one joint change: they vote, who is not wanted is out (a leader, too: it hands over)
    exactly who is wanted, and that is committed → "settled" to whoever leads the metadata

Only then does the metadata let go of those who left, and only that makes their nodes delete (``assignments``).
Source: docs/raft.md; Raft thesis §4.2 (learners, joint changes).
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog

from jetstore.errors import ConfChangeRefused, JetstoreError, NotNow
from jetstore.meta.placement import Placement, wanted_at
from jetstore.meta.state import StreamAssignment, encode_admitted, encode_reassign, encode_settled
from jetstore.node.group import Group
from jetstore.raft.core import RaftCore
from jetstore.raft.membership import ChangeKind, ChangeStep, ConfChange, NodeIncarnation, Transition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jetstore.node.cluster import Cluster
    from jetstore.node.node import Node

log = structlog.get_logger(__name__)

LOOK_S = 0.1
"""How often groups whose members are to change are looked at."""
TELL_AGAIN_S = 1.0
"""Until the metadata has heard that a group is settled."""
SETTLED = "placement.settled"


def next_change(core: RaftCore, placement: Placement) -> ConfChange | None:
    """The next step of a group's leader towards a placement; None: nothing is to be done, or not now."""
    configuration = core.configuration
    if not _is_done(core) or configuration.next_member > placement.next_member:
        return None  # the configuration was made by newer metadata: theirs is to be waited for
    wanted = {member.number: member for member in placement.wanted}
    superfluous = sorted(configuration.learners - wanted.keys())
    if superfluous:
        return ConfChange.remove(*superfluous)
    missing = [member for member in placement.wanted if member.number not in configuration.members]
    if any(member.number < configuration.next_member for member in missing):
        return None  # left, or passed over: newer metadata gave its node another number
    if missing:
        return ConfChange(
            tuple(
                ChangeStep(ChangeKind.ADD_LEARNER, member.number, NodeIncarnation(member.node, member.incarnation))
                for member in missing
            )
        )
    promoted = sorted(configuration.learners)
    if not all(_follows(core, number) for number in promoted):
        return None
    removed = sorted(configuration.voters - wanted.keys())
    steps = [ChangeStep(ChangeKind.PROMOTE, number) for number in promoted]
    steps += [ChangeStep(ChangeKind.REMOVE, number) for number in removed]
    return ConfChange(tuple(steps), Transition.JOINT) if steps else None


def _follows(core: RaftCore, learner: int) -> bool:
    """Whether a learner is alive and has begun to store the log: how near it must be is the core's business."""
    progress = core.leading.progress.get(learner) if core.leading is not None else None
    return progress is not None and progress.is_alive and progress.match_index > 0


def is_settled(core: RaftCore, placement: Placement) -> bool:
    """Whether the committed configuration has exactly the wanted members, as voters."""
    configuration = core.configuration
    wanted = {member.number for member in placement.wanted}
    return _is_done(core) and configuration.voters == wanted == set(configuration.members)


def _is_done(core: RaftCore) -> bool:
    """No change of the configuration is under way."""
    return not core.configuration.is_joint and core.configurations.index <= core.log.committed_index


class Placing:
    """Built by a node that has a cluster."""

    def __init__(self, node: Node, cluster: Cluster) -> None:
        """Hears from others at once; works while ``run`` runs."""
        self._node = node
        self._cluster = cluster
        self._told: dict[str, tuple[int, float]] = {}
        """By stream: which version was said to be settled, and when."""
        self._refused: dict[str, str] = {}
        cluster.links.register(SETTLED, self._hear)

    async def run(self) -> None:
        """Work, for as long as the node lives."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()

    def look(self) -> None:
        """One step for each group that this node leads and that is not settled."""
        meta = self._node.meta
        unsettled = meta.machine.unsettled
        for name in list(unsettled):
            group, assignment = self._node.streams.get(name), meta.machine.streams[name]
            if group is not None and group.uid == assignment.uid and group.serves:
                if is_settled(group.core, assignment.placement):
                    self._tell(assignment)
                else:
                    self.bring_on(group, assignment.placement)
        nodes = meta.machine.nodes
        if nodes is not None and not nodes.is_settled and meta.serves:
            if is_settled(meta.core, nodes):
                self._propose_meta(encode_admitted(nodes.version))
            else:
                self.bring_on(meta, nodes)
        if len(self._told) > len(unsettled):
            self._told = {name: told for name, told in self._told.items() if name in unsettled}

    def bring_on(self, group: Group, placement: Placement) -> None:
        """Take the next step of a group that this node leads, if there is one now."""
        core = group.core
        change = next_change(core, placement)
        if change is None:
            return
        try:
            core.propose_conf_change(change)
        except NotNow:
            return
        except ConfChangeRefused as error:
            if self._refused.get(group.name) != str(error):
                self._refused[group.name] = str(error)
                log.warning("members of a group cannot be changed yet", group=group.name, why=str(error))
            return
        self._refused.pop(group.name, None)
        log.info("members of a group change", group=group.name, steps=[_words(step) for step in change.steps])
        group.advance()

    # -- settled --------------------------------------------------------------------------------------------------

    def _tell(self, assignment: StreamAssignment) -> None:
        now, version = self._node.loop.time(), assignment.placement.version
        told_version, told_at = self._told.get(assignment.name, (0, 0.0))
        if told_version == version and now - told_at < TELL_AGAIN_S:
            return
        self._told[assignment.name] = version, now
        core = self._node.meta.core
        if core.is_leader:
            self._settle(assignment.uid, version)
            return
        where = core.configuration.members.get(core.leader)
        if where is None:
            return
        try:
            request = self._cluster.links.request(where.node, SETTLED, _encode(uid=assignment.uid, version=version))
        except (JetstoreError, OSError):
            return
        request.add_done_callback(_heard)

    async def _hear(self, node_id: str, payload: bytes) -> bytes:
        fields = json.loads(payload)
        self._settle(fields["uid"], fields["version"])
        return b""

    def _settle(self, uid: int, version: int) -> None:
        meta = self._node.meta
        for name in meta.machine.unsettled:
            assignment = meta.machine.streams[name]
            if assignment.uid == uid and assignment.placement.version == version:
                self._propose_meta(encode_settled(assignment))

    def _propose_meta(self, entry: bytes) -> None:
        with suppress(NotNow):  # who leads next sees the same
            self._node.meta.propose_with(entry, None)

    # -- wishes ---------------------------------------------------------------------------------------------------

    async def reassign(self, name: str, homes: Sequence[tuple[str, int]]) -> StreamAssignment:
        """Have these (node, incarnation) hold a stream; returns when that is decided, not when it is done.

        Raises NotNow elsewhere than on the metadata's leader, ApiError if the stream is gone or was changed meanwhile.
        """
        meta = self._node.meta
        if not meta.serves:
            raise NotNow("not the leader of the metadata")
        assignment = meta.machine.streams[name]
        entry = encode_reassign(assignment, wanted_at(assignment.placement, homes))
        decided: StreamAssignment = await meta.call(entry)
        return decided


def _words(step: ChangeStep) -> str:
    return f"{step.kind.value} {step.member}"


def _encode(**fields: int) -> bytes:
    return json.dumps(fields, sort_keys=True).encode()


def _heard(future: asyncio.Future[bytes]) -> None:
    if not future.cancelled():
        future.exception()  # it is said again
