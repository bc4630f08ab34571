"""The language of the golden scripts: a few commands, run against a ``World``; what happens is the expected output.

A script is a text file. Lines that start with ``#`` are comments, ``> `` starts a command, everything below it up to
the next command or comment is what the command printed. ``pytest tests/raft/test_golden.py --rewrite`` writes what it
prints now; people read the difference.

How things are written is in ``raft_show.py``, the commands are in ``tests/golden/raft/README.md``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from raft_show import (
    show_configuration,
    show_entries,
    show_entry,
    show_event,
    show_hard_state,
    show_message,
    show_ready,
)
from raft_world import Checkpoint, Member, Watcher, World

from jetstore.errors import JetstoreError
from jetstore.raft.core import RaftOptions
from jetstore.raft.log import Entry
from jetstore.raft.membership import (
    ChangeKind,
    ChangeStep,
    ConfChange,
    Configuration,
    NodeIncarnation,
    Transition,
)
from jetstore.raft.message import Message, MessageKind
from jetstore.raft.ready import (
    Event,
    HardState,
    Ready,
)
from jetstore.types import RaftIndex, Term

K = MessageKind


class Printer(Watcher):
    """Turns what happens into lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.is_quiet = False
        self.hides: set[str] = set()
        """Kinds of lines that are left out: ``blocks``, ``messages``, ``applied``, ``events``, ``heartbeats``."""

    def say(self, kind: str, text: str) -> None:
        if not self.is_quiet and kind not in self.hides:
            self.lines.append(text)

    def block(self, member: Member, ready: Ready) -> None:
        what = "writes (not yet durable)" if member.is_async else "writes"
        self.say("blocks", f"{member.number} {what} {show_ready(ready)}")

    def stored(self, member: Member, ready: Ready) -> None:
        if member.is_async:
            self.say("blocks", f"{member.number} stored {show_ready(ready)}")

    def sent(self, member: Member, message: Message) -> None:
        if message.kind in (K.HEARTBEAT, K.HEARTBEAT_RESPONSE):
            self.say("heartbeats", show_message(message))
        else:
            self.say("messages", show_message(message))

    def applied(self, member: Member, entry: Entry) -> None:
        self.say("applied", f"{member.number} applies {show_entry(entry)}")

    def installed(self, member: Member, checkpoint: Checkpoint) -> None:
        self.say("events", f"{member.number} installs the checkpoint {checkpoint.index}@{checkpoint.term}")

    def happened(self, member: Member, event: Event) -> None:
        self.say("events", f"{member.number} {show_event(event)}")


class ScriptError(Exception):
    """The script itself is wrong."""


@dataclass
class Step:
    """One command of a script and what belongs around it."""

    before: list[str]
    """Comments and blank lines above the command."""
    command: str
    expected: list[str] = field(default_factory=list)


def parse(text: str) -> tuple[list[Step], list[str]]:
    """The steps of a script, and what follows the last one."""
    steps: list[Step] = []
    before: list[str] = []
    for line in text.splitlines():
        if line.startswith("> "):
            steps.append(Step(before, line[2:].strip()))
            before = []
        elif line.startswith("#") or not line.strip() or not steps or before:
            before.append(line)  # output below a comment belongs to nobody: it goes when the script is rewritten
        else:
            steps[-1].expected.append(line)
    return steps, before


