"""Without its writer process a server can promise nothing: it ends with an error, at once, also when it is idle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest


def children_of(pid: int) -> list[int]:
    """Processes started by this one, oldest first."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.real
def test_the_server_ends_when_its_writer_dies(tmp_path: Path) -> None:
    if not Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists():
        pytest.skip("this system does not say which processes a process has started")
    command = [
        sys.executable,
        "-m",
        "server.cli.main",
        "serve",
        "-js",
        "-sd",
        str(tmp_path),
        "-a",
        "127.0.0.1",
        "-p",
        "-1",
    ]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        lines: list[str] = []
        while not any("Server is ready" in line for line in lines):
            line = server.stderr.readline()
            assert line, lines
            lines.append(line)
        (writer,) = children_of(server.pid)
        os.kill(writer, signal.SIGKILL)
        assert server.wait(60) == 1
        assert "the writer process is gone" in server.stderr.read()
    finally:
        server.kill()
        server.communicate()
