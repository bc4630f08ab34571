"""One seed, from the first boot to the verdict: clients work, faults strike, all heals, every promise is checked."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from jepsen.checker.ghosts import check_ghosts
from jepsen.checker.live import check_live
from jepsen.checker.raft import check_raft
from jepsen.checker.replicas import check_hashes, check_nodes
from jepsen.checker.stream import check_whole
from jepsen.checker.tally import tallied
from jepsen.history import History, Seen
from jepsen.nemesis.schedule import Strike
from jepsen.sim.client import Client
from jepsen.sim.compression import compress, is_compressed
from jepsen.sim.encryption import encrypt, is_encrypted
from jepsen.sim.holdings import holdings
from jepsen.sim.machine import EPOCH_NS, Machine, Serve
from jepsen.sim.plan import READ_KINDS, WORKLOADS, Plan, draw_plan, join_storms, join_workloads
from jepsen.sim.recorder import Recorder
from jepsen.sim.server import serve_node
from jepsen.sim.spin import SimSpin, guarded
from jepsen.sim.world import START_BOUND_S, World
from jepsen.workload.base import Setting, Workload, live, persist
from jetstore.errors import Corruption, DiskFull, OperatingError

READ_AGAIN_MAX = 20
"""Seconds within which a replica must have repaired what is found damaged in the end."""
PROBE_BOUND_NS = 20_000_000_000
"""Virtual time within which a healed server takes a write."""
LAST_ANSWERS_S = 0.5
"""How long after everything has healed clients may still get answers."""
GHOSTS_GO_S = 20.0
"""Virtual time within which nothing is left of deleted streams."""
CONVERGE_BOUND_S = 60.0
"""Virtual time within which healed replicas agree on what is committed."""


BACK = ("old content of ", "the journal as it was")
"""Damage (``nemesis/damage.py``) that puts files back as they once were."""
NOT_SAFETY = ("live", "spin", "ghost", "run", "err")
"""Checkers, by the first word of what they tell, that find a late answer, waste or a broken harness: nothing wrong."""


@dataclass(slots=True)
class Report:
    """What came of one seed."""

    seed: int
    nodes: int = 1
    problems: list[str] = field(default_factory=list)
    operations: int = 0
    acks: int = 0
    unknown: int = 0
    strikes: dict[str, int] = field(default_factory=dict)
    deaths: dict[str, int] = field(default_factory=dict)
    fault_counts: dict[str, int] = field(default_factory=dict)
    link_counts: dict[str, int] = field(default_factory=dict)
    matrix: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(fault, transition) → how often the transition was seen while the fault was in effect."""
    checks: Counter[str] = field(default_factory=Counter)
    """How much each checker has compared."""
    damage: list[str] = field(default_factory=list)
    events: int = 0
    """Strikes and damages in the plan, before any were left out."""
    boots: int = 0
    virtual_s: float = 0.0
    cpu_s: float = 0.0
    """Set when it ran in a process of its own."""
    trace_hash: str = ""
    story: list[str] = field(default_factory=list)
    """What the nemesis did, in order."""
    history: History | None = None
    workloads: tuple[str, ...] = ()

    @property
    def is_unsafe(self) -> bool:
        """Something was lost, wrong, or not as the invariants say: more than late or absent."""
        return any(problem.partition(":")[0] not in NOT_SAFETY for problem in self.problems)


def draw_nodes(seed: int) -> int:
    """How many machines a seed has when the server replicates."""
    return Random(f"nodes {seed}").choice((1, 3, 3, 3, 3, 5))


def run_seed(
    seed: int,
    serve: Serve = serve_node,
    *,
    nodes: int = 1,
    workloads: tuple[str, ...] = (),
    faults: frozenset[str] | None = None,
    damaged: bool | None = None,
    is_small: bool = False,
    only: Collection[int] | None = None,
    publishes_max: int | None = None,
    compressed: bool | None = None,
    encrypted: bool | None = None,
) -> Report:
    """Run one seed; a report with its problems (none = passed). Never raises on a failure of the tested code.

    ``only``: numbers of the plan's events (``Plan.events``) that happen, the rest does not. ``compressed``,
    ``encrypted``: whether streams ask for it, stores are; None = the seed says, unless ``workloads`` are given.
    """
    rng = Random(seed)
    plan = draw_plan(rng, nodes=nodes, workloads=workloads, faults=faults, damage=damaged, is_small=is_small)
    if not workloads:
        plan = join_workloads(plan, seed)
    if faults is None:
        plan = join_storms(plan, seed)
    world = World(
        Random(rng.getrandbits(64)),
        nodes=nodes,
        limits=plan.limits,
        capacity_bytes=plan.capacity_bytes,
        serve=serve,
    )
    report = Report(seed, nodes, workloads=plan.workloads, events=plan.events)
    if only is not None:
        plan = plan.only(only)
    if publishes_max is not None:
        plan = replace(plan, publishes_max=publishes_max)
    world.loop.time_cost_s = plan.time_cost_s
    if encrypted or (encrypted is None and not workloads and is_encrypted(seed)):
        encrypt(world.machines, seed)
    run = Run(plan, world, Random(rng.getrandbits(64)), report)
    if compressed or (compressed is None and not workloads and is_compressed(seed)):
        compress(run.workloads)
    conduct(run)
    return report


