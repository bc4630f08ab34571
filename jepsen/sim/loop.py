"""A virtual-time asyncio event loop: production ``async`` code runs on it unmodified, a run is a function of a seed.

Theory of operation. There is no selector and no thread. Ready callbacks run in the order they were scheduled; when none
is ready, time jumps to the next timer; timers of one instant run in the order they were made. When there is neither,
nothing can ever happen again: ``SimDeadlock``. Sockets are replaced by ``network.py``; executors, signals and TLS are
refused, because they would let the real world in.

*Owners.* Many simulated processes share the loop. Each callback belongs to the ``Owner`` in its context, and callbacks
of an owner that was killed never run again, not even ``finally`` blocks: that is what kill -9 means.

*Determinism.* Tasks and futures hash by serial number, so that sets of them iterate in a fixed order. ``trace`` feeds a
running sha256; two runs of one seed have equal hashes, or something outside the seed was asked.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import heapq
import struct
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from itertools import count
from random import Random
from typing import Any, TypeVar

from jepsen.sim.faults import SimCrash
from jepsen.sim.network import SimNetwork
from jepsen.sim.owner import OWNER, Owner, SimForbidden

T = TypeVar("T")
_ROUND = struct.Struct("<dI")
FACTS_BYTES = 1 << 16
"""How much of the trace is collected before it is hashed."""


class SimDeadlock(RuntimeError):
    """Nothing is ready and no timer is set: what is awaited can never come."""


class SimLivelock(RuntimeError):
    """Too many callbacks without the main future getting done."""


class SimTimeout(RuntimeError):
    """Virtual time passed the deadline of the run."""


class SimFuture(asyncio.Future[Any]):
    """A future with a hash that does not depend on memory addresses."""

    def __init__(self, *, loop: SimLoop) -> None:
        self._serial = loop.next_serial()
        self.owner = OWNER.get()
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._serial


class SimTask(asyncio.Task[Any]):
    """A task with a hash that does not depend on memory addresses."""

    def __init__(self, coro: Coroutine[Any, Any, Any], *, loop: SimLoop, **options: Any) -> None:
        self._serial = loop.next_serial()
        self.owner = OWNER.get()
        super().__init__(coro, loop=loop, **options)

    def __hash__(self) -> int:
        return self._serial


class _Handle(asyncio.TimerHandle):
    """A callback, now or later. It does not run once its owner is dead."""

    __slots__ = ()

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
    ) -> None:
        # Only what the loop and ``cancel`` need: this is made a thousand times per virtual second.
        self._when = when
        self._callback: Callable[..., object] | None = callback
        self._args: tuple[Any, ...] = args
        self._context = contextvars.copy_context() if context is None else context
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True
        self._callback, self._args = None, ()

    def __repr__(self) -> str:
        return f"<at {self._when} {self._callback!r}>"


class SimLoop(asyncio.BaseEventLoop):
    """The loop. See the module docstring."""

    _stopping: bool
    _closed: bool
    _exception_handler: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None

    def __init__(self, rng: Random, *, callback_cost_s: float = 1e-6, callbacks_max: int = 50_000_000) -> None:
        """``rng`` decides latencies and how streams are cut into reads."""
        super().__init__()
        self.network = SimNetwork(self, rng)
        self.set_debug(False)
        self.set_task_factory(_make_task)
        self.callback_cost_s = callback_cost_s
        """Virtual time that each callback takes."""
        self.time_cost_s = 0.0
        """Virtual time that each look at the clock takes; makes code that limits its own slices do so."""
        self.clocks_drift = False
        """Whether some owner's monotonic clock runs at another rate."""
        self.callbacks_max = callbacks_max
        self.deadline_s = float("inf")
        self.callbacks = 0
        self.running: object = None
        """The callback that runs now; None between runs of the loop."""
        self.failures: list[str] = []
        """What reached the exception handler: an unhandled error of the tested code, each a finding."""
        self._now = 0.0
        self._order = count()
        self._serials = count(1)
        self._timers: list[tuple[float, int, _Handle]] = []
        """A heap; equal times keep the order in which the timers were made."""
        self._queue: deque[_Handle] = deque()
        self._hash = hashlib.sha256()
        self._facts = bytearray()
        """What the hash is still to be fed."""

    # -- time and order -------------------------------------------------------------------------------------------

    def time(self) -> float:
        """The monotonic clock of whoever asks."""
        self._now += self.time_cost_s
        if self.clocks_drift and (owner := OWNER.get()) is not None:
            return owner.own_time(self._now)
        return self._now

    def call_soon(  # type: ignore[override]  # typeshed's variadic form
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        if self._closed:
            raise RuntimeError("Event loop is closed")
        handle = _Handle(0.0, callback, args, context)
        self._queue.append(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]  # typeshed's variadic form
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_at(  # type: ignore[override]  # typeshed's variadic form
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        if self.clocks_drift and (owner := OWNER.get() if context is None else context.get(OWNER)) is not None:
            return self._call_at(when, owner.real_time(when), callback, args, context)
        return self._call_at(when, when, callback, args, context)

    def call_later(  # type: ignore[override]  # typeshed's variadic form
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        delay = max(0.0, delay)
        if self.clocks_drift and (owner := OWNER.get() if context is None else context.get(OWNER)) is not None:
            real = self._now + delay / owner.rate
            return self._call_at(owner.own_time(real), real, callback, args, context)
        return self._call_at(self._now + delay, self._now + delay, callback, args, context)

    def call_world_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context
    ) -> asyncio.TimerHandle:
        """As ``call_at``, by the world's clock (``now``): what travels does not know the clocks of processes."""
        return self._call_at(when, when, callback, args, context)

    def _call_at(
        self,
        shown: float,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
    ) -> asyncio.TimerHandle:
        if self._closed:
            raise RuntimeError("Event loop is closed")
        timer = _Handle(shown, callback, args, context)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        """A listener in ``network``."""
        return self.network.listen(protocol_factory, host, port or 0, **options)

    async def create_connection(
        self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any
    ) -> tuple[Any, Any]:
        """A connection in ``network``."""
        return await self.network.connect(protocol_factory, host, port, **options)

    def _run_once(self) -> None:
        """Round after round, until somebody stops the loop."""
        queue, timers, facts = self._queue, self._timers, self._facts
        cost_s, pack, pop = self.callback_cost_s, _ROUND.pack, heapq.heappop
        while True:
            while timers and timers[0][2]._cancelled:
                pop(timers)
            if not queue:
                if not timers:
                    if self._stopping:
                        return
                    raise SimDeadlock(f"nothing is ready and no timer is set at t={self._now:.6f}")
                self._now = max(self._now, timers[0][0])
                if self._now > self.deadline_s:
                    raise SimTimeout(f"virtual time passed {self.deadline_s} s")
            now = self._now
            while timers and timers[0][0] <= now:
                timer = pop(timers)[2]
                if not timer._cancelled:
                    queue.append(timer)
            todo = len(queue)
            facts += pack(now, todo)
            if len(facts) > FACTS_BYTES:
                self._feed()
            self.callbacks += todo
            if self.callbacks > self.callbacks_max:
                raise SimLivelock(f"{self.callbacks} callbacks by t={self._now:.6f}")
            for _ in range(todo):
                handle = queue.popleft()
                if handle._cancelled:
                    continue
                self._now += cost_s
                context = handle._context
                owner = context.get(OWNER)
                if owner is not None:
                    if not owner.is_alive:
                        continue
                    if owner.is_paused:  # kept for later
                        owner.frozen.append(handle)
                        continue
                    owner.has_run = True
                assert handle._callback is not None
                self.running = handle
                try:
                    context.run(handle._callback, *handle._args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:  # noqa: BLE001  # as any event loop does
                    self.call_exception_handler({"message": f"Exception in callback {handle!r}", "exception": error})
            if self._stopping:
                self.running = None
                return

    # -- making things --------------------------------------------------------------------------------------------

    def next_serial(self) -> int:
        """Hash of the next task or future."""
        return next(self._serials)

    def create_future(self) -> asyncio.Future[Any]:
        return SimFuture(loop=self)

    def call_owned(self, owner: Owner, function: Callable[..., T], *args: Any) -> T:
        """Run ``function`` as that process: what it schedules dies with it."""
        context = contextvars.copy_context()
        context.run(OWNER.set, owner)
        owner.has_run = True
        return context.run(function, *args)

    def thaw(self, owner: Owner) -> None:
        """SIGCONT: what waited runs, in order, before what has become due just now (bytes of a stream among it)."""
        owner.is_paused = False
        self._queue.extendleft(reversed(owner.frozen))
        owner.frozen = []

    def now(self) -> float:
        """Virtual time; looking at it costs nothing."""
        return self._now

    def drift(self, owner: Owner, rate: float) -> None:
        """That process's monotonic clock runs at this rate from now on."""
        self.clocks_drift = True
        owner.set_rate(self._now, rate)

    def now_ns(self) -> int:
        """Virtual time in nanoseconds; looking at it costs nothing."""
        return int(self._now * 1e9)

    def bury(self, owner: Owner) -> None:
        """Throw away what a dead process left behind, without letting it act or complain."""
        for task in owner.tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # private to asyncio.Task
                try:
                    task.get_coro().close()
                except BaseException:  # noqa: BLE001, S110
                    pass  # its clean-up met a dead machine
        owner.tasks.clear()

    # -- what a run leaves ----------------------------------------------------------------------------------------

    def trace(self, *facts: object) -> None:
        """Feed facts (str, int, float, bytes only) to the hash of the run."""
        self._facts += repr((self._now, *facts)).encode()

    def trace_line(self, line: str) -> None:
        """The same for what happens often: one line, no time (that of the round is there)."""
        self._facts += line.encode()

    def trace_hash(self) -> str:
        """Hash of everything so far."""
        self._feed()
        return self._hash.hexdigest()

    def _feed(self) -> None:
        self._hash.update(self._facts)
        self._facts.clear()

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        future = context.get("future")  # thrown away, perhaps while another process runs than the one it was of
        owner = future.owner if isinstance(future, SimFuture | SimTask) else OWNER.get()
        error = context.get("exception")
        if isinstance(error, SimCrash) or (owner is not None and not owner.is_alive):
            return
        if isinstance(error, SimDeadlock | SimLivelock | SimTimeout):
            raise error
        self.failures.append(f"t={self._now:.6f} {context.get('message')}: {error!r}")
        if self._exception_handler is not None:
            self._exception_handler(self, context)

    # -- the real world stays outside -----------------------------------------------------------------------------

    def run_in_executor(self, *args: Any) -> Any:  # type: ignore[override]  # refuses whatever it is given
        raise SimForbidden("run_in_executor: threads have no place in virtual time")

    def add_signal_handler(self, *args: Any) -> None:  # type: ignore[override]  # refuses whatever it is given
        raise SimForbidden("add_signal_handler: signals have no place in virtual time")

    async def start_tls(self, *args: Any, **options: Any) -> Any:
        raise SimForbidden("start_tls: not simulated")

    def _write_to_self(self) -> None:
        """There is no selector to wake."""

    def _process_events(self, event_list: Any) -> None:
        """There are no events from outside."""

    def close(self) -> None:
        self._queue.clear()
        self._timers.clear()
        super().close()


def _make_task(
    loop: asyncio.AbstractEventLoop,
    coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
    context: contextvars.Context | None = None,
    **options: Any,
) -> asyncio.Task[Any]:
    assert isinstance(loop, SimLoop)
    task = SimTask(coro, loop=loop, context=context, **options)  # type: ignore[arg-type]  # generators: never here
    owner = (context[OWNER] if context is not None and OWNER in context else None) or OWNER.get()
    if owner is not None:
        if len(owner.tasks) > 256:
            owner.tasks = [kept for kept in owner.tasks if not kept.done()]
        owner.tasks.append(task)
    return task
