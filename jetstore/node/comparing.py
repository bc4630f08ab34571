"""Replicas compare what they have applied, in the background: a member that differs is told, and has its state anew.

The leader of a group asks every other member for two numbers at the index that it has applied itself: the running hash
over all entries up to there (which the other remembers for a while), and a hash of its logical state if it stands at
exactly that index. Equal logs that gave different states, or logs that differ, are a defect or damage that no checksum
saw: the minority fetches the state of the others; one against one is an alarm, and nothing is changed.

Source: ``docs/raft.md``; the hashes are those of ``docs/format/stream-head.md``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

import structlog

from jetstore.errors import JetstoreError
from jetstore.node.link.links import Links
from jetstore.node.meta_group import MetaGroup
from jetstore.node.stream_group import StreamGroup
from jetstore.stream.logical import logical_head
from jetstore.types import GroupUid, RaftIndex

if TYPE_CHECKING:
    from jetstore.node.behind import Behind
    from jetstore.node.cluster import Cluster
    from jetstore.node.node import Node

log = structlog.get_logger(__name__)

COMPARE_S = 10.0
"""Between two rounds; a group that has applied nothing since the last one is left out."""
ANSWER_S = 2.0
"""A member that has not answered by then is asked again in the next round."""
HASH = "compare.hash"
DIFFERS = "compare.differs"


class Applied(NamedTuple):
    """What one member says of itself. Hashes are 16 hexadecimal digits, "" = it cannot say."""

    applied_index: int
    running: str
    """At the index asked for."""
    state: str
    """If it stands there."""


class Comparing:
    """Built by a node that has a cluster."""

    def __init__(self, node: Node, cluster: Cluster, behind: Behind) -> None:
        """Answers from now on; asks while ``run`` runs."""
        self._node = node
        self._cluster = cluster
        self._links: Links = cluster.links
        self._behind = behind
        self._compared: dict[GroupUid, RaftIndex] = {}
        self.compared_total = 0
        self.differing_total = 0
        self._links.register(HASH, self._answer)
        self._links.register(DIFFERS, self._told)

    async def run(self) -> None:
        """Compare, for as long as the node lives."""
        while True:
            await asyncio.sleep(COMPARE_S)
            groups: list[MetaGroup | StreamGroup] = [self._node.meta, *self._node.streams.values()]
            for group in groups:
                if group.serves and len(group.core.configuration.members) > 1:
                    await self._compare(group)

    async def _compare(self, group: MetaGroup | StreamGroup) -> None:
        own = applied_of(group, group.machine.applied_index)
        if self._compared.get(group.uid) == own.applied_index:
            return
        core = group.core
        payload = _encode(uid=group.uid, index=own.applied_index)
        members = [number for number in core.configuration.all_members if number != core.member]
        answers = await asyncio.gather(*(self._ask(group, number, payload) for number in members))
        equal, different = 0, []
        for number, answer in zip(members, answers, strict=True):
            if answer is None or not answer.running:
                continue
            if answer.running != own.running or (answer.state and own.state and answer.state != own.state):
                different.append(number)
            elif answer.state:
                equal += 1
        if equal + len(different) == len(members):
            self._compared[group.uid] = RaftIndex(own.applied_index)
        self.compared_total += 1
        if not different:
            return
        self.differing_total += 1
        log.error("replicas differ", group=group.name, index=own.applied_index, members=different, equal=equal)
        if len(different) <= equal:
            for number in different:
                node_id = core.configuration.members[number].node
                await self._request(node_id, DIFFERS, _encode(uid=group.uid))
        elif len(different) > 1 and not equal and len({(a.running, a.state) for a in answers if a is not None}) == 1:
            self._is_wrong(group)  # all others agree with each other

    async def _ask(self, group: MetaGroup | StreamGroup, number: int, payload: bytes) -> Applied | None:
        answer = await self._request(group.core.configuration.members[number].node, HASH, payload)
        return Applied(**json.loads(answer)) if answer else None

    async def _request(self, node_id: str, method: str, payload: bytes) -> bytes:
        try:
            request: Awaitable[bytes] = self._links.request(node_id, method, payload)
            async with asyncio.timeout(ANSWER_S):
                return await request
        except (JetstoreError, OSError, TimeoutError):
            return b""

    # -- the other side -------------------------------------------------------------------------------------------

    async def _answer(self, node_id: str, payload: bytes) -> bytes:
        fields = json.loads(payload)
        group = self._node.group_of(fields["uid"])
        if group is None or group.is_faulty:
            return b""
        return _encode(**applied_of(group, fields["index"])._asdict())

    async def _told(self, node_id: str, payload: bytes) -> bytes:
        """Most others have the same, and this member has something else."""
        fields = json.loads(payload)
        group = self._node.group_of(fields["uid"])
        if group is not None and not group.is_faulty and not group.serves:
            self._is_wrong(group)
        return b""

    def _is_wrong(self, group: MetaGroup | StreamGroup) -> None:
        log.error("this replica differs from the others: its state is fetched anew", group=group.name)
        group.bar()
        group.hand_over()
        self._behind.lost(group)


def applied_of(group: MetaGroup | StreamGroup, index: int) -> Applied:
    """What this member has applied, as of ``index``."""
    machine = group.machine
    running = machine.running.at(index)
    state = ""
    if machine.applied_index == index:
        head = group.machine.checkpoint().head if isinstance(group, MetaGroup) else logical_head(group.stream)
        state = blake2b(head, digest_size=8).hexdigest()
    return Applied(int(machine.applied_index), "" if running is None else f"{running:016x}", state)


def _encode(**fields: object) -> bytes:
    return json.dumps(fields, sort_keys=True).encode()
