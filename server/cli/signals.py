"""``--signal VERB[=PID|FILE]``: tell a running server something."""

from __future__ import annotations

import os
import signal
from glob import glob
from itertools import pairwise
from pathlib import Path
from typing import Final

VERBS: Final = {
    "stop": signal.SIGKILL,
    "quit": signal.SIGINT,
    "term": signal.SIGTERM,
    "reload": signal.SIGHUP,
    "reopen": signal.SIGUSR1,
    "ldm": signal.SIGUSR2,
}
PROCESSES: Final = Path("/proc")


class SignalRefused(Exception):
    """Nothing was sent, or not to all. The text is for the user."""


def send_signal(command: str, processes: Path = PROCESSES) -> None:
    """Send what ``verb``, ``verb=pid``, ``verb=pid*`` or ``verb=/path/of/pid.file`` asks for. ``SignalRefused``."""
    verb, equals, target = command.partition("=")
    number = VERBS.get(verb)
    if number is None:
        raise SignalRefused(f'unknown signal "{verb}"')
    failed = []
    for pid in _targets(target, processes) if equals and target else [_the_only_one(processes)]:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, OverflowError):
            failed.append(f'signal "{verb}" {pid}: no such process')
        except PermissionError:
            failed.append(f'signal "{verb}" {pid}: operation not permitted')
    if failed:
        raise SignalRefused("\n".join(failed))


def _targets(target: str, processes: Path) -> list[int]:
    """The process ids meant: one, those that match a pattern, or the one in a file (or in several)."""
    if target.isdigit():
        return [_checked(int(target))]
    if target.endswith("*"):
        files = glob(target)
        if files:
            return [_pid_in(file) for file in sorted(files)]
        start = target.removesuffix("*")
        pids = [pid for pid in servers(processes) if str(pid).startswith(start)]
        if (start and not start.isdigit()) or not pids:
            raise SignalRefused("no jetstore processes running")
        return pids
    return [_pid_in(target)]


def _pid_in(file: str) -> int:
    try:
        return _checked(int(Path(file).read_text(encoding="ascii")))
    except (OSError, ValueError):
        raise SignalRefused(f"invalid pid: {file}") from None


def _checked(pid: int) -> int:
    """0 and 1 would mean this process's own group, and the system."""
    if pid <= 1:
        raise SignalRefused(f"invalid pid: {pid}")
    return pid


def _the_only_one(processes: Path) -> int:
    pids = servers(processes)
    if not pids:
        raise SignalRefused("no jetstore processes running")
    if len(pids) > 1:
        raise SignalRefused("multiple jetstore processes running:\n" + "\n".join(map(str, pids)))
    return pids[0]


def servers(processes: Path = PROCESSES) -> list[int]:
    """Processes of this user that were started as ``jetstore serve``, this one and writer processes left out."""
    found = []
    for folder in processes.glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            is_ours = folder.stat().st_uid == os.geteuid() or os.geteuid() == 0
        except OSError:
            continue
        pid = int(folder.name)
        if pid != os.getpid() and is_ours and _is_server(words):
            found.append(pid)
    return sorted(found)


def _is_server(words: list[bytes]) -> bool:
    """Whether a command line is a server: ``[python] [-m] jetstore serve …`` that is not sending a signal."""
    for before, word in pairwise(words):
        if word == b"serve" and Path(os.fsdecode(before)).name in ("jetstore", "server.cli.main", "main.py"):
            rest = words[words.index(word) :]
            return not any(each.lstrip(b"-").partition(b"=")[0] in (b"sl", b"signal") for each in rest)
    return False
