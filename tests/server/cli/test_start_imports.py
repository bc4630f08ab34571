"""What a start of ``serve`` loads: counted by module, not timed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
LOAD = """
import sys
import click
from server.cli.main import main
assert main.get_command(click.Context(main), "serve") is not None
import server.run, server.app
import structlog
print(*sorted(sys.modules), sep="\\n")
"""
"""As ``jetstore serve`` does it; ``server.app`` is loaded by ``server.run`` once the writer process runs."""
NOT_AT_START = {
    "rich",
    "websockets",
    "prometheus_client",
    "server.bench",
    "server.cli.bench",
    "server.cli.store_tools",
    "jetstore.node.link.links",
    "jetstore.node.catch_up",
    "jetstore.node.founding",
}
"""Of a server alone: what only a cluster, a WebSocket listener, a metrics page or another command needs."""


def test_a_start_loads_only_what_it_needs(tmp_path: Path) -> None:
    rich = tmp_path / "rich"
    rich.mkdir()
    # Found before any real one; whether rich is installed makes no difference to the test.
    (rich / "__init__.py").write_text("raise AssertionError('rich was loaded')\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    answer = subprocess.run(
        [sys.executable, "-c", LOAD], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    loaded = set(answer.stdout.split())
    assert {"server.run", "server.app", "structlog"} <= loaded
    assert loaded & NOT_AT_START == set()
