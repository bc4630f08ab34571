"""The tour of README.md, run as it stands: publish, consume, KV, kill -9, start again, everything still there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jepsen.real.process import JETSTORE, ServerProcess

README = Path(__file__).resolve().parents[2] / "README.md"
PORT = "4222"


def part(name: str) -> str:
    """The Python block of README.md that is marked as this part of the tour."""
    pattern = rf"<!-- tour: {name} -->\s*```python\n(.*?)```"
    (code,) = re.findall(pattern, README.read_text(), re.DOTALL)
    assert PORT in code
    return str(code)


def play(name: str, port: int, folder: Path) -> list[str]:
    """Run a part against the server on ``port``; the lines it printed."""
    script = folder / f"{name.replace(' ', '_')}.py"
    script.write_text(part(name).replace(PORT, str(port)))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.real
def test_the_tour(start_server: Callable[[str], ServerProcess], tmp_path: Path) -> None:
    server = start_server(JETSTORE)
    assert play("part one", server.port, tmp_path) == [
        "stored durably at sequence 1",
        "stored durably at sequence 2",
        "stored durably at sequence 3",
        "got order 0",
        "got order 1",
        "colour is green",
    ]
    server.kill()
    server.start()
    assert play("part two", server.port, tmp_path) == [
        "messages stored: 3",
        "billing goes on with order 2",
        "colour is still green",
    ]