def conduct(run: Run) -> None:
    """Run it to its end, and write its report."""
    world, report, loop = run.world, run.report, run.loop
    try:
        with guarded(loop), tallied(report.checks):
            world.run(run.main())
    except SimSpin as spin:
        report.problems.append(f"spin: {spin}")
        run.is_spinning = True
    except Exception as error:  # noqa: BLE001  # a deadlock, a livelock or a bug of a workload: all are findings
        report.problems.append(f"run: {type(error).__name__}: {error}")
    report.problems += [f"err: {failure}" for failure in loop.failures]
    run.close()
    history = run.history
    report.history = history
    report.operations = len(history.operations)
    report.acks = sum(1 for _ in history.of("publish", outcome="ok"))
    report.unknown = sum(1 for _ in history.of("publish", outcome="info"))
    for machine in world.machines:
        _add(report.deaths, machine.deaths)
        _add(report.fault_counts, machine.vfs.fault_counts)
        report.boots += machine.boots
        report.problems += _unexplained(machine, report)
    report.link_counts, report.matrix = world.links.counts, run.recorder.matrix
    report.virtual_s = loop.now()
    loop.trace(*(operation.line() for operation in history.operations), len(report.problems))
    report.trace_hash = loop.trace_hash()
    world.close()


def plan_replicas(plan: Plan) -> int:
    """Members of each stream's group."""
    return 3 if plan.nodes == 5 and plan.publishes_max % 2 else plan.nodes


def _is_refusal(machine: Machine, error: BaseException | None) -> bool:
    """Whether a server rightly ends at start: it names damage, or its peers have refused a disk that went back."""
    if isinstance(error, OperatingError):
        return any(damage.startswith(BACK) for damage in machine.damages)
    return isinstance(error, Corruption) and bool(machine.damages)


def _add(totals: dict[str, int], counts: dict[str, int]) -> None:
    for name, count in counts.items():
        totals[name] = totals.get(name, 0) + count


def _unexplained(machine: Machine, report: Report) -> list[str]:
    """Ends of a server that no injected fault explains."""
    if machine.vfs.fault_counts or machine.damages:
        return []
    is_full = "E3 full" in report.strikes
    errors = {
        f"exit: {machine.name}: {_chain(error)}"
        for _, error in machine.exits
        if error is not None and not (is_full and isinstance(error, DiskFull))
    }
    return sorted(errors)


def _chain(error: BaseException | None) -> str:
    told = []
    while error is not None:
        told.append(f"{type(error).__name__}: {error}")
        error = error.__cause__ or error.__context__
    return " ← ".join(told)


