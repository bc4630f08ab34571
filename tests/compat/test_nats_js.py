"""What applications do through the npm clients, over TCP and WebSocket: every fact as with nats-server.

``js/<area>.mjs`` exercises one package each and prints facts; ``js/expected.jsonl`` is what was printed with
nats-server 2.15.1 by ``node all.mjs nats://127.0.0.1:PORT core jetstream kv obj services legacy``. ``./dev test``
installs the pinned packages.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from jepsen.real.process import JETSTORE, NATS_SERVER, ServerProcess, find_nats_server, free_port

FOLDER = Path(__file__).parent / "js"
CACHE = Path(sys.prefix) / "js"
AREAS = ("core", "jetstream", "kv", "obj", "services", "legacy")
RUNS = [(JETSTORE, "tcp"), (JETSTORE, "ws"), (NATS_SERVER, "tcp")]

pytestmark = [pytest.mark.node, pytest.mark.real, pytest.mark.timeout(300)]

Facts = dict[str, list[tuple[str, object]]]


def by_area(printed: str) -> Facts:
    """Area → its facts in order."""
    facts: Facts = {}
    for line in printed.splitlines():
        area, name, value = json.loads(line)
        facts.setdefault(area, []).append((name, value))
    return facts


@cache
def expected() -> Facts:
    return by_area((FOLDER / "expected.jsonl").read_text())


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts beside their installed dependencies; skips where these are not."""
    if shutil.which("node") is None:
        pytest.skip("no node on PATH")
    wanted = (FOLDER / "package.json").read_bytes()
    installed = CACHE / "package.json"
    if not (CACHE / "node_modules" / "ws").exists() or not installed.exists() or installed.read_bytes() != wanted:
        pytest.skip("the npm packages of tests/compat/js are not installed: ./dev test does it where npm is")
    folder = tmp_path_factory.mktemp("js")
    for script in FOLDER.glob("*.mjs"):
        shutil.copy(script, folder)
    (folder / "node_modules").symlink_to(CACHE / "node_modules")
    return folder


@pytest.fixture(scope="module", params=RUNS, ids=lambda run: f"{run[0]}-{run[1]}")
def facts(request: pytest.FixtureRequest, scripts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facts]:
    """What every area printed with one server over one transport; the server's log holds no traceback."""
    name, transport = request.param
    if name == NATS_SERVER and find_nats_server() is None:
        pytest.skip("no nats-server binary on PATH")
    port = free_port()
    config = f'websocket {{ listen: "127.0.0.1:{port}", no_tls: true }}\n'
    server = ServerProcess(name, tmp_path_factory.mktemp("server") / "store", config=config)
    server.start()
    try:
        url = f"nats://127.0.0.1:{server.port}" if transport == "tcp" else f"ws://127.0.0.1:{port}"
        areas = AREAS if transport == "tcp" else AREAS[:-1]
        command = ["node", str(scripts / "all.mjs"), url, *areas]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
        assert done.stderr == ""
        yield by_area(done.stdout)
        assert "Traceback" not in server.log.read_text()
    finally:
        server.kill()


@pytest.mark.parametrize("area", AREAS)
def test_area(facts: Facts, area: str) -> None:
    if area == "legacy" and area not in facts:
        pytest.skip("the package nats connects over TCP only")
    assert facts[area] == expected()[area]
