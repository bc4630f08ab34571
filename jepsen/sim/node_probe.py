"""What a node of a cluster shows the harness: its groups' beliefs, what its messages promised, hashes, contents."""

from __future__ import annotations

from collections.abc import Sequence

from jepsen.history import AppliedHash, RaftPromise, RaftState, Seen
from jepsen.sim.machine import Boot
from jetstore.errors import ConfChangeRefused, Corruption, NotNow
from jetstore.node.node import Node
from jetstore.raft.core import RaftCore
from jetstore.raft.message import Message, MessageKind
from jetstore.store.running_hash import RunningHash
from jetstore.types import META_GROUP, GroupUid

TERMLESS = frozenset([MessageKind.PRE_VOTE, MessageKind.PRE_VOTE_RESPONSE])
"""Kinds whose term is not (always) the sender's own."""


class NodeProbe:
    """Implements ``jepsen.sim.probe.Probe`` for a node with a cluster around it."""

    def __init__(self, boot: Boot, node: Node) -> None:
        assert node.cluster is not None
        self._boot, self._node, self._cluster = boot, node, node.cluster
        self._promises: list[RaftPromise] = []
        self._hashed: dict[GroupUid, int] = {}
        self._beliefs: dict[GroupUid, tuple[object, RaftState]] = {}
        """What was seen last, with all that it depends on."""
        identity = node.cluster.identity
        self._incarnation = f"{identity.node_id}/{identity.incarnation}"
        host = self._cluster.host
        self._send = host._send  # the harness listens on the way to the links
        host._send = self._listen

    def _cores(self) -> list[tuple[GroupUid, RaftCore]]:
        groups = self._cluster.host._groups
        return [(uid, groups[uid].core) for uid in sorted(groups)]

    def states(self) -> list[RaftState]:
        groups = self._cluster.host._groups
        if len(groups) != len(self._beliefs):
            self._beliefs = {uid: self._beliefs[uid] for uid in sorted(groups) if uid in self._beliefs}
        found = []
        for uid in sorted(groups):
            core = groups[uid].core
            log = core.log
            key = (
                core.term,
                core.vote,
                core.role,
                log.committed_index,
                log.applied_index,
                log.last_index,
                log.last_term,
                log.first_index,
                core.configuration,
            )
            before = self._beliefs.get(uid)
            if before is None or before[0] != key:
                before = self._beliefs[uid] = (key, self._state(uid, core))
            found.append(before[1])
        return found

    def _state(self, uid: GroupUid, core: RaftCore) -> RaftState:
        configuration, log = core.configuration, core.log
        halves = (configuration.voters, configuration.voters_outgoing)
        return RaftState(
            at_ns=self._boot.loop.now_ns(),
            node=self._boot.name,
            incarnation=self._incarnation,
            boot=self._boot.number,
            group=str(uid),
            member=core.member,
            term=core.term,
            vote=core.vote,
            role=core.role.value,
            commit=log.committed_index,
            applied=log.applied_index,
            voters=tuple(tuple(sorted(half)) for half in halves if half),
            last_index=log.last_index,
            last_term=log.last_term,
            first_index=log.first_index,
            configuration_index=core.configurations.index,
        )

    def _listen(self, node_id: str, uid: GroupUid, messages: Sequence[Message]) -> None:
        for message in messages:
            if message.kind in TERMLESS:
                continue
            vote = 0
            if message.kind is MessageKind.VOTE:
                vote = message.sender
            elif message.kind is MessageKind.VOTE_RESPONSE and not message.is_rejected:
                vote = message.to
            last_term, last_index = self._acknowledged(uid, message)
            self._promises.append(
                RaftPromise(
                    at_ns=self._boot.loop.now_ns(),
                    node=self._boot.name,
                    incarnation=self._incarnation,
                    boot=self._boot.number,
                    group=str(uid),
                    member=message.sender,
                    term=message.term,
                    vote=vote,
                    last_term=last_term,
                    last_index=last_index,
                )
            )
        self._send(node_id, uid, messages)

    def _acknowledged(self, uid: GroupUid, message: Message) -> tuple[int, int]:
        """(term, index) of the entry up to which the message says that the sender's log is durable."""
        if message.kind is MessageKind.VOTE:
            return message.last_term, message.last_index
        if message.kind is MessageKind.APPEND_RESPONSE and not message.is_rejected:
            return self._cluster.host._groups[uid].core.log.term_at(message.index) or 0, message.index
        return 0, 0

    def promises(self) -> list[RaftPromise]:
        taken, self._promises = self._promises, []
        return taken

    def _running(self) -> list[tuple[GroupUid, RunningHash]]:
        node = self._node
        found = [(META_GROUP, node.meta.machine.running)] if hasattr(node, "meta") else []
        return found + [(group.uid, group.stream.running) for _, group in sorted(node.streams.items())]

    def hashes(self) -> list[AppliedHash]:
        found = []
        for uid, running in self._running():
            if self._hashed.get(uid, 0) == running.index:
                continue
            for index in range(self._hashed.get(uid, 0) + 1, running.index + 1):
                value = running.at(index)
                if value is not None:
                    found.append(AppliedHash(self._boot.name, str(uid), index, f"{value:016x}"))
            self._hashed[uid] = running.index
        return found

    def leads(self, stream: str) -> bool:
        node = self._node
        if not stream:
            return hasattr(node, "meta") and node.meta.core.is_leader
        group = node.streams.get(stream)
        return group is not None and group.core.is_leader

    def contents(self, stream: str) -> dict[int, Seen] | None:
        group = self._node.streams.get(stream)
        if group is None:
            return None
        contents = group.stream.contents
        found = {}
        for seq in range(contents.first_seq, contents.last_seq + 1):
            try:
                message = contents.read(seq)
            except Corruption as error:  # as any reader would: the node has it repaired
                group.note_damage(error)
                raise
            if message is not None:
                found[seq] = Seen(stream, seq, message.subject.decode(), bytes(message.data), bytes(message.header))
        return found

    def transfer(self, group: str, to: str) -> bool:
        for uid, core in self._cores():
            if str(uid) != group or not core.is_leader:
                continue
            ids = {node.node_id for node in self._cluster.identity.founding if node.name == to}
            for number, where in core.configuration.members.items():
                if where.node not in ids:
                    continue
                try:
                    core.transfer_leader(number)
                except (NotNow, ConfChangeRefused):
                    return False
                self._cluster.host._groups[uid].advance()
                return True
        return False

    def checkpoint(self) -> None:
        storage = self._node.storage
        for uid, _ in self._cores():
            storage.want_checkpoint(uid)
