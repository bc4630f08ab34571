"""A disk that takes its time for each sync: which calls wait, and that they wait beside each other."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jepsen.real.disk_image import SlowImage
from jepsen.real.fuse_layer import SlowDisk, missing

FILE = stat.S_IFREG | 0o644
SYNC_S = 0.25
FILES = 20


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if missing():
        pytest.skip(missing())
    disk = SlowDisk(tmp_path_factory.mktemp("slow"), SYNC_S)
    yield disk.mount
    disk.close()


def took_s(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


@pytest.mark.real
def test_every_kind_of_sync_takes_its_time(mount: Path) -> None:
    plain = os.open(mount / "plain", os.O_CREAT | os.O_RDWR)
    made_so = os.open(mount / "made", os.O_CREAT | os.O_RDWR | os.O_SYNC)
    opened_so = os.open(mount / "made", os.O_RDWR | os.O_DSYNC)
    folder = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.pwrite(plain, b"x" * 4096, 0)
        for sync in (
            lambda: os.fsync(plain),
            lambda: os.fdatasync(plain),
            lambda: os.fsync(folder),
            lambda: os.pwrite(made_so, b"x", 0),
            lambda: os.pwrite(opened_so, b"y", 0),
        ):
            assert took_s(sync) >= SYNC_S
    finally:
        for descriptor in (plain, made_so, opened_so, folder):
            os.close(descriptor)
    assert (mount / "made").read_bytes() == b"y"


@pytest.mark.real
def test_syncs_wait_beside_each_other_and_beside_the_rest(mount: Path) -> None:
    descriptors = [os.open(mount / str(number), os.O_CREAT | os.O_RDWR) for number in range(FILES)]
    threads = [threading.Thread(target=os.fsync, args=(each,)) for each in descriptors]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    (mount / "beside").write_bytes(b"b")
    assert (mount / "beside").read_bytes() == b"b"
    for thread in threads:
        thread.join()
    # One after the other they take FILES times as long; half of that is plenty for a busy machine.
    assert SYNC_S <= time.monotonic() - began < FILES / 2 * SYNC_S
    for descriptor in descriptors:
        os.close(descriptor)


def test_a_file_goes_with_its_last_name_and_open(tmp_path: Path) -> None:
    image = SlowImage(tmp_path, 0.0)
    kept = image.create("/kept", FILE)
    image.create("/replaced", FILE)
    opened = image.create("/opened", FILE)
    image.open(opened)
    image.write(opened, b"still here", 0)
    image.remove("/opened")
    image.rename("/kept", "/replaced")
    assert {path.name for path in (tmp_path / "seen").iterdir()} == {str(kept.number), str(opened.number)}
    assert os.pread(opened.seen, 100, 0) == b"still here"
    image.close(opened)
    assert [path.name for path in (tmp_path / "seen").iterdir()] == [str(kept.number)]
    assert not list((tmp_path / "disk").iterdir())
