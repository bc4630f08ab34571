"""Deliveries of one stream: an engine for each of its consumers while this node leads.

``Delivery`` follows the applied state: consumers that appear get an engine, consumers that are gone lose theirs. Start
reading at ``consumer_engine.py``; ``pull.py`` and ``push.py`` say who gets the messages, ``acks.py`` what comes back.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from jetstore.consumer.state import ConsumerState
from jetstore.model.infos import ConsumerInfo, SequenceInfo
from jetstore.node.advisories import Advisories
from jetstore.node.consumer_engine import ConsumerEngine
from jetstore.node.delivery_ports import LedStream, StreamLeader
from jetstore.node.flow_acks import FlowEngine
from jetstore.node.ports import Outlet
from jetstore.node.pull import PullEngine
from jetstore.node.push import PushEngine
from jetstore.node.sourced_consumers import SourcedEngine

__all__ = ["CONSUMER_DELETED", "LEADERSHIP_CHANGE", "SERVER_SHUTDOWN", "Delivery", "LedStream", "StreamLeader"]

SERVER_SHUTDOWN = b"409 Server Shutdown"
LEADERSHIP_CHANGE = b"409 Leadership Change"
CONSUMER_DELETED = b"409 Consumer Deleted"


class Delivery:
    """All consumers of one stream that this node leads. Everything happens on the event loop."""

    def __init__(self, leader: StreamLeader, outlet: Outlet, rng: Random | None = None) -> None:
        """Nothing happens until ``start``. Without ``rng`` names are drawn from the clock's time."""
        self._leader = leader
        self._outlet = outlet
        self._rng = rng
        self._engines: dict[str, ConsumerEngine | SourcedEngine] = {}
        self._advisories: Advisories | None = None
        self.on_created: Callable[[str], None] | None = None
        """Called for a consumer that is new."""

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """This node leads and has applied everything committed before: deliver."""
        if self._advisories is not None:
            return
        leader = self._leader
        if self._rng is None:
            self._rng = Random(leader.clock.wall_ns())
        self._advisories = Advisories(self._outlet, leader.clock, self._rng, leader.stream)
        for state in leader.stream.consumers.values():
            self._begin(state)

    def stop(self, line: bytes = SERVER_SHUTDOWN) -> None:
        """Deliver nothing more. Pull requests that wait get ``line``; with ``CONSUMER_DELETED`` (the stream is being

        deleted) the consumers are announced as deleted, too. Acknowledgements that wait are proposed first, so call
        this before the group stops taking proposals.
        """
        if self._advisories is None:
            return
        for engine in self._engines.values():
            engine.stop(line, is_deleted=line == CONSUMER_DELETED)
            if line == CONSUMER_DELETED:
                self._advisories.tell("DELETED", "consumer_action", engine.name, action="delete")
        self._engines.clear()
        self._advisories = None

    def _begin(self, state: ConsumerState) -> None:
        assert self._advisories is not None
        assert self._rng is not None
        if state.config.sourcing:
            self._engines[state.name] = SourcedEngine(state)
            return
        kind: type[ConsumerEngine] = PushEngine if state.config.is_push else PullEngine
        if state.is_sourcing:
            kind = FlowEngine
        engine = kind(self._leader, self._outlet, state, self._advisories, self._rng)
        self._engines[state.name] = engine
        engine.start()

    # -- the applied state --------------------------------------------------------------------------------------------

    def on_applied(self) -> None:
        """A slice of entries was applied. Call it once per slice, not per entry."""
        advisories = self._advisories
        if advisories is None:
            return
        consumers, engines = self._leader.stream.consumers, self._engines
        if not consumers and not engines:
            return
        gone = [name for name, engine in engines.items() if consumers.get(name) is not engine.state]
        for name in gone:
            engines.pop(name).stop(CONSUMER_DELETED, is_deleted=True)
            advisories.tell("DELETED", "consumer_action", name, action="delete")
        for engine in engines.values():
            engine.on_applied()
        if len(consumers) != len(engines):
            for name, state in consumers.items():
                if name not in engines:
                    self._begin(state)
                    advisories.tell("CREATED", "consumer_action", name, action="create")
                    if self.on_created is not None:
                        self.on_created(name)
                    until_ns = engines[name].paused_until_ns
                    if until_ns:
                        advisories.tell_pause(name, True, until_ns)

    # -- asking -------------------------------------------------------------------------------------------------------

    def consumer_info(self, name: str) -> ConsumerInfo:
        """What CONSUMER.INFO shows of an existing consumer, with deliveries that are ahead of the log."""
        state = self._leader.stream.consumers[name]
        counters = state.counters()
        engine = self._engines.get(name)
        until, now_ns = state.pause_until_ns, self._leader.clock.wall_ns()
        return ConsumerInfo(
            stream_name=self._leader.stream.name,
            name=name,
            created_ns=state.created_ns,
            config=state.config,
            delivered=SequenceInfo(*counters.delivered),
            ack_floor=SequenceInfo(*counters.ack_floor),
            num_ack_pending=counters.num_ack_pending,
            num_redelivered=counters.num_redelivered,
            num_waiting=engine.num_waiting if isinstance(engine, PullEngine) else 0,
            num_pending=counters.num_pending,
            push_bound=isinstance(engine, SourcedEngine | PushEngine) and engine.is_bound,
            paused=until > now_ns,
            pause_remaining_ns=max(until - now_ns, 0),
            priority_groups=engine.priority_groups if isinstance(engine, PullEngine) else (),
        )

    def sourced(self, name: str) -> SourcedEngine | FlowEngine | None:
        """What stands for a consumer that a mirror or source may move."""
        engine = self._engines.get(name)
        return engine if isinstance(engine, SourcedEngine | FlowEngine) else None

    def unpin(self, name: str) -> None:
        """The pinned client of an existing consumer, if there is one, is pinned no more."""
        engine = self._engines.get(name)
        if isinstance(engine, PullEngine):
            engine.unpin()
