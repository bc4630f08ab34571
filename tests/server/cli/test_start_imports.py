"""What a start of ``serve`` loads: counted by module, not timed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SERVE = """
import atexit, sys
atexit.register(lambda: print(*sorted(name for name, module in sys.modules.items() if module), sep="\\n"))
from server.cli.main import main
main(["serve", "-js", "-a", "127.0.0.1", "-p", "-1", "-sd", sys.argv[1]])
"""
WRITER = """
import sys
import jetstore.store.writer_process, jetstore.store.index
print(*sorted(sys.modules), sep="\\n")
"""
NOT_AT_START = {
    *("aiofiles", "bcrypt", "cramjam", "cryptography", "h11", "nats", "prometheus_client", "rich", "websockets"),
    *("jepsen", "multiprocessing", "server.bench", "server.cli.bench", "server.cli.store_tools"),
    *("server.auth.operator", "server.config.claims", "server.config.jwt", "server.net.websocket"),
    *("server.monitor.http", "server.monitor.metrics", "server.monitor.monitor", "server.monitor.varz"),
    *("jetstore.node.catch_up", "jetstore.node.cluster", "jetstore.node.founding", "jetstore.node.link.links"),
    *("argparse", "email.message", "importlib.metadata", "importlib.resources", "zipfile"),
    *("jetstore.node.examine", "jetstore.node.mending", "jetstore.node.recover", "server.route.peers"),
}
"""Of a server alone without a configuration file: what only a cluster, a listener of another kind, keys and passwords,
monitoring, another command, or a library's own conveniences need."""
NOT_IN_THE_WRITER = {
    *("asyncio", "cramjam", "logging", "pydantic", "ssl", "structlog", "uvloop"),
    *("argparse", "email.message", "importlib.metadata", "importlib.resources", "zipfile"),
    *("jetstore.model", "jetstore.node", "jetstore.raft", "jetstore.stream", "server"),
}


def modules(script: str, path: list[Path], *arguments: str) -> set[str]:
    """What ``script`` prints, once it has ended; a server is told to stop as soon as it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if "Server is ready" in line:
                process.terminate()
        loaded = set(process.stdout.read().split())
    assert process.returncode == 0, "".join(said)
    return loaded


def test_a_start_loads_only_what_it_needs(tmp_path: Path) -> None:
    rich = tmp_path / "path" / "rich"
    rich.mkdir(parents=True)
    # Found before any real one; whether rich is installed makes no difference to the test.
    (rich / "__init__.py").write_text("raise AssertionError('rich was loaded')\n")
    loaded = modules(SERVE, [rich.parent, ROOT], str(tmp_path / "store"))
    assert {"server.run", "server.app", "structlog"} <= loaded
    assert loaded & NOT_AT_START == set()


def test_the_writer_process_loads_the_store_only() -> None:
    loaded = modules(WRITER, [ROOT])
    assert "lmdb" in loaded
    assert loaded & NOT_IN_THE_WRITER == set()
