"""When a simulated file operation goes wrong: rules by operation, path and count, and named crash points."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

BOUNDARY_OPS = frozenset(
    ["create", "pwrite", "fdatasync", "fsync", "fsync_dir", "rename", "unlink", "truncate", "mkdir", "rmdir"]
)
"""Operations that change or promise something: a crash is possible just before each of them, and after the last."""


class SimCrash(BaseException):
    """The machine is gone. Not an ``Exception``, so that no handler of the tested code can survive its own death."""


@dataclass(slots=True)
class Fault:
    """One rule. Fires from the ``nth`` matching call on: once, or on every later call too when ``sticky``."""

    ops: frozenset[str]
    pattern: str = "*"
    """Glob over the whole path."""
    errno: int = 0
    """What the call raises; 0 = nothing, only latency or a crash."""
    nth: int = 1
    sticky: bool = False
    crash: bool = False
    """The machine dies just before the call."""
    partial_bytes: int = 0
    """A failing pwrite has written this many bytes before it fails."""
    latency_ns: int = 0
    seen: int = field(default=0, init=False)
    fired: int = field(default=0, init=False)

    def matches(self, op: str, path: str) -> bool:
        """Count a call and say whether the rule acts on it."""
        if op not in self.ops or not fnmatchcase(path, self.pattern):
            return False
        self.seen += 1
        if self.seen < self.nth or (self.fired and not self.sticky):
            return False
        self.fired += 1
        return True


def fault(
    ops: str | Iterable[str],
    pattern: str = "*",
    *,
    error: int = errno.EIO,
    nth: int = 1,
    sticky: bool = False,
    partial_bytes: int = 0,
) -> Fault:
    """A rule that makes matching calls fail with ``error``."""
    names = frozenset(ops.split()) if isinstance(ops, str) else frozenset(ops)
    return Fault(names, pattern, error, nth, sticky, partial_bytes=partial_bytes)


def crash_point(ops: str, pattern: str = "*", *, nth: int = 1) -> Fault:
    """A named fail point: the machine dies just before the ``nth`` such call."""
    return Fault(frozenset(ops.split()), pattern, nth=nth, crash=True)


def slow(ops: str, pattern: str = "*", *, latency_ns: int, nth: int = 1, sticky: bool = True) -> Fault:
    """A rule that makes matching calls take longer (``SimVfs.take_latency_ns`` collects it)."""
    return Fault(frozenset(ops.split()), pattern, nth=nth, sticky=sticky, latency_ns=latency_ns)
