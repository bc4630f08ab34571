"""Power cuts under full load: what was acknowledged was synced, so that a disk that forgets everything else shows it.

The rounds of ``kill.py`` on a file system of our own: the server is killed, then everything that was not synced is
dropped (every other round: survives by chance, sector by sector), names of files included. Also while it starts again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from .disk_image import Names
from .fuse_layer import PowerDisk
from .kill import Rounds
from .process import ServerProcess
from .rounds import Result, report_or_remove, run_rounds


def run(
    server: str,
    rounds: int,
    seed: int,
    say: Callable[[str], None] = print,
    *,
    names: Names = Names.STRICT,
    tear: bool = True,
    stop_at_first: bool = True,
    keep: bool = False,
    folder: Path | None = None,
    tolerated: frozenset[str] = frozenset(),
) -> Result:
    """Run power cuts; ask ``fuse_layer.missing`` first. ``tear``: half of the cuts let unsynced sectors live."""
    keep = keep or folder is not None
    folder = folder or Path(tempfile.mkdtemp(prefix="jepsen-power-"))
    disk = PowerDisk(folder, names)
    process = ServerProcess(server, disk.mount / "store", log=folder / "server.log")

    def cut() -> None:
        process.kill()
        disk.cut(runner.random.randrange(2**31) if tear and runner.random.random() < 0.5 else None)

    try:
        runner = Rounds(process, seed, disaster=cut, say=say, load_s=(0.1, 0.6), stop_at_first=stop_at_first)
        runner.result.findings.tolerated = tolerated
        result = run_rounds(runner, rounds)
    finally:
        process.kill()
        disk.close()
    report_or_remove(result, folder, keep, say)
    return result
