"""A machine gets a new disk (D5), or the one back that it had before (D6)."""

from __future__ import annotations

from jepsen.sim.image import Directory
from jepsen.sim.machine import Machine
from jepsen.sim.vfs import SimVfs


def new_disk(machine: Machine, down_s: float) -> SimVfs:
    """The process is killed and comes back on an empty disk after ``down_s``; the old disk."""
    machine.kill(down_s)
    old = machine.vfs.clone()
    machine.vfs._root, machine.vfs._used_bytes = Directory(), 0  # the harness owns the disk
    return old


def old_disk(machine: Machine, disk: SimVfs, down_s: float) -> None:
    """The process is killed and comes back on what ``new_disk`` took away."""
    machine.kill(down_s)
    machine.vfs._root, machine.vfs._used_bytes = disk._root, disk._used_bytes
