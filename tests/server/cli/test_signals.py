"""``--signal``: whom it means."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from server.cli.signals import SignalRefused, send_signal, servers


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    monkeypatch.setattr("server.cli.signals.os.kill", lambda pid, number: found.append((pid, number)))
    return found


def processes(directory: Path, commands: dict[int, str]) -> Path:
    for pid, command in commands.items():
        (directory / str(pid)).mkdir()
        (directory / str(pid) / "cmdline").write_bytes(command.replace(" ", "\0").encode() + b"\0")
    (directory / "self").mkdir()
    return directory


@pytest.mark.parametrize(
    ("verb", "number"),
    [
        ("stop", signal.SIGKILL),
        ("quit", signal.SIGINT),
        ("term", signal.SIGTERM),
        ("reload", signal.SIGHUP),
        ("reopen", signal.SIGUSR1),
        ("ldm", signal.SIGUSR2),
    ],
)
def test_by_pid_and_by_file(tmp_path: Path, sent: list[tuple[int, int]], verb: str, number: int) -> None:
    (tmp_path / "s.pid").write_text("4321\n")
    send_signal(f"{verb}=1234")
    send_signal(f"{verb}={tmp_path}/s.pid")
    assert sent == [(1234, number), (4321, number)]


def test_by_pattern(tmp_path: Path, sent: list[tuple[int, int]]) -> None:
    (tmp_path / "a.pid").write_text("11")
    (tmp_path / "b.pid").write_text("12")
    send_signal(f"reload={tmp_path}/*")
    everywhere = tmp_path / "proc"
    everywhere.mkdir()
    processes(everywhere, {777: "jetstore serve -js", 778: "jetstore serve", 900: "jetstore serve"})
    send_signal("reload=77*", everywhere)
    assert [pid for pid, _ in sent] == [11, 12, 777, 778]


def test_the_only_one(tmp_path: Path, sent: list[tuple[int, int]]) -> None:
    commands = {
        500: "/usr/bin/python3 /usr/bin/jetstore serve -c x",
        501: "/usr/bin/python3 /usr/bin/jetstore serve --signal reload",
        502: "vi serve",
        503: "/usr/bin/python3 /usr/bin/jetstore verify /data",
    }
    send_signal("ldm", processes(tmp_path, commands))
    assert sent == [(500, signal.SIGUSR2)]
    assert servers(processes(tmp_path / "500", {600: "python -m server.cli.main serve"})) == [600]


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("foo", 'unknown signal "foo"'),
        ("foo=1", 'unknown signal "foo"'),
        ("stop=/nope.pid", "invalid pid: /nope.pid"),
        ("stop=abc", "invalid pid: abc"),
        ("stop=1", "invalid pid: 1"),
        ("stop=-5", "invalid pid: -5"),
        ("stop=9*", "no jetstore processes running"),
        ("stop", "multiple jetstore processes running:\n70\n80"),
    ],
)
def test_refusals(tmp_path: Path, sent: list[tuple[int, int]], command: str, text: str) -> None:
    with pytest.raises(SignalRefused) as caught:
        send_signal(command, processes(tmp_path, {70: "jetstore serve", 80: "jetstore serve"}))
    assert str(caught.value) == text
    assert sent == []


def test_none_is_running(tmp_path: Path) -> None:
    with pytest.raises(SignalRefused, match="no jetstore processes running"):
        send_signal("reload", processes(tmp_path, {os.getpid(): "jetstore serve"}))