class Script:
    """A world and the commands that drive it."""

    ELECTION = 10

    def __init__(self) -> None:
        self.printer = Printer()
        self.options: dict[str, int] = {}
        self.world = World(self._dice, watchers=[self.printer])
        self.shown: dict[int, str] = {}

    def _dice(self, number: int) -> Callable[[int], int]:
        """Election timeouts in the order of the members: 1 first."""
        return lambda bound: min(number - 1, bound - 1)

    def run(self, command: str) -> list[str]:
        """Run one command; the lines that it printed."""
        self.printer.lines = []
        words = command.split()
        quiet = words[0] == "quiet"
        if quiet:
            words = words[1:]
        self.printer.is_quiet = quiet
        name, *arguments = words
        run = getattr(self, "do_" + name.replace("-", "_"), None)
        if run is None:
            raise ScriptError(f"no such command: {name}")
        try:
            run(*arguments)
        except JetstoreError as refused:
            self.printer.is_quiet = False
            self.printer.say("always", f"{type(refused).__name__}: {refused}")
        except AssertionError as fatal:
            self.printer.is_quiet = False
            self.printer.say("always", f"FATAL: {fatal}")
        self._roles()
        lines = self.printer.lines
        self.printer.is_quiet = False
        return [line.rstrip() for line in lines]

    def _roles(self) -> None:
        for number, member in sorted(self.world.members.items()):
            core = member.core
            now = f"is {core.role.value} t{core.term}" if core is not None else "is down"
            if core is not None and core.configuration.is_learner(number):
                now = f"is learner t{core.term}"
            if self.shown.get(number, now) != now:
                self.printer.say("roles", f"{number} {now}")
            self.shown[number] = now

    def member(self, word: str) -> Member:
        if int(word) not in self.world.members:
            raise ScriptError(f"no member {word}")
        return self.world.members[int(word)]

    def some(self, words: tuple[str, ...]) -> list[Member]:
        return [self.member(word) for word in words] or [m for _, m in sorted(self.world.members.items())]

    # -- building -------------------------------------------------------------------------------------------------

    def do_options(self, *words: str) -> None:
        """``options name=value …``: of RaftOptions, before ``group``."""
        for word in words:
            name, _, value = word.partition("=")
            self.options[name] = int(value)
        self.world.options = RaftOptions(**self.options)

    def do_group(self, *words: str) -> None:
        """``group 3 [down]``: members 1..n on nodes n1..nn, started unless ``down``."""
        count = int(words[0])
        self.world.found(Configuration.founding([(f"n{i}", 1) for i in range(1, count + 1)]))
        if "down" not in words:
            for member in self.some(()):
                member.start()

    def do_preset(self, word: str, *fields: str) -> None:
        """``preset 1 term=6 vote=1 log=1,1,4``: what the disk of a member that was not started yet holds."""
        disk = self.member(word).disk
        values = dict(f.partition("=")[::2] for f in fields)
        disk.hard_state = HardState(Term(int(values.get("term", 0))), int(values.get("vote", 0)))
        terms = [int(t) for t in values.get("log", "").split(",") if t]
        disk.entries = [Entry(Term(t), RaftIndex(i), f"{t}.{i}".encode()) for i, t in enumerate(terms, 1)]

    def do_start(self, *words: str) -> None:
        for member in self.some(words):
            if not member.is_up:
                member.start()

    def do_join(self, word: str) -> None:
        """``join 4``: the node of a new member starts, blank."""
        self.world.add(int(word)).start()

    def do_hide(self, *kinds: str) -> None:
        """``hide blocks messages applied events heartbeats``: leave such lines out; without kinds show everything."""
        self.printer.hides = set(kinds)

    # -- inputs ---------------------------------------------------------------------------------------------------

    def do_tick(self, word: str, count: str = "1") -> None:
        members = self.some(()) if word == "all" else [self.member(word)]
        for _ in range(int(count)):
            for member in members:
                if member.core is not None:
                    member.core.tick()
                    member.pump()

    def do_campaign(self, word: str) -> None:
        member = self.member(word)
        member.running.campaign()
        member.pump()

    def do_propose(self, word: str, data: str, *fields: str) -> None:
        """``propose 1 a [term=2]``; ``a*100`` is a hundred bytes."""
        member = self.member(word)
        text, _, times = data.partition("*")
        term = next((Term(int(f[5:])) for f in fields if f.startswith("term=")), None)
        member.running.propose((text * int(times or 1)).encode(), term=term)
        member.pump()

    def do_conf(self, word: str, *words: str) -> None:
        """``conf 1 add-learner n4``, ``add-voter n4``, ``promote 4``, ``demote 1``, ``remove 3``,
        ``replace 3 4``, ``leave``; several with commas; then ``simple``, ``joint``, ``stays`` (no auto-leave)."""
        member = self.member(word)
        transition, automatic = Transition.AUTO, True
        steps: list[ChangeStep] = []
        for part in " ".join(words).split(","):
            kind, *rest = part.split()
            while rest and rest[-1] in ("simple", "joint", "stays"):
                flag = rest.pop()
                automatic &= flag != "stays"
                if flag != "stays":
                    transition = Transition(flag)
            if kind == "replace":
                change = ConfChange.replace(int(rest[0]), int(rest[1]))
                steps += change.steps
                transition = change.transition
            elif kind.startswith("add-"):
                name, _, incarnation = rest[0].partition(":")
                steps.append(ChangeStep(ChangeKind(kind), node=NodeIncarnation(name, int(incarnation or 1))))
            elif kind != "leave":
                steps += [ChangeStep(ChangeKind(kind), int(number)) for number in rest]
        member.running.propose_conf_change(ConfChange(tuple(steps), transition, automatic))
        member.pump()

    def do_transfer(self, word: str, to: str) -> None:
        member = self.member(word)
        member.running.transfer_leader(int(to))
        member.pump()

    def do_read_index(self, word: str, context: str) -> None:
        member = self.member(word)
        member.running.read_index(context)
        member.pump()

    def do_forget_leader(self, word: str) -> None:
        member = self.member(word)
        member.running.forget_leader()
        member.pump()

    def do_suspect_leader(self, word: str) -> None:
        member = self.member(word)
        member.running.suspect_leader()
        member.pump()

    def do_quiesce(self, word: str) -> None:
        member = self.member(word)
        if not member.running.quiesce():
            self.printer.say("always", f"{word} does not: something is under way")
        member.pump()

    def do_wake(self, word: str) -> None:
        member = self.member(word)
        member.running.wake()
        member.pump()

    def do_unreachable(self, word: str, other: str) -> None:
        member = self.member(word)
        member.running.report_unreachable(int(other))
        member.pump()

    def do_message(self, *words: str) -> None:
        """``message 3→1 vote-response t2 granted``: forged, or one that was under way for very long."""
        sender, _, to = words[0].partition("→")
        kind = MessageKind[words[1].replace("-", "_").upper()]
        fields: dict[str, object] = {}
        for word in words[2:]:
            if word.startswith("t") and word[1:].isdigit():
                fields["term"] = Term(int(word[1:]))
            elif word in ("granted", "refused"):
                fields["is_rejected"] = word == "refused"
            elif word.startswith("entries="):
                fields["entries"] = tuple(self._entry(text) for text in word[8:].split(","))
            else:
                name, _, value = word.partition("=")
                fields[name] = int(value)
        self.world.in_flight.append(Message(kind, int(sender), int(to), **fields))  # type: ignore[arg-type]

    def _entry(self, text: str) -> Entry:
        """``7@3:data``"""
        where, _, data = text.partition(":")
        index, _, term = where.partition("@")
        return Entry(Term(int(term)), RaftIndex(int(index)), data.encode())

    # -- network --------------------------------------------------------------------------------------------------

    def _matching(self, words: tuple[str, ...]) -> list[Message]:
        """``1→2``, ``→2``, ``1→``; a kind such as ``append``; ``first``; ``last``."""
        found = list(self.world.in_flight)
        for word in words:
            if word == "first":
                found = found[:1]
            elif word == "last":
                found = found[-1:]
            elif "→" in word:
                sender, _, to = word.partition("→")
                found = [m for m in found if (not sender or m.sender == int(sender)) and (not to or m.to == int(to))]
            else:
                found = [m for m in found if m.kind is MessageKind[word.replace("-", "_").upper()]]
        return found

    def _take(self, messages: list[Message]) -> None:
        gone = {id(m) for m in messages}
        self.world.in_flight = [m for m in self.world.in_flight if id(m) not in gone]

    def do_deliver(self, *words: str) -> None:
        """Messages that are under way now arrive, in order; what they cause stays under way. With ``together`` the
        members see all of them before they do anything."""
        messages = self._matching(tuple(word for word in words if word != "together"))
        self._take(messages)
        for message in messages:
            if not self.world.deliver(message):
                self._lost(message)
            elif "together" not in words:
                self.world.members[message.to].pump()
        if "together" in words:
            for number in sorted({message.to for message in messages}):
                self.world.members[number].pump()

    def _lost(self, message: Message) -> None:
        kind = "heartbeats" if message.kind in (K.HEARTBEAT, K.HEARTBEAT_RESPONSE) else "messages"
        self.printer.say(kind, f"lost: {show_message(message)}")

    def do_drop(self, *words: str) -> None:
        messages = self._matching(words)
        self._take(messages)
        for message in messages:
            self._lost(message)

    def do_duplicate(self, *words: str) -> None:
        """They will arrive twice."""
        self.world.in_flight += self._matching(words)

    def do_later(self, *words: str) -> None:
        """They will arrive after everything that is under way now."""
        messages = self._matching(words)
        self._take(messages)
        self.world.in_flight += messages

    def do_in_flight(self) -> None:
        for message in self.world.in_flight:
            self.printer.say("always", show_message(message))

    def do_cut(self, *words: str) -> None:
        """``cut 1`` from everybody; ``cut 1-2`` both ways; ``cut 1→2`` one way."""
        for word in words:
            if "→" in word:
                sender, _, to = word.partition("→")
                self.world.cuts.add((int(sender), int(to)))
                continue
            one, _, other = word.partition("-")
            for number in [int(other)] if other else list(self.world.members):
                if number != int(one):
                    self.world.cuts |= {(int(one), number), (number, int(one))}

    def do_heal(self) -> None:
        self.world.cuts.clear()

    def do_stabilize(self, *words: str) -> None:
        """Everything under way among these members (all) arrives, until nothing is; blocks of async members wait."""
        numbers = {member.number for member in self.some(words)}
        for _ in range(10_000):
            messages = [m for m in self.world.in_flight if m.to in numbers and m.sender in numbers]
            if not messages:
                fetched = [m for m in self.some(words) if self.world.fetch(m)]
                for member in fetched:
                    member.pump()
                if not fetched:
                    return
                continue
            self._take(messages[:1])
            if self.world.deliver(messages[0]):
                self.world.members[messages[0].to].pump()
            elif messages[0].kind not in (K.HEARTBEAT, K.HEARTBEAT_RESPONSE):
                self._lost(messages[0])
        raise ScriptError("it does not come to rest")

    def do_run(self, ticks: str, *words: str) -> None:
        """``run 30 [1 2 3]``: so many ticks of these members, everything delivered in between."""
        for _ in range(int(ticks)):
            for member in self.some(words):
                if member.core is not None:
                    member.core.tick()
                    member.pump()
            self.do_stabilize(*words)
            self._roles()

    # -- storage --------------------------------------------------------------------------------------------------

    def do_async(self, *words: str) -> None:
        """Blocks of these members stay under way until ``stored``."""
        for member in self.some(words):
            member.is_async = True

    def do_sync(self, *words: str) -> None:
        """Blocks of these members are durable at once, those under way too."""
        for member in self.some(words):
            member.store()
            member.is_async = False
            if member.is_up:
                member.pump()

    def do_stored(self, word: str, count: str = "1") -> None:
        """The next blocks of a member are durable (``stored 1 all``)."""
        member = self.member(word)
        if not member.pending:
            raise ScriptError(f"{word} has nothing under way")
        member.store(None if count == "all" else int(count))
        member.pump()

    def do_crash(self, word: str, *fields: str) -> None:
        """``crash 1 [keep=2]``: power cut; so many blocks under way reached the disk nevertheless."""
        keep = next((int(f[5:]) for f in fields if f.startswith("keep=")), 0)
        self.member(word).crash(keep)

    def do_damage(self, word: str, *indexes: str) -> None:
        """``damage 1 3 4``: of a member that is down."""
        member = self.member(word)
        if member.is_up:
            raise ScriptError("damage is found on recovery: crash it first")
        for index in indexes:
            if not member.disk.damage(int(index)):
                raise ScriptError(f"{word} has no entry {index} to damage")

    def do_wipe(self, word: str) -> None:
        """Its disk is gone (it must be down); it would come back knowing nothing."""
        member = self.member(word)
        if member.is_up:
            raise ScriptError("crash it first")
        self.world.add(member.number, None)

    def do_compact(self, *words: str) -> None:
        """Checkpoint at what is applied, entries below are gone."""
        for member in self.some(words):
            member.compact()
            member.pump()

    def do_pause_apply(self, word: str) -> None:
        self.member(word).applies = False

    def do_resume_apply(self, word: str) -> None:
        self.member(word).applies = True
        self.member(word).pump()

    # -- looking --------------------------------------------------------------------------------------------------

    def do_log(self, *words: str) -> None:
        """What is durable, and what is not (after ``|``); ``committed/applied``."""
        for member in self.some(words):
            disk = member.disk
            text = f"{member.number}: {show_hard_state(disk.hard_state)};"
            if disk.checkpoint.index:
                text += f" [{disk.checkpoint.index}@{disk.checkpoint.term}]"
            text += " " + (show_entries(disk.entries) or "nothing")
            if member.pending:
                text += " | " + " | ".join(show_ready(ready) for ready in member.pending)
            if member.core is not None:
                log = member.core.log
                text += f" (committed {log.committed_index}, applied {log.applied_index})"
            self.printer.say("always", text)

    def do_status(self, *words: str) -> None:
        for member in self.some(words):
            if member.core is None:
                self.printer.say("always", f"{member.number}: down")
                continue
            s = member.core.status()
            text = f"{member.number}: {s.role.value} t{s.term} vote {s.vote or '-'} leader {s.leader or '-'}"
            text += f" {show_configuration(s.configuration)} committed {s.committed_index} applied {s.applied_index}"
            text += f" durable {s.durable_index} last {s.last_index}@{s.last_term}"
            if s.is_quiescent:
                text += " quiescent"
            if s.transfer_to:
                text += f" transfer to {s.transfer_to}"
            if s.faulty:
                text += f" faulty {' '.join(map(str, s.faulty))}"
            if s.waiting_for:
                text += f" waiting for {' '.join(map(str, s.waiting_for))}"
            self.printer.say("always", text)
            for number, p in sorted(s.progress.items()):
                flags = "".join(
                    f" {name}"
                    for name, on in (
                        ("inactive", not p.is_active),
                        ("fenced", p.is_fenced),
                        ("damaged", p.is_damaged),
                    )
                    if on
                )
                self.printer.say("always", f"  {number}: {p.state} match {p.match_index} next {p.next_index}{flags}")


def run_script(text: str) -> str:
    """The script with what its commands print now."""
    steps, after = parse(text)
    script = Script()
    out: list[str] = []
    for step in steps:
        out += [line for line in step.before if line.startswith("#") or not line.strip()]
        out.append(f"> {step.command}")
        try:
            out += script.run(step.command)
        except ScriptError as wrong:
            raise ScriptError(f"> {step.command}: {wrong}") from None
    return "\n".join(out + after).rstrip() + "\n"
