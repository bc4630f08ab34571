"""Who has come to lead a replicated stream, or has lost its quorum, told to whoever subscribes to it on this node.

A stream's consumers are led where it is: what happens to it happens to each of them. Source: JetStream advisories.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jetstore.model.infos import peer_info_json
from jetstore.node.advisories import Advisories
from jetstore.node.cluster_info import all_members, leader_name

if TYPE_CHECKING:
    from jetstore.node.node import Node
    from jetstore.node.stream_group import StreamGroup
    from jetstore.types import GroupUid

QUORUM_LOST_AGAIN_S = 10.0
"""The loss of a stream's quorum is told at most so often."""


class LeaderAdvisories:
    """Built by a node that has a cluster. Nothing is looked up unless somebody listens."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lost_at_s: dict[GroupUid, float] = {}
        """When the loss of a quorum was told last, as long as that matters."""

    def elected(self, group: StreamGroup) -> None:
        """This node has come to lead the stream."""
        if self._is_replicated(group):
            self._tell(group, "LEADER_ELECTED", "leader_elected", leader=leader_name(self._node, group))

    def created(self, group: StreamGroup, consumer: str) -> None:
        """A consumer is new, and led here."""
        if self._is_replicated(group):
            told = Advisories(group.outlet, self._node.clock, self._node.parts.rng, group.stream)
            leader = leader_name(self._node, group)
            self._tell_consumer(told, group, consumer, "LEADER_ELECTED", "leader_elected", leader=leader)

    def lost(self, group: StreamGroup) -> None:
        """This node led the stream, and has not heard a quorum of its members for too long."""
        now_s = self._node.loop.time()
        told = {uid: at_s for uid, at_s in self._lost_at_s.items() if now_s - at_s < QUORUM_LOST_AGAIN_S}
        self._lost_at_s = told
        if group.uid not in told:
            told[group.uid] = now_s
            self._tell(group, "QUORUM_LOST", "quorum_lost")

    def _is_replicated(self, group: StreamGroup) -> bool:
        return len(group.core.configuration.all_voters) > 1

    def _tell(self, group: StreamGroup, kind: str, what: str, **fields: Any) -> None:  # Any: JSON values
        node = self._node
        if group.outlet.has_interest(f"$JS.EVENT.ADVISORY.STREAM.{kind}.{group.name}".encode()):
            group.advisories.tell(kind, f"stream_{what}", **fields, replicas=self._replicas(group))
        told = Advisories(group.outlet, node.clock, node.parts.rng, group.stream)
        for consumer in list(group.stream.consumers):
            self._tell_consumer(told, group, consumer, kind, what, **fields)

    def _tell_consumer(
        self, told: Advisories, group: StreamGroup, consumer: str, kind: str, what: str, **fields: Any
    ) -> None:
        if told.wants(kind, consumer):
            told.tell(kind, f"consumer_{what}", consumer, **fields, replicas=self._replicas(group))

    def _replicas(self, group: StreamGroup) -> list[dict[str, Any]]:
        return [peer_info_json(peer) for peer in all_members(self._node, group)]
