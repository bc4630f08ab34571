"""A full disk: publishes get a definite error, what was acknowledged is readable, removing makes room by itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jepsen.real.control import ApiError, Control
from jepsen.real.process import JETSTORE, ServerProcess
from jepsen.real.values import payload

MESSAGE_BYTES = 900_000
DISK_MIB = 320
NO_ROOM = 10023
WAIT_S = 30

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root to mount a tmpfs"),
]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few hundred MiB."""
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None:
        pytest.skip("no mount and umount")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = [mount, "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "jepsen-full", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs: {done.stderr.strip()}")
    yield folder
    subprocess.run([umount, str(folder)], check=True)


def publish(control: Control, data: bytes) -> int | None:
    """The sequence of a publish; None: refused for want of room."""
    try:
        return int(control.publish_sync("BIG.x", data)["seq"])
    except ApiError as error:
        if error.err_code != NO_ROOM:
            raise
        return None


def publish_until_refused(control: Control, start: int) -> int:
    """Publish until there is no room; how many are stored then."""
    number = start
    while True:
        if publish(control, payload(number, MESSAGE_BYTES)) is None:
            return number
        number += 1
        assert number * MESSAGE_BYTES < DISK_MIB << 20


def test_full_and_free_again(small_disk: Path, tmp_path: Path, require_server: Callable[[str], None]) -> None:
    require_server(JETSTORE)
    with ServerProcess(JETSTORE, small_disk / "store", log=tmp_path / "log") as server:
        server.start()
        with Control(server.port) as control:
            control.api("STREAM.CREATE.BIG", {"name": "BIG", "subjects": ["BIG.>"]})
            stored = publish_until_refused(control, 0)
            assert stored > 10
            for number in range(0, stored, 10):
                assert control.get("BIG", number + 1) == payload(number, MESSAGE_BYTES)
        server.kill()
        server.start()
        with Control(server.port) as control:
            assert control.api("STREAM.INFO.BIG")["state"]["messages"] == stored
            assert control.get("BIG", stored) == payload(stored - 1, MESSAGE_BYTES)
            control.api("STREAM.PURGE.BIG", {"keep": 3})
            deadline = time.monotonic() + WAIT_S
            while (sequence := publish(control, b"again")) is None:
                assert time.monotonic() < deadline, "no room although nearly everything was removed"
            assert sequence > stored
            assert control.get("BIG", stored) == payload(stored - 1, MESSAGE_BYTES)