class Run:
    """The parts of one run while it lasts."""

    def __init__(
        self,
        plan: Plan,
        world: World,
        rng: Random,
        report: Report,
        script: Callable[[Run], Awaitable[None]] | None = None,
    ) -> None:
        """``script``: what goes wrong, by hand, in place of the plan's strikes."""
        self.script = script or Run.strikes
        self.plan, self.world, self.rng, self.report = plan, world, rng, report
        self.loop = world.loop
        self.history = History(world.loop.now_ns)
        self.recorder = Recorder(world)
        self.is_over = False
        self.is_spinning = False
        """Some callback never ends: nothing of this world may run again."""
        self.setting = Setting(
            history=self.history,
            rng=Random(rng.getrandbits(64)),
            connect=world.connect,
            ends=lambda: self.is_over,
            wall_ns=lambda: EPOCH_NS + self.loop.now_ns(),
            pace_s=plan.pace_s,
            publishes_max=plan.publishes_max,
            clocks_jump=plan.clocks_jump,
            reads_fail=not plan.kinds.isdisjoint(READ_KINDS),
        )
        self.workloads: list[Workload] = [WORKLOADS[name](self.setting) for name in plan.workloads]
        world.on_tell = self.tell
        self._tasks: list[asyncio.Task[Any]] = []
        self._shown: dict[str, dict[str, dict[int, Seen] | None]] = {}
        """Streams as each replica has them in the end."""

    def tell(self, what: str) -> None:
        self.report.story.append(f"t={self.loop.now():.6f} {what}")
        self.loop.trace(what)

    def problem(self, what: str) -> None:
        self.report.problems.append(what)

    async def main(self) -> None:
        world, setting = self.world, self.setting
        try:
            await world.all_up()
        except AssertionError as error:
            self.problem(f"live: on new disks: {error}")
            return
        is_replicated = any(machine.replicates for machine in world.machines)
        if len(world.machines) > 1 and not is_replicated:  # as many lone servers: each workload has its own
            world.homes = {name: at % len(world.machines) for at, name in enumerate(self.plan.workloads)}
        if is_replicated:
            self.world.streams = {
                "P": "PROBE",
                **{name: workload.name for name, workload in zip(self.plan.workloads, self.workloads, strict=True)},
            }
            self.world.replicas = plan_replicas(self.plan)
            self.world.others = {name for workload in self.workloads for name in getattr(workload, "others", ())}
        self.recorder.start()
        for name, workload in zip(self.plan.workloads, self.workloads, strict=True):
            await persist(setting, f"{name}setup", workload.setup, tries=12 if is_replicated else 5)
        clients = [
            self.loop.create_task(live(setting, f"{name}{number}", body))
            for name, workload in zip(self.plan.workloads, self.workloads, strict=True)
            for number, body in enumerate(workload.processes())
        ]
        self._tasks += clients
        await self.script(self)
        self.is_over = True
        world.calm()
        await asyncio.wait(clients, timeout=LAST_ANSWERS_S)
        world.hang_up()  # what is not answered by now is unknown: nobody waits for time-outs
        await asyncio.wait([*clients, *world.storms], timeout=120.0)
        for client in (*clients, *world.storms):
            if not client.done():
                self.problem("live: a client never came to its end")
                client.cancel()
            elif client.exception() is not None:
                self.problem(f"run: a client failed: {client.exception()!r}")
        await self._last_restart()
        if not await self._all_back():
            return
        try:
            if not self.report.damage:
                await self._probe()
            if is_replicated:
                await self._converge()
            for name, workload in zip(self.plan.workloads, self.workloads, strict=True):
                await persist(setting, f"{name}final", workload.finish, tries=12)
            if is_replicated:
                await self._converge()
                await self._read_replicas()
            await self._look_for_ghosts()
        except Exception as error:  # noqa: BLE001  # whatever it is, the final reads did not come
            self.problem(f"live: final reads failed: {type(error).__name__}: {error}")
            return
        finally:
            self.recorder.stop()
        self._check()

    async def _read_replicas(self) -> None:
        """Each replica's own messages: what rotted and was never read since is found, and repaired, now."""
        for workload in self.workloads:
            if workload.final is None:
                continue
            name = workload.final.name
            for turn in range(READ_AGAIN_MAX):
                try:
                    self._shown[name] = {machine.name: machine.contents(name) for machine in self.world.machines}
                    break
                except Corruption as error:
                    if turn == READ_AGAIN_MAX - 1:
                        self.problem(f"lost-on-node: {name}: {error}")
                    await asyncio.sleep(1.0)

    async def _look_for_ghosts(self) -> None:
        """Files of deleted groups go in the background, soon."""
        bound_s = self.loop.now() + GHOSTS_GO_S
        while True:
            seen = [found for machine in self.world.machines if (found := holdings(machine)) is not None]
            with tallied(Counter()):
                are_there = bool(check_ghosts(seen))
            if not are_there or self.loop.now() > bound_s:
                self.report.problems += check_ghosts(seen)
                return
            await asyncio.sleep(0.5)

    def _check(self) -> None:
        setting, report, recorder = self.setting, self.report, self.recorder
        report.problems += setting.problems + check_live(self.history, PROBE_BOUND_NS)
        for workload in self.workloads:
            report.problems += workload.check()
            if workload.final is None:
                continue
            if not setting.is_damaged:
                report.problems += check_whole(workload.final)
            shown = self._shown.get(workload.final.name, {})
            report.problems += check_nodes(
                workload.final.name, {node: found for node, found in shown.items() if found is not None}
            )
        report.problems += check_raft(recorder.states, recorder.promises) + check_hashes(recorder.hashes)

    async def _all_back(self) -> bool:
        """Wait until every server serves that has a disk to serve from."""
        for machine in self.world.machines:
            if await machine.ready(START_BOUND_S):
                continue
            end = machine.exits[-1] if machine.exits else None
            if end is not None and _is_refusal(machine, end[1]):
                self.tell(f"{machine.name} refuses to start, naming the damage: {end[1]}")
                if len(self.world.machines) == 1:
                    return False
                continue
            self.problem(f"live: the server of {machine.name} does not start: {end or 'it is still starting'}")
            return False
        return True

    async def _probe(self) -> None:
        """A stream is made and takes a message, now that nothing is wrong."""
        probe = self.history.begin(0, "probe")

        async def create(client: Client) -> None:
            await client.api("STREAM.CREATE.PROBE", {"name": "PROBE", "subjects": ["probe"]})

        async def publish(client: Client) -> None:
            probe.args["seq"] = (await client.request("probe", b"alive")).json()["seq"]

        await persist(self.setting, "Pcreate", create, tries=12)
        await persist(self.setting, "Publish", publish, tries=12)
        probe.ok()

    async def _converge(self) -> None:
        """Wait until every replica of every group has applied what the furthest knows as committed."""
        bound_s = self.loop.now() + CONVERGE_BOUND_S
        while True:
            positions: dict[str, set[tuple[int, int]]] = {}
            for state in self.world.states():
                positions.setdefault(state.group, set()).add((state.commit, state.applied))
            behind = {group: sorted(found) for group, found in sorted(positions.items()) if len(found) > 1}
            if not behind:
                return
            if self.loop.now() > bound_s:
                self.problem(f"live: replicas did not converge, (commit, applied) by group: {behind}")
                return
            await asyncio.sleep(0.05)

    async def strikes(self) -> None:
        """What the plan has drawn to go wrong, when it does."""
        started = self.loop.now()
        machine = self.world.machine
        if self.plan.damage:
            self.loop.call_later(self.plan.duration_s * self.rng.random(), machine.remember)
        for strike in self.plan.strikes:
            await asyncio.sleep(max(0.0, started + strike.at_s - self.loop.now()))
            self._strike(strike)
        await asyncio.sleep(max(0.0, started + self.plan.duration_s - self.loop.now()))

    def _strike(self, strike: Strike) -> None:
        name = f"{strike.kind.letter} {strike.kind.name}".strip()
        told = strike.kind.strike(self.world, Random(strike.seed))
        if told:
            self.tell(told if strike.kind.name in told else f"{strike.kind.name}: {told}")
            self.recorder.struck(name)
            self.report.strikes[name] = self.report.strikes.get(name, 0) + 1

    async def _last_restart(self) -> None:
        machines, plan = self.world.machines, self.plan
        if not plan.damage:
            self.tell(f"last end: {plan.last_end}")
            for machine in machines:
                if plan.last_end == "kill":
                    machine.kill(0.1)
                elif plan.last_end == "power":
                    machine.power_cut(0.1)
                elif plan.last_end == "restart" and await machine.ready(START_BOUND_S):
                    machine.restart(0.1)
            if plan.last_end == "restart":
                await asyncio.sleep(0.05)
            return
        # Let the second evidence of the last block become durable, then damage the resting disk.
        machine = self.world.machine
        await machine.ready(START_BOUND_S)
        await asyncio.sleep(1.0)
        machine.power_cut(0.5)
        self.setting.is_damaged = True
        for file_class, kind, seed in plan.damage:
            done = machine.damage(Random(seed), file_class, kind)
            if done is not None:
                self.tell(done)
                self.report.damage.append(done)

    def close(self) -> None:
        """Its clients come to an end."""
        self.is_over = True
        self.recorder.is_running = False
        rest = [task for task in (*self._tasks, *self.world.storms) if not task.done()]
        if self.is_spinning:
            for machine in self.world.machines:
                machine.close()
            return
        for task in rest:
            task.cancel()
        if rest:
            self.loop.callbacks = 0
            self.loop.deadline_s = float("inf")
            try:
                self.loop.run_until_complete(asyncio.wait(rest, timeout=30.0))
            except Exception:  # noqa: BLE001, S110  # the verdict is in; what is left does not matter
                pass
