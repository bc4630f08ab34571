"""What the groups of a node share to be members beside other nodes: ticks, messages, nodes that come and go.

::

    links.on_raft ─ step ─┐
    tick ────────── tick ─┼─ group.advance ─→ messages out · journal block wanted · apply
    link lost ─ suspect ──┘

Groups with a single member are not here: nothing happens to them from outside, and no time passes for them. A group
that is *quiet* (its leader had nothing to do for a while) gets no ticks either, so that thousands of idle groups cost
nothing; what its members would learn from heartbeats they learn from the link between their nodes: when that is lost,
every group whose leader was there wakes and, a few random milliseconds later, stands for election.

Source: ``docs/raft.md``; quiescence as in CockroachDB's ranges: one liveness per pair of nodes, not per group.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

import structlog

from jetstore.raft.core import RaftCore
from jetstore.raft.message import Message
from jetstore.raft.ready import CheckpointFetch, Role
from jetstore.types import GroupUid, RaftIndex

log = structlog.get_logger(__name__)

TICK_S = 0.1
"""One tick of every group that is awake: the heartbeat interval; an election timeout is 10 to 20 of them."""
QUIET_TICKS = 20
"""A leader with nothing new for so long lets its group fall quiet."""
SUSPECT_DELAY_S = (0.01, 0.05)
"""After the link to a leader's node is lost: when its followers stand for election (a random moment in between)."""
STAND_AGAIN_S = (0.05, 0.15)
"""Then, if nobody leads: others that had not noticed yet did not even hear the first attempt."""
STANDS_MAX = 4
"""Attempts; after them, elections go by ticks."""
STRAYS_LOGGED_MAX = 10
EARLY_MESSAGES_MAX, EARLY_GROUPS_MAX = 4, 256
"""Kept of messages for a group that is not here (yet), and of how many such groups."""
STRANGERS_MAX = 10_000
"""Members remembered that no configuration here names."""

_MAY_STAND_AGAIN = (Role.FOLLOWER, Role.PRE_CANDIDATE)
"""A candidate's term has begun: its votes may be on their way."""

SendRaft = Callable[[str, GroupUid, Sequence[Message]], None]
"""(node id, group, messages): hand them to the link; may drop them."""


class Replica(Protocol):
    """A group as its host sees it (``jetstore.node.group.Group``)."""

    uid: GroupUid
    core: RaftCore
    is_barred: bool
    """It must not lead: no time passes for it."""

    def advance(self) -> None:
        """Hand on everything that the core has to say after an input."""


