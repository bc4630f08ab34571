"""The simulated machine: a disk, a wall clock, and one server process that is started, killed, paused and restarted."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from jepsen.history import AppliedHash, RaftPromise, RaftState, Seen
from jepsen.nemesis.damage import strike
from jepsen.sim.encryption import Secrets
from jepsen.sim.faults import fault
from jepsen.sim.loop import SimLoop
from jepsen.sim.owner import OWNER, Owner
from jepsen.sim.probe import Probe
from jepsen.sim.transport import SimTransport
from jepsen.sim.vfs import SimVfs
from jetstore.limits import Limits
from jetstore.types import Nanos

EPOCH_NS = 1_700_000_000_000_000_000
"""Wall time at the start of every run."""
SYNC_METHODS = frozenset(["append", "sync", "write_checkpoint", "index_commit", "remove_files", "make_group_dir"])


class SimClock:
    """The machine's wall clock: it may jump and run at another rate. Implements ``jetstore.clock.Clock``."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self._base_ns = EPOCH_NS
        self._since_ns = 0
        self._rate = 1.0

    def wall_ns(self) -> Nanos:
        return Nanos(self._base_ns + int((self._loop.now_ns() - self._since_ns) * self._rate))

    def jump(self, by_ns: int) -> None:
        """Set the clock forward or back."""
        self._base_ns += by_ns

    def set_rate(self, rate: float) -> None:
        """Run faster or slower from now on."""
        self._base_ns, self._since_ns = int(self.wall_ns()), self._loop.now_ns()
        self._rate = rate


class Boot:
    """What one start of the server process gets from its machine."""

    def __init__(self, machine: Machine, number: int, rng: Random) -> None:
        self.machine = machine
        self.name, self.host, self.peers = machine.name, machine.host, machine.peers
        self.number = number
        self.rng = rng
        self.owner = Owner(f"{machine.name} boot {number}", machine.host)
        self.loop = machine.loop
        self.vfs = machine.vfs
        self.clock = machine.clock
        self.stop_wanted: asyncio.Future[None] = machine.loop.create_future()
        """Done when the process is asked to stop cleanly (SIGTERM)."""
        self.is_ready = False
        self.server: Any = None
        """What serves, for scripted scenarios that look inside."""
        self.probe: Probe | None = None
        """How the harness asks what this process believes, if it is a replica of something."""
        self.findings: list[str] = []
        """What recovery said about the journal."""

    def ready(self) -> None:
        """The server listens and serves."""
        self.is_ready = True
        self.machine.on_ready()

    def latency_s(self, method: str, size_bytes: int) -> float:
        """How long a disk command takes."""
        cost = self.rng.uniform(0.00002, 0.0004) + size_bytes / 400e6 + self.vfs.take_latency_ns() / 1e9
        return cost + self.machine.slow_s if method in SYNC_METHODS else cost


Serve = Callable[[Boot], Awaitable[None]]
"""Runs a server as a process: serves until ``stop_wanted`` or a fatal error, then returns or raises."""


