"""What survives a cut of the power, case by case: bytes, sizes, names, directories."""

from __future__ import annotations

import itertools
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jepsen.real.disk_image import DiskImage, Names, Node, merged

FILE = stat.S_IFREG | 0o644
FOLDER = stat.S_IFDIR | 0o755


@pytest.fixture
def image(tmp_path: Path) -> DiskImage:
    return DiskImage(tmp_path)


def read(node: Node) -> bytes:
    return os.pread(node.seen, node.size, 0)


def synced_file(image: DiskImage, path: str, data: bytes) -> Node:
    node = image.create(path, FILE)
    image.write(node, data, 0)
    image.sync(node)
    image.sync(image.root)
    return node


def test_synced_bytes_stay_and_others_go(image: DiskImage) -> None:
    node = synced_file(image, "/a", b"x" * 1000)
    image.write(node, b"y" * 1000, 500)
    assert node.size == 1500
    lost = image.cut()
    assert read(image.find("/a")) == b"x" * 1000
    assert (lost["files"], lost["bytes"], lost["names"]) == (1, 1000, 0)


def test_a_name_needs_a_sync_of_its_directory(image: DiskImage) -> None:
    node = image.create("/a", FILE)
    image.write(node, b"x", 0)
    image.sync(node)
    assert image.cut()["names"] == 1
    with pytest.raises(FileNotFoundError):
        image.find("/a")


@pytest.mark.parametrize("names", [Names.JOURNALED, Names.AT_ONCE])
def test_kinder_disks_keep_the_name(tmp_path: Path, names: Names) -> None:
    image = DiskImage(tmp_path, names)
    node = image.create("/a", FILE)
    image.write(node, b"x", 0)
    image.sync(node)
    image.cut()
    assert read(image.find("/a")) == b"x"


def test_an_unsynced_directory_goes_with_everything_in_it(image: DiskImage) -> None:
    folder = image.create("/d", FOLDER)
    node = image.create("/d/a", FILE)
    image.sync(node)
    image.sync(folder)
    image.cut()
    with pytest.raises(FileNotFoundError):
        image.find("/d")


def test_rename_and_unlink_come_back(image: DiskImage) -> None:
    synced_file(image, "/old", b"1")
    synced_file(image, "/gone", b"2")
    image.rename("/old", "/new")
    image.remove("/gone")
    image.cut()
    assert sorted(image.root.names) == ["gone", "old"]
    image.rename("/old", "/gone")
    image.sync(image.root)
    image.cut()
    assert sorted(image.root.names) == ["gone"]
    assert read(image.find("/gone")) == b"1"


def test_truncate_comes_back_and_zeros_are_zeros(image: DiskImage) -> None:
    node = synced_file(image, "/a", b"x" * 100)
    image.truncate(node, 10)
    image.cut()
    assert read(image.find("/a")) == b"x" * 100
    image.truncate(node, 10)
    image.truncate(node, 50)
    image.sync(node)
    image.cut()
    assert read(image.find("/a")) == b"x" * 10 + b"\0" * 40


def test_a_torn_write_keeps_whole_sectors(image: DiskImage) -> None:
    node = synced_file(image, "/a", b"x" * 64 * 512)
    kinds = set()
    for seed in range(20):
        image.write(node, b"y" * 64 * 512, 0)
        image.cut(seed)
        data = read(image.find("/a"))
        sectors = [data[at : at + 512] for at in range(0, len(data), 512)]
        assert all(sector in (b"x" * 512, b"y" * 512) for sector in sectors)
        kinds.add(frozenset(sector[:1] for sector in sectors))
        image.write(node, b"x" * 64 * 512, 0)
        image.sync(node)
    assert frozenset({b"x", b"y"}) in kinds


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 20)), max_size=20))
def test_merged_ranges_are_the_same_bytes(ranges: list[tuple[int, int]]) -> None:
    result = merged(ranges)
    assert {at for start, end in result for at in range(start, end)} == {
        at for start, length in ranges for at in range(start, start + length)
    }
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(result))
