"""What a machine's process, and its disk, have of streams' groups: for the checker ``ghost``."""

from __future__ import annotations

from jepsen.checker.ghosts import Holdings
from jepsen.sim.image import Directory
from jepsen.sim.machine import Machine
from jetstore.node.opening import QUARANTINE_DIR
from jetstore.store.checkpoint_files import GROUPS_DIR
from jetstore.types import META_GROUP

LOST_POWER = ("power cut", "crash point", "point")


def holdings(machine: Machine) -> Holdings | None:
    """None of a machine that is down, or whose bytes were damaged (it keeps what it cannot explain)."""
    boot = machine.boot
    if boot is None or not boot.is_ready or machine.damages or not machine.has_own_disk:
        return None
    node = boot.server.node
    given = [a.uid for a in node.meta.machine.streams.values() if node.assignments._member(a)]
    here = [group.uid for group in (*node.streams.values(), *node.lost.values())]
    has_lost_power = any(cause in machine.deaths for cause in LOST_POWER)
    folders = [GROUPS_DIR] if has_lost_power else [GROUPS_DIR, QUARANTINE_DIR]  # a removal may be undone by it
    names = [
        name
        for folder in folders
        if isinstance(found := machine.vfs._root.names.get(folder), Directory)
        for name in found.names
    ]
    return Holdings(
        machine.name,
        frozenset(map(str, given)),
        frozenset(map(str, here)),
        frozenset(names) - {str(META_GROUP)},
    )