class Machine:
    """Implements ``jepsen.nemesis.faults.Target``. All methods must be called by the harness, never by the server."""

    def __init__(
        self,
        loop: SimLoop,
        rng: Random,
        serve: Serve,
        *,
        limits: Limits,
        capacity_bytes: int,
        name: str = "n1",
        peers: tuple[str, ...] = (),
    ) -> None:
        """``peers``: names of the other machines; a machine's name is its host name, too."""
        self.loop, self.rng, self._serve = loop, rng, serve
        self.name = self.host = name
        self.peers = peers
        self.limits = limits
        self.capacity_bytes = capacity_bytes
        self.clock = SimClock(loop)
        self.vfs = SimVfs(capacity_bytes=capacity_bytes)
        self.vfs.on_op = self._trace
        self.vfs.on_crash = self._power_failed
        self.boots = 0
        self.deaths: dict[str, int] = {}
        """How the process ended, by cause."""
        self.exits: list[tuple[bool, BaseException | None]] = []
        """Ends of its own accord: (was it ready, the error it ended with)."""
        self.slow_s = 0.0
        self.secrets: Secrets | None = None
        """None: the store is not encrypted."""
        self.has_own_disk = True
        """False: what is believed here was promised by somebody else, or has been forgotten."""
        self.tick_rate = 1.0
        self.damages: list[str] = []
        """What was done to stored bytes."""
        self._earlier: SimVfs | None = None
        self.boot: Boot | None = None
        self._context = contextvars.copy_context()
        assert OWNER not in self._context
        self._down_s = 0.5
        self._owners: list[Owner] = []
        self._start_timer: asyncio.TimerHandle | None = None
        self._waiters: list[asyncio.Future[None]] = []

    # -- life -----------------------------------------------------------------------------------------------------

    def power_on(self) -> None:
        """Start the server process if it does not run."""
        if self._start_timer is not None:
            self._start_timer.cancel()
            self._start_timer = None
        if self.boot is not None:
            return
        self.boots += 1
        boot = self.boot = Boot(self, self.boots, Random(self.rng.getrandbits(64)))
        self._owners.append(boot.owner)
        if self.tick_rate != 1.0:
            self.loop.drift(boot.owner, self.tick_rate)
        self.loop.trace("boot", self.name, self.boots)
        task = self.loop.call_owned(boot.owner, self._spawn, boot)
        task.add_done_callback(lambda done: self._ended(boot, done), context=self._context)

    def _spawn(self, boot: Boot) -> asyncio.Task[None]:
        async def process() -> None:
            await self._serve(boot)

        return self.loop.create_task(process())

    async def ready(self, timeout_s: float) -> bool:
        """Wait until the server serves; False if it does not within that time."""
        if self.boot is not None and self.boot.is_ready and not self.boot.stop_wanted.done():
            return True
        waiter: asyncio.Future[None] = self.loop.create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            return False
        return True

    def on_ready(self) -> None:
        """Called by the boot."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _ended(self, boot: Boot, task: asyncio.Task[None]) -> None:
        if self.boot is not boot:
            return
        error = None if task.cancelled() else task.exception()
        self.exits.append((boot.is_ready, error))
        self._die("exit" if error is None else f"exit:{type(error).__name__}", self._down_s)

    def _die(self, cause: str, down_s: float, *, silently: bool = False) -> None:
        boot, self.boot = self.boot, None
        self.loop.trace("down", self.name, cause)
        if boot is not None:
            self.deaths[cause] = self.deaths.get(cause, 0) + 1
            boot.owner.is_alive = False
            self.loop.network.drop_process(boot.owner, silently=silently)
        self.vfs = self.vfs.replace()
        if self._start_timer is not None:
            self._start_timer.cancel()
        self._start_timer = self.loop.call_later(down_s, self.power_on, context=self._context)

    def _power_failed(self) -> None:
        """The disk reached its crash point, in the middle of the server's own code: nothing of it runs any more."""
        boot = self.boot
        assert boot is not None
        boot.owner.is_alive = False
        self.loop.call_soon(self._after_crash_point, boot, context=self._context)

    def _after_crash_point(self, boot: Boot) -> None:
        if self.boot is boot:
            self._die("crash point", self._down_s, silently=True)
            self.vfs.crash(self.rng)

    def change_disk(self, disk: SimVfs, *, is_own: bool) -> SimVfs:
        """Of a machine that is off: it has this disk from now on; the one it had. ``is_own``: it is the right one."""
        assert self.boot is None, "the machine runs"
        before, self.vfs = self.vfs, disk
        self.has_own_disk = is_own
        disk.on_op, disk.on_crash = self._trace, self._power_failed
        return before

    def die_here(self, down_s: float, *, has_power: bool, at_once: bool) -> None:
        """The process ends in the middle of its own code: with this callback, or (the caller raises) ``at_once``."""
        boot = self.boot
        assert boot is not None
        boot.owner.is_alive = False
        self.vfs.is_crashed = at_once
        self.loop.call_soon(self._died_here, boot, down_s, has_power, context=self._context)

    def _died_here(self, boot: Boot, down_s: float, has_power: bool) -> None:
        if self.boot is boot:
            self._die("point", down_s, silently=not has_power)
            if not has_power:
                self.vfs.crash(self.rng)

    def close(self) -> None:
        """End of the run: nothing starts again, what dead processes left is thrown away."""
        self._context = contextvars.copy_context()
        if self.boot is not None:
            self.boot.owner.is_alive = False
            self.loop.network.drop_process(self.boot.owner, silently=True)
            self.boot = None
        if self._start_timer is not None:
            self._start_timer.cancel()
        self.vfs = self.vfs.replace()
        for owner in self._owners:
            self.loop.bury(owner)

    # -- questions to the process ---------------------------------------------------------------------------------

    def _probe(self) -> Probe | None:
        return None if self.boot is None or not self.boot.owner.is_alive else self.boot.probe

    def states(self) -> list[RaftState]:
        """What its process believes of its groups; nothing while it is down."""
        probe = self._probe()
        return [] if probe is None else probe.states()

    @property
    def replicates(self) -> bool:
        """Whether its server is one replica among others."""
        return self._probe() is not None

    def has_run(self) -> bool:
        """Whether its process did anything since this was asked last, and is who it should be."""
        if self.boot is None or not self.boot.owner.has_run or not self.has_own_disk:
            return False
        self.boot.owner.has_run = False
        return True

    def gather(self) -> tuple[list[RaftPromise], list[AppliedHash]]:
        """What is new for the trace."""
        probe = self._probe()
        return ([], []) if probe is None else (probe.promises(), probe.hashes())

    def leads(self, stream: str) -> bool:
        """Whether its process believes that it leads the stream ("" = the metadata)."""
        probe = self._probe()
        return probe is not None and probe.leads(stream)

    def contents(self, stream: str) -> dict[int, Seen] | None:
        """The stream as this machine holds it; None without a replica here."""
        probe = self._probe()
        if probe is None or self.boot is None:
            return None
        self.boot.owner.has_run = True  # what is found damaged is noted
        return probe.contents(stream)

    def transfer(self, group: str, to: str) -> None:
        """Ask it to hand over a group that it leads."""
        probe = self._probe()
        if probe is not None and self.boot is not None and not self.boot.owner.is_paused:
            self.loop.call_owned(self.boot.owner, probe.transfer, group, to)

    def checkpoint(self) -> None:
        """Ask it for checkpoints."""
        probe = self._probe()
        if probe is not None and self.boot is not None and not self.boot.owner.is_paused:
            self.loop.call_owned(self.boot.owner, probe.checkpoint)

    def _trace(self, op: str, path: str, first: int, second: int) -> None:
        self.loop.trace_line(f"{self.name} {op} {path} {first} {second}\n")

    # -- faults (Target) ------------------------------------------------------------------------------------------

    def kill(self, down_s: float) -> None:
        self._die("kill", down_s)

    def power_cut(self, down_s: float) -> None:
        self._die("power cut", down_s, silently=True)
        self.vfs.crash(self.rng)

    def crash_at_disk_operation(self, operations: int, down_s: float) -> None:
        self._down_s = down_s
        self.vfs.crash_at(self.vfs.boundaries + operations)

    def restart(self, down_s: float) -> None:
        self._down_s = down_s
        if self.boot is not None and not self.boot.stop_wanted.done():
            self.boot.stop_wanted.set_result(None)

    def pause(self, for_s: float) -> None:
        if self.boot is None or self.boot.owner.is_paused:
            return
        owner = self.boot.owner
        owner.is_paused = True
        self.loop.call_later(for_s, self._thaw, owner, context=self._context)

    def thaw(self) -> None:
        """SIGCONT now."""
        if self.boot is not None:
            self._thaw(self.boot.owner)

    def _thaw(self, owner: Owner) -> None:
        if owner.is_paused:
            self.loop.thaw(owner)

    def jump_clock(self, by_ns: int) -> None:
        self.clock.jump(by_ns)

    def drift_clock(self, rate: float) -> None:
        self.clock.set_rate(rate)

    def drift_ticks(self, rate: float) -> None:
        self.tick_rate = rate
        if self.boot is not None:
            self.loop.drift(self.boot.owner, rate)

    def remember(self) -> None:
        self._earlier = self.vfs.clone()

    def damage(self, rng: Random, file_class: str, kind: str) -> str | None:
        done = strike(self.vfs, rng, file_class, kind, self._earlier)
        if done is not None:
            self.damages.append(done)
        return done

    def disk_error(self, operations: str, pattern: str, code: int, nth: int, sticky: bool) -> None:
        self.vfs.inject(fault(operations, pattern, error=code, nth=nth, sticky=sticky))

    def heal_disk(self) -> None:
        self.vfs.heal()
        self.vfs.crash_at(0)
        self.vfs.capacity_bytes = self.capacity_bytes
        self.slow_s = 0.0

    def fill_disk(self, free_bytes: int, code: int) -> None:
        self.vfs.capacity_bytes = self.vfs.used_bytes + free_bytes
        self.vfs.full_errno = code

    def slow_disk(self, latency_s: float) -> None:
        self.slow_s = latency_s

    def reset_connections(self, share: float) -> None:
        for transport in self._some(share):
            transport.abort()

    def cut_connections(self, share: float) -> None:
        for transport in self._some(share):
            transport.is_cut = transport.peer.is_cut = True

    def stall_connections(self, share: float, for_s: float) -> None:
        for transport in self._some(share):
            transport.stall(True)
            transport.peer.stall(self.rng.random() < 0.5)
            for end in (transport, transport.peer):
                self.loop.call_world_at(self.loop.now() + for_s, end.stall, False, context=end.context)

    def _some(self, share: float) -> list[SimTransport]:
        if self.boot is None:
            return []
        return [t.peer for t in self.loop.network.live(self.boot.owner) if self.rng.random() < share]