class RaftHost:
    """Implements ``jetstore.node.link.ports.LinkHandler`` as far as Raft is concerned."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rng: Random, send: SendRaft) -> None:
        """``start`` begins to tick."""
        self._loop = loop
        self._rng = rng
        self._send = send
        self._groups: dict[GroupUid, Replica] = {}
        self._awake: dict[GroupUid, Replica] = {}
        self._quiet_since: dict[GroupUid, tuple[RaftIndex, int]] = {}
        """Leaders: last index seen, and for how many ticks nothing came."""
        self._up: dict[str, int] = {}
        """Connected nodes and their incarnations."""
        self._came_from: dict[tuple[GroupUid, int], str] = {}
        """Where members live that the configuration here does not name (it may be older than theirs)."""
        self._early: dict[GroupUid, list[tuple[str, Message]]] = {}
        """The last messages for groups that are not here, which may be on their way."""
        self.on_checkpoint_wanted: Callable[[GroupUid, CheckpointFetch], None] = lambda uid, event: None
        """Called when a group's log cannot be continued by its leader."""
        self._timer: asyncio.TimerHandle | None = None
        self.strays = 0
        """Messages for groups or members that are not here, or from nodes that the member does not live on."""

    # -- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Let time pass for the groups."""
        self._timer = self._loop.call_later(TICK_S, self._tick)

    def stop(self) -> None:
        """No more ticks, no more elections."""
        if self._timer is not None:
            self._timer.cancel()
        self._groups.clear()
        self._awake.clear()

    def add(self, group: Replica) -> None:
        """This group has, or may get, members on other nodes."""
        self._groups[group.uid] = group
        self._awake[group.uid] = group
        early = self._early.pop(group.uid, None)
        if early:
            self._loop.call_soon(self._replay, group.uid, early)

    def _replay(self, uid: GroupUid, early: list[tuple[str, Message]]) -> None:
        for node_id, message in early:
            self.on_raft(node_id, [(uid, message)])

    def discard(self, uid: GroupUid) -> None:
        """The group is gone."""
        self._groups.pop(uid, None)
        self._awake.pop(uid, None)
        self._quiet_since.pop(uid, None)
        for key in [key for key in self._came_from if key[0] == uid]:
            del self._came_from[key]

    # -- time -----------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._timer = self._loop.call_later(TICK_S, self._tick)
        for group in list(self._awake.values()):
            core = group.core
            if not group.is_barred:
                core.tick()
            if core.is_leader and self._has_been_quiet(group):
                core.quiesce(self._absent(core))
            group.advance()
            if core.is_quiescent:
                self._awake.pop(group.uid, None)

    def _has_been_quiet(self, group: Replica) -> bool:
        last_index = group.core.log.last_index
        seen, ticks = self._quiet_since.get(group.uid, (RaftIndex(0), 0))
        ticks = ticks + 1 if seen == last_index else 0
        self._quiet_since[group.uid] = (last_index, ticks)
        return ticks >= QUIET_TICKS

    def _absent(self, core: RaftCore) -> frozenset[int]:
        members = core.configuration.members
        return frozenset(n for n, where in members.items() if n != core.member and where.node not in self._up)

    def touched(self, group: Replica) -> None:
        """Something happened to this group's core: it ticks again unless it is quiet."""
        if not group.core.is_quiescent and group.uid in self._groups:
            self._awake[group.uid] = group

    # -- messages -------------------------------------------------------------------------------------------------

    def send(self, group: Replica, messages: Sequence[Message]) -> None:
        """Send each to the node that its member lives on."""
        members = group.core.configuration.members
        by_node: dict[str, list[Message]] = {}
        for message in messages:
            where = members.get(message.to)
            node = where.node if where is not None else self._came_from.get((group.uid, message.to), "")
            if node:
                by_node.setdefault(node, []).append(message)
        for node, batch in by_node.items():
            self._send(node, group.uid, batch)

    def on_raft(self, node_id: str, batch: Sequence[tuple[GroupUid, Message]]) -> None:
        """Messages of one read of the link to that node."""
        touched: dict[GroupUid, Replica] = {}
        for uid, message in batch:
            group = self._groups.get(uid)
            if group is None:
                self._keep_early(node_id, uid, message)
                continue
            if message.to != group.core.member:
                self.strays += 1
                continue
            where = group.core.configuration.members.get(message.sender)
            if where is None:
                if len(self._came_from) >= STRANGERS_MAX:
                    self._came_from.clear()  # a stranger that still matters speaks again
                self._came_from[uid, message.sender] = node_id
            elif where != (node_id, self._up.get(node_id)):
                self.strays += 1
                if self.strays <= STRAYS_LOGGED_MAX:
                    log.warning("message of a member from a node it does not live on", group=uid, node=node_id)
                continue
            group.core.step(message)
            touched[uid] = group
        for group in touched.values():
            group.advance()
            self.touched(group)

    def _keep_early(self, node_id: str, uid: GroupUid, message: Message) -> None:
        """The group may be opened in a moment: its creation is being applied here. (What is lost is said again.)"""
        self.strays += 1
        kept = self._early.setdefault(uid, [])
        kept.append((node_id, message))
        if len(kept) > EARLY_MESSAGES_MAX:
            del kept[0]
        if len(self._early) > EARLY_GROUPS_MAX:
            del self._early[next(iter(self._early))]

    def home_of(self, uid: GroupUid, member: int) -> str:
        """The node that a member which no configuration here names has spoken from; "" = unknown."""
        return self._came_from.get((uid, member), "")

    # -- nodes ----------------------------------------------------------------------------------------------------

    def node_up(self, node_id: str, incarnation: int) -> None:
        """A link to that node is there."""
        self._up[node_id] = incarnation
        for group in self._with_member_on(node_id):
            group.core.wake()
            self.touched(group)

    def node_down(self, node_id: str) -> None:
        """The link is lost: what was on its way may be, too; and if it led, somebody else has to."""
        self._up.pop(node_id, None)
        for group in self._with_member_on(node_id):
            core = group.core
            for number, where in core.configuration.members.items():
                if where.node == node_id:
                    core.report_unreachable(number)
            if self._leads(group, node_id):
                core.suspect_leader()
                self._loop.call_later(self._rng.uniform(*SUSPECT_DELAY_S), self._replace_leader, group, node_id, 1)
            self.touched(group)

    def is_up(self, node_id: str) -> bool:
        """Whether there is a link to that node."""
        return node_id in self._up

    def _replace_leader(self, group: Replica, node_id: str, attempt: int) -> None:
        if self._groups.get(group.uid) is not group or group.is_barred or node_id in self._up:
            return
        core = group.core
        if attempt == 1:
            is_due = self._leads(group, node_id)
        else:
            is_due = not core.leader and core.role in _MAY_STAND_AGAIN
        if not is_due:
            return
        core.campaign()
        group.advance()
        self.touched(group)
        if attempt < STANDS_MAX and not core.is_leader:
            self._loop.call_later(self._rng.uniform(*STAND_AGAIN_S), self._replace_leader, group, node_id, attempt + 1)

    def _leads(self, group: Replica, node_id: str) -> bool:
        core = group.core
        where = core.configuration.members.get(core.leader)
        return where is not None and where.node == node_id

    def _with_member_on(self, node_id: str) -> list[Replica]:
        return [
            group
            for group in self._groups.values()
            if any(where.node == node_id for where in group.core.configuration.members.values())
        ]
