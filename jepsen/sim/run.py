"""One seed, from the first boot to the verdict: clients work, faults strike, all heals, every promise is checked."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import Any

from jepsen.checker.live import check_live
from jepsen.checker.stream import check_whole
from jepsen.history import History
from jepsen.nemesis import damage
from jepsen.sim.client import Client
from jepsen.sim.machine import Machine, Serve
from jepsen.sim.plan import WORKLOADS, Plan, draw_plan
from jepsen.sim.server import serve_node
from jepsen.sim.vfs import SimVfs
from jepsen.sim.world import START_BOUND_S, World
from jepsen.workload.base import Setting, Workload, live, persist
from jetstore.errors import Corruption, DiskFull

PROBE_BOUND_NS = 20_000_000_000
"""Virtual time within which a healed server takes a write."""


@dataclass(slots=True)
class Report:
    """What came of one seed."""

    seed: int
    problems: list[str] = field(default_factory=list)
    operations: int = 0
    acks: int = 0
    unknown: int = 0
    strikes: dict[str, int] = field(default_factory=dict)
    deaths: dict[str, int] = field(default_factory=dict)
    fault_counts: dict[str, int] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)
    boots: int = 0
    virtual_s: float = 0.0
    trace_hash: str = ""
    story: list[str] = field(default_factory=list)
    """What the nemesis did, in order."""
    history: History | None = None
    workloads: tuple[str, ...] = ()


def run_seed(
    seed: int,
    serve: Serve = serve_node,
    *,
    workloads: tuple[str, ...] = (),
    faults: frozenset[str] | None = None,
    damaged: bool | None = None,
    is_small: bool = False,
) -> Report:
    """Run one seed; a report with its problems (none = passed). Never raises on a failure of the tested code."""
    rng = Random(seed)
    plan = draw_plan(rng, workloads=workloads, faults=faults, damage=damaged, is_small=is_small)
    world = World(Random(rng.getrandbits(64)), limits=plan.limits, capacity_bytes=plan.capacity_bytes, serve=serve)
    loop, machine = world.loop, world.machine
    loop.time_cost_s = plan.time_cost_s
    report = Report(seed, workloads=plan.workloads)
    run = _Run(plan, world, Random(rng.getrandbits(64)), report)
    try:
        world.run(run.main())
    except Exception as error:  # noqa: BLE001  # a deadlock, a livelock or a bug of a workload: all are findings
        report.problems.append(f"run: {type(error).__name__}: {error}")
    report.problems += [f"err: {failure}" for failure in loop.failures]
    run.close()
    history = run.history
    report.history = history
    report.operations = len(history.operations)
    report.acks = sum(1 for _ in history.of("publish", outcome="ok"))
    report.unknown = sum(1 for _ in history.of("publish", outcome="info"))
    report.deaths, report.boots = machine.deaths, machine.boots
    report.fault_counts = machine.vfs.fault_counts
    report.problems += _unexplained(machine, report)
    report.virtual_s = loop.now_ns() / 1e9
    loop.trace(*(operation.line() for operation in history.operations), len(report.problems))
    report.trace_hash = loop.trace_hash()
    world.close()
    return report


def _unexplained(machine: Machine, report: Report) -> list[str]:
    """Ends of the server that no injected fault explains."""
    if machine.vfs.fault_counts or report.damage:
        return []
    is_full = "E3 full" in report.strikes
    errors = {
        f"exit: {_chain(error)}"
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


class _Run:
    """The parts of one run while it lasts."""

    def __init__(self, plan: Plan, world: World, rng: Random, report: Report) -> None:
        self.plan, self.loop, self.machine, self.rng, self.report = plan, world.loop, world.machine, rng, report
        self.history = History(world.loop.now_ns)
        self.is_over = False
        self.setting = Setting(
            history=self.history,
            rng=Random(rng.getrandbits(64)),
            connect=world.connect,
            is_over=lambda: self.is_over,
            pace_s=plan.pace_s,
            publishes_max=plan.publishes_max,
            clocks_jump=plan.clocks_jump,
            reads_fail=not plan.kinds.isdisjoint(("read-error", "open-error")),
        )
        self.workloads: list[Workload] = [WORKLOADS[name](self.setting) for name in plan.workloads]
        self._tasks: list[asyncio.Task[Any]] = []
        self._earlier: SimVfs | None = None

    def tell(self, what: str) -> None:
        self.report.story.append(f"t={self.loop.now_ns() / 1e9:.6f} {what}")
        self.loop.trace(what)

    def problem(self, what: str) -> None:
        self.report.problems.append(what)

    async def main(self) -> None:
        machine, setting = self.machine, self.setting
        machine.power_on()
        if not await machine.ready(START_BOUND_S):
            self.problem(f"live: the server did not start on a new disk: {self._last_exit()}")
            return
        for workload in self.workloads:
            await persist(setting, "setup", workload.setup, tries=5)
        clients = [
            self.loop.create_task(live(setting, f"{name}{number}", body))
            for name, workload in zip(self.plan.workloads, self.workloads, strict=True)
            for number, body in enumerate(workload.processes())
        ]
        self._tasks += clients
        await self._nemesis()
        self.is_over = True
        machine.heal_disk()
        await asyncio.wait(clients, timeout=120.0)
        for client in clients:
            if not client.done():
                self.problem("live: a client never came to its end")
                client.cancel()
            elif client.exception() is not None:
                self.problem(f"run: a client failed: {client.exception()!r}")
        await self._last_restart()
        if not await machine.ready(START_BOUND_S):
            if self.report.damage and isinstance(machine.exits[-1][1] if machine.exits else None, Corruption):
                self.tell(f"refuses to start, naming the damage: {machine.exits[-1][1]}")
            else:
                self.problem(f"live: the server does not start: {self._last_exit()}")
            return
        try:
            if not self.report.damage:
                await self._probe()
            for workload in self.workloads:
                await persist(setting, "final", workload.finish, tries=12)
        except Exception as error:  # noqa: BLE001  # whatever it is, the final reads did not come
            self.problem(f"live: final reads failed: {type(error).__name__}: {error}")
            return
        self.report.problems += setting.problems + check_live(self.history, PROBE_BOUND_NS)
        for workload in self.workloads:
            self.report.problems += workload.check()
            if workload.final is not None and not setting.is_damaged:
                self.report.problems += check_whole(workload.final)

    async def _probe(self) -> None:
        """A stream is made and takes a message, now that nothing is wrong."""
        probe = self.history.begin(0, "probe")

        async def work(client: Client) -> None:
            await client.api("STREAM.CREATE.PROBE", {"name": "PROBE", "subjects": ["probe"]})
            probe.args["seq"] = (await client.request("probe", b"alive")).json()["seq"]

        await persist(self.setting, "probe", work, tries=12)
        probe.ok()

    async def _nemesis(self) -> None:
        started = self.loop.now_ns() / 1e9
        if self.plan.damage:
            self.loop.call_later(self.plan.duration_s * self.rng.random(), self._remember)
        for strike in self.plan.strikes:
            await asyncio.sleep(max(0.0, started + strike.at_s - self.loop.now_ns() / 1e9))
            self.tell(strike.kind.strike(self.machine, self.rng))
            name = f"{strike.kind.letter} {strike.kind.name}".strip()
            self.report.strikes[name] = self.report.strikes.get(name, 0) + 1
        await asyncio.sleep(max(0.0, started + self.plan.duration_s - self.loop.now_ns() / 1e9))

    def _remember(self) -> None:
        """Keep the disk as it is now, for damage that brings old bytes back."""
        self._earlier = self.machine.vfs.clone()

    async def _last_restart(self) -> None:
        machine, plan = self.machine, self.plan
        if not plan.damage:
            self.tell(f"last end: {plan.last_end}")
            if plan.last_end == "kill":
                machine.kill(0.1)
            elif plan.last_end == "power":
                machine.power_cut(0.1)
            elif plan.last_end == "restart" and await machine.ready(START_BOUND_S):
                machine.restart(0.1)
                await asyncio.sleep(0.05)
            return
        # Let the second evidence of the last block become durable, then damage the resting disk.
        await machine.ready(START_BOUND_S)
        await asyncio.sleep(1.0)
        machine.power_cut(0.5)
        self.setting.is_damaged = True
        for file_class, kind in plan.damage:
            done = damage.strike(machine.vfs, self.rng, file_class, kind, self._earlier)
            if done is not None:
                self.tell(done)
                self.report.damage.append(done)

    def _last_exit(self) -> str:
        return repr(self.machine.exits[-1]) if self.machine.exits else "it is still starting"

    def close(self) -> None:
        """Its clients come to an end."""
        self.is_over = True
        rest = [task for task in self._tasks if not task.done()]
        for task in rest:
            task.cancel()
        if rest:
            self.loop.callbacks = 0
            self.loop.deadline_s = float("inf")
            try:
                self.loop.run_until_complete(asyncio.wait(rest, timeout=30.0))
            except Exception:  # noqa: BLE001, S110  # the verdict is in; what is left does not matter
                pass
