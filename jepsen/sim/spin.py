"""Ends a run whose tested code never comes back to the event loop, and says where it was.

Virtual time stands still inside one callback, so no deadline of the loop can end an endless loop there. A timer of the
real CPU time looks now and then whether it is still the same callback. What cannot be ended like this: a call that
never returns to the interpreter.
"""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from jepsen.sim.loop import SimLoop

CALLBACK_CPU_S = 20.0
"""CPU time that one callback may take; the slowest honest ones, the checkers of a long run, take a second or two."""
FRAMES_SHOWN = 12


class SimSpin(KeyboardInterrupt):
    """One callback took too long; says where it was. (Tasks keep every other exception to themselves.)"""


@contextmanager
def guarded(loop: SimLoop, limit_s: float = CALLBACK_CPU_S) -> Iterator[None]:
    """Within, a callback that takes longer is ended by ``SimSpin``. Has no effect outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: object = None

    def look(signum: int, frame: FrameType | None) -> None:
        nonlocal seen
        now, before = loop.running, seen
        seen = now
        if now is not None and now is before:
            raise SimSpin(f"{limit_s / 2:g} CPU s or more in one callback at t={loop.now():.6f}: {where(frame)}")

    earlier = signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, limit_s / 2, limit_s / 2)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, earlier)


def where(frame: FrameType | None) -> str:
    """The innermost calls, the last one first."""
    calls = traceback.extract_stack(frame, FRAMES_SHOWN)
    return " ← ".join(
        f"{'/'.join(call.filename.split('/')[-2:])}:{call.lineno} {call.name}" for call in reversed(calls)
    )
