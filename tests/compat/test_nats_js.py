"""What applications do through nats.js (js/basics.mjs), the same on jetstore and on nats-server."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from jepsen.real.process import ServerProcess

FOLDER = Path(__file__).parent / "js"

pytestmark = [pytest.mark.node, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test beside its installed dependencies; skips where they cannot be installed."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("no npm and node on PATH")
    folder = tmp_path_factory.mktemp("js")
    for name in ("package.json", "basics.mjs"):
        shutil.copy(FOLDER / name, folder)
    command = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"]
    installed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=200)
    if installed.returncode:
        pytest.skip(f"npm install failed: {installed.stderr[-300:]}")
    return folder / "basics.mjs"


def test_nats_js(script: Path, server: ServerProcess) -> None:
    command = ["node", str(script), str(server.port)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "done"
