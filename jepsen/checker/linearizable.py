"""Is a history of one register linearizable? The search of Wing, Gong and Lowe, with memory.

Every written value is unique, so a state is just the value (None = nothing was ever written). An unknown operation
may take effect at any time after its start, or never. A refused compare-and-set is an observation, too: at some moment
inside it the register did not hold what was expected.
"""

from __future__ import annotations

from typing import NamedTuple

from jepsen.checker.tally import compared
from jepsen.history import NEVER_NS, Operation


class Step(NamedTuple):
    """One operation on the register."""

    kind: str
    """``read`` (value) · ``write`` (value) · ``cas`` (expected → value) · ``cas_fail`` (expected was not there).

    Of things that come and go: ``make`` (nothing → value) · ``change`` (something → value) · ``unmake`` (something →
    nothing) · ``present`` · ``absent``.
    """
    value: str | None
    expected: str | None
    start_ns: int
    end_ns: int
    """``NEVER_NS`` for an unknown outcome."""
    source: Operation | None = None


WHAT_IS_THERE = {
    "make": (False, False),
    "change": (True, False),
    "unmake": (True, False),
    "present": (True, True),
    "absent": (False, True),
}
"""Of things that come and go: whether something must be there, and whether it stays as it is."""


def _after(step: Step, state: str | None) -> tuple[bool, str | None]:
    """Whether the step is possible in that state, and the state after it."""
    if step.kind == "read":
        return state == step.value, state
    if step.kind == "write":
        return True, step.value
    if step.kind == "cas":
        return state == step.expected, step.value
    if step.kind == "cas_fail":
        return state != step.expected, state
    is_there, stays = WHAT_IS_THERE[step.kind]
    return is_there == (state is not None), state if stays else None if step.kind == "unmake" else step.value


def check_register(steps: list[Step], *, budget: int = 200_000) -> tuple[bool | None, str]:
    """(True, "") · (False, the furthest the search came) · (None, why) when the budget of states ran out."""
    steps = sorted(steps, key=lambda step: (step.start_ns, step.end_ns))
    compared("lin", len(steps))
    required = sum(1 << i for i, step in enumerate(steps) if step.end_ns != NEVER_NS)
    seen: set[tuple[int, str | None]] = set()
    stack: list[tuple[int, str | None]] = [(0, None)]
    furthest, furthest_state = 0, None
    while stack:
        done, state = stack.pop()
        if done & required == required:
            return True, ""
        if (done, state) in seen:
            continue
        seen.add((done, state))
        if len(seen) > budget:
            return None, f"gave up after {budget} states over {len(steps)} operations"
        if (done & required).bit_count() >= (furthest & required).bit_count():
            furthest, furthest_state = done, state
        first_end = min(step.end_ns for i, step in enumerate(steps) if not done >> i & 1)
        for i, step in enumerate(steps):
            if step.start_ns > first_end:
                break
            if done >> i & 1:
                continue
            possible, after = _after(step, state)
            if possible:
                stack.append((done | 1 << i, after))
    rest = [s.source.line() if s.source else str(s) for i, s in enumerate(steps) if not furthest >> i & 1]
    return False, f"stuck with {furthest_state!r} before " + " | ".join(rest[:6])
