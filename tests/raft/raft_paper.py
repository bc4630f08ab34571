"""What the paper-named tests share: one member seen from outside, and small groups with a leader.

``alone(3)`` is member 1 of three; the others do not exist: ``hear`` plays them, ``said`` is what member 1 sends.
``group(3)`` are three real members with a leader; ``settle`` delivers everything.
"""

from __future__ import annotations

from collections.abc import Sequence

from raft_checks import Checker
from raft_world import Member, World

from jetstore.raft.core import RaftOptions
from jetstore.raft.log import Entry
from jetstore.raft.membership import Configuration
from jetstore.raft.message import Message, MessageKind
from jetstore.raft.ready import HardState
from jetstore.types import RaftIndex, Term

K = MessageKind


def configuration(count: int) -> Configuration:
    return Configuration.founding([(f"n{i}", 1) for i in range(1, count + 1)])


def entry(index: int, term: int, data: bytes | None = b"x") -> Entry:
    """``data`` None: unreadable, and its line says that it is no configuration."""
    return Entry(Term(term), RaftIndex(index), data, is_plain=data is None)


def new_world(options: RaftOptions | None) -> World:
    """Member n waits 10 + n - 1 ticks for a leader, or what the options say instead of 10."""
    world = World(lambda number: lambda bound: min(number - 1, bound - 1), options)
    world.watchers = [Checker(world)]
    return world


def alone(
    count: int = 3,
    *,
    term: int = 0,
    vote: int = 0,
    log: Sequence[int] = (),
    is_async: bool = False,
    options: RaftOptions | None = None,
) -> Member:
    """Member 1 of so many. ``log``: the terms of its entries. Nobody checks what the others are made to say."""
    world = new_world(options)
    world.watchers = []
    member = world.add(1, configuration(count))
    member.disk.hard_state = HardState(Term(term), vote)
    member.disk.entries = [entry(i, t) for i, t in enumerate(log, 1)]
    member.is_async = is_async
    member.start()
    return member


def hear(member: Member, kind: MessageKind, sender: int, term: int, **fields: object) -> list[Message]:
    """A message comes; what the member sends because of it."""
    member.running.step(Message(kind, sender, member.number, Term(term), **fields))  # type: ignore[arg-type]
    return said(member)


def said(member: Member) -> list[Message]:
    """What it has sent since the last call."""
    member.pump()
    messages, member.world.in_flight = member.world.in_flight, []
    return messages


def tick(member: Member, count: int = 1) -> list[Message]:
    """What it sends in so many ticks."""
    for _ in range(count):
        member.running.tick()
    return said(member)


def kinds(messages: list[Message]) -> list[tuple[MessageKind, int]]:
    return [(m.kind, m.to) for m in messages]


def win(member: Member) -> list[Message]:
    """It becomes leader with the votes of all others; its first messages as leader."""
    member.running.campaign()
    others = [m for m in member.running.configuration.all_members if m != member.number]
    said(member)
    term = member.running.term + 1
    out: list[Message] = []
    for kind in (K.PRE_VOTE_RESPONSE, K.VOTE_RESPONSE):
        for other in others:
            if not member.running.is_leader:
                out = hear(member, kind, other, term)
    assert member.running.is_leader
    return out


def group(count: int = 3, *, leader: int = 1, options: RaftOptions | None = None, is_checked: bool = True) -> World:
    """Running members; ``leader`` leads and everybody has applied its no-op (0: nobody does)."""
    world = new_world(options)
    if not is_checked:
        world.watchers = []
    world.found(configuration(count))
    for member in world.members.values():
        member.start()
    if leader:
        elect(world, leader)
    return world


def elect(world: World, number: int) -> None:
    world.members[number].running.campaign()
    world.members[number].pump()
    settle(world)
    assert world.members[number].running.is_leader


def settle(world: World, *among: int) -> None:
    """Deliver everything between these members (all) until nothing is under way."""
    numbers = set(among) or set(world.members)
    for _ in range(10_000):
        position = next((i for i, m in enumerate(world.in_flight) if m.sender in numbers and m.to in numbers), None)
        if position is None:
            fetched = [m for n, m in world.members.items() if n in numbers and world.fetch(m)]
            for member in fetched:
                member.pump()
            if not fetched:
                return
            continue
        message = world.in_flight.pop(position)
        if world.deliver(message):
            world.members[message.to].pump()
        check(world)
    raise AssertionError("it does not come to rest")


def check(world: World) -> None:
    for watcher in world.watchers:
        if isinstance(watcher, Checker):
            for member in world.members.values():
                watcher.after(member)


def run(world: World, ticks: int, *among: int) -> None:
    """So many ticks of these members (all), everything delivered in between."""
    for _ in range(ticks):
        for number, member in world.members.items():
            if member.core is not None and (not among or number in among):
                member.core.tick()
                member.pump()
        settle(world, *among)


def propose(world: World, number: int, *values: bytes) -> None:
    member = world.members[number]
    for value in values:
        member.running.propose(value)
    member.pump()


def terms(member: Member) -> list[int]:
    """Terms of the entries on its disk."""
    return [e.term for e in member.disk.entries]


def values(member: Member) -> list[bytes | None]:
    """Data of the entries on its disk."""
    return [e.data for e in member.disk.entries]


def isolate(world: World, *numbers: int) -> None:
    """Nobody talks between these and the others."""
    inside = set(numbers)
    world.cuts |= {(a, b) for a in world.members for b in world.members if (a in inside) != (b in inside)}
