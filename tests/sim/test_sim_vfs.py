"""Goal: the simulated disk forgets what it may forget, keeps what it must keep, and can be enumerated exactly."""

from __future__ import annotations

import errno
from itertools import combinations
from random import Random

import pytest

from jepsen.sim.faults import SimCrash, crash_point, fault, slow
from jepsen.sim.vfs import SimVfs


def write(vfs: SimVfs, path: str, data: bytes, offset: int = 0, *, sync: bool = True) -> None:
    handle = vfs.open(path, create=True)
    vfs.pwrite(handle, [data], offset)
    if sync:
        vfs.fdatasync(handle)
    vfs.close(handle)


def read(vfs: SimVfs, path: str) -> bytes:
    handle = vfs.open(path, write=False)
    data = vfs.pread(handle, vfs.size(handle), 0)
    vfs.close(handle)
    return data


def durable(vfs: SimVfs) -> SimVfs:
    twin = vfs.clone()
    twin.crash()
    return twin


def test_what_is_synced_with_its_directory_survives_every_crash() -> None:
    for seed in range(50):
        vfs = SimVfs()
        vfs.mkdir("journal")
        vfs.fsync_dir("")
        write(vfs, "journal/a", b"x" * 2000)
        vfs.fsync_dir("journal")
        write(vfs, "journal/a", b"y" * 2000, 5000, sync=False)
        vfs.crash(Random(seed))
        assert read(vfs, "journal/a")[:2000] == b"x" * 2000


@pytest.mark.parametrize("missing", ["file", "directory", "parent"])
def test_each_missing_sync_can_lose_the_file_or_its_bytes(missing: str) -> None:
    vfs = SimVfs()
    vfs.mkdir("d")
    if missing != "parent":
        vfs.fsync_dir("")
    write(vfs, "d/a", b"data", sync=missing != "file")
    if missing != "directory":
        vfs.fsync_dir("d")
    vfs.crash()
    if missing == "file":
        assert read(vfs, "d/a") == b""
    else:
        assert not vfs.exists("d/a")


def test_a_process_kill_keeps_the_page_cache_but_a_later_power_cut_loses_it() -> None:
    vfs = SimVfs()
    write(vfs, "a", b"old")
    vfs.fsync_dir("")
    handle = vfs.open("a")
    vfs.pwrite(handle, [b"new"], 0)
    vfs.kill()
    with pytest.raises(OSError, match="Bad file descriptor"):
        vfs.pread(handle, 3, 0)
    assert read(vfs, "a") == b"new"
    assert read(durable(vfs), "a") == b"old"


def test_every_subset_of_sectors_can_be_kept() -> None:
    vfs = SimVfs()
    write(vfs, "a", b"." * 2048)
    vfs.fsync_dir("")
    write(vfs, "a", b"#" * 1000, 300, sync=False)
    atoms = vfs.unsynced()
    assert [(atom.kind, atom.start, atom.end) for atom in atoms] == [
        ("sector", 300, 512),
        ("sector", 512, 1024),
        ("sector", 1024, 1300),
    ]
    images = set()
    for count in range(4):
        for chosen in combinations(atoms, count):
            fork = vfs.clone()
            fork.crash_keep(chosen)
            image = bytearray(b"." * 2048)
            for atom in chosen:
                image[atom.start : atom.end] = b"#" * (atom.end - atom.start)
            assert read(fork, "a") == bytes(image)
            images.add(bytes(image))
    assert len(images) == 8
    assert read(vfs, "a") == b"." * 300 + b"#" * 1000 + b"." * 748


def test_a_later_write_can_survive_without_an_earlier_one() -> None:
    vfs = SimVfs()
    write(vfs, "a", bytes(1024))
    vfs.fsync_dir("")
    write(vfs, "a", b"1" * 512, 0, sync=False)
    write(vfs, "a", b"2" * 512, 512, sync=False)
    seen = set()
    for seed in range(200):
        fork = vfs.clone()
        fork.crash(Random(seed))
        image = read(fork, "a")
        assert len(image) == 1024
        seen.add((image[:512] == b"1" * 512, image[512:] == b"2" * 512))
    assert seen == {(False, False), (True, False), (False, True), (True, True)}


def test_a_size_can_survive_without_the_bytes() -> None:
    vfs = SimVfs()
    write(vfs, "a", b"abc")
    vfs.fsync_dir("")
    write(vfs, "a", b"z" * 600, 3, sync=False)
    (size,) = [atom for atom in vfs.unsynced() if atom.kind == "size"]
    vfs.crash_keep([size])
    assert read(vfs, "a") == b"abc" + bytes(600)


def test_a_rename_survives_or_not_and_never_halfway() -> None:
    vfs = SimVfs()
    write(vfs, "head", b"old")
    vfs.fsync_dir("")
    write(vfs, "head.tmp", b"new")
    vfs.rename("head.tmp", "head")
    assert vfs.list_dir("") == ["head"]
    outcomes = set()
    for seed in range(100):
        fork = vfs.clone()
        fork.crash(Random(seed))
        outcomes.add((read(fork, "head"), fork.exists("head.tmp")))
    assert outcomes == {(b"old", False), (b"old", True), (b"new", False)}
    vfs.fsync_dir("")
    assert read(durable(vfs), "head") == b"new"


def test_unlink_and_truncate_may_come_back() -> None:
    vfs = SimVfs()
    write(vfs, "a", b"a" * 100)
    write(vfs, "b", b"b" * 100)
    vfs.fsync_dir("")
    vfs.unlink("a")
    handle = vfs.open("b")
    vfs.truncate(handle, 10)
    vfs.pwrite(handle, [b"B"], 10)
    lost = durable(vfs)
    assert read(lost, "a") == b"a" * 100
    assert read(lost, "b") == b"b" * 100
    write_only = vfs.clone()
    write_only.crash_keep([atom for atom in vfs.unsynced() if atom.kind in ("sector", "size")])
    assert read(write_only, "b") == b"b" * 10 + b"B" + b"b" * 89
    vfs.fsync(handle)
    vfs.fsync_dir("")
    kept = durable(vfs)
    assert kept.list_dir("") == ["b"]
    assert read(kept, "b") == b"b" * 10 + b"B"


def test_two_files_that_shared_a_name_are_named_apart() -> None:
    vfs = SimVfs()
    write(vfs, "a", b"first")
    vfs.fsync_dir("")
    write(vfs, "a", b"FIRST", sync=False)
    vfs.unlink("a")
    write(vfs, "a", b"second", sync=False)
    paths = {atom.path for atom in vfs.unsynced() if atom.kind == "sector"}
    assert paths == {"a", "a~2"}
    vfs.crash_keep([atom for atom in vfs.unsynced() if atom.path == "a~2"])
    assert read(vfs, "a") == b"FIRST"


def test_a_failed_sync_drops_the_pages_although_they_are_still_shown() -> None:
    vfs = SimVfs()
    write(vfs, "a", b"old!")
    vfs.fsync_dir("")
    handle = vfs.open("a")
    vfs.pwrite(handle, [b"new"], 0)
    vfs.inject(fault("fdatasync", "a"))
    with pytest.raises(OSError, match="Input/output") as caught:
        vfs.fdatasync(handle)
    assert caught.value.errno == errno.EIO
    vfs.fdatasync(handle)
    vfs.pwrite(handle, [b"?"], 3)
    vfs.fdatasync(handle)
    assert vfs.pread(handle, 4, 0) == b"new?"
    assert vfs.fault_counts == {"fdatasync:EIO": 1}
    for seed in range(20):
        fork = vfs.clone()
        fork.crash(Random(seed))
        assert read(fork, "a") == b"old?"


def test_a_failed_sync_drops_bytes_but_keeps_a_size_for_the_next_one() -> None:
    vfs = SimVfs()
    handle = vfs.open("a", create=True)
    vfs.fsync_dir("")
    vfs.truncate(handle, 2000)
    vfs.pwrite(handle, [b"lost"], 100)
    vfs.inject(fault("fsync"))
    with pytest.raises(OSError, match="Input/output"):
        vfs.fsync(handle)
    assert read(durable(vfs), "a") == b""
    vfs.fsync(handle)
    assert vfs.pread(handle, 4, 100) == b"lost"
    assert read(durable(vfs), "a") == bytes(2000)


def test_a_failed_directory_sync_promises_nothing_and_the_next_one_does() -> None:
    vfs = SimVfs()
    write(vfs, "a", b"1")
    vfs.inject(fault("fsync_dir"))
    with pytest.raises(OSError, match="Input/output"):
        vfs.fsync_dir("")
    assert durable(vfs).list_dir("") == []
    vfs.fsync_dir("")
    assert durable(vfs).list_dir("") == ["a"]


def test_space_runs_out_and_comes_back() -> None:
    vfs = SimVfs(capacity_bytes=1000)
    write(vfs, "a", bytes(900))
    assert vfs.free_bytes() == 100
    handle = vfs.open("b", create=True)
    with pytest.raises(OSError, match="No space") as caught:
        vfs.pwrite(handle, [bytes(200)], 0)
    assert caught.value.errno == errno.ENOSPC
    assert vfs.size(handle) <= 100, "a failing write may leave a part, never more than fits"
    overwrite = vfs.open("a")
    vfs.pwrite(overwrite, [b"x" * 900], 0)
    vfs.truncate(handle, 0)
    vfs.unlink("a")
    assert vfs.free_bytes() == 1000
    vfs.crash()
    assert vfs.free_bytes() == 1000


def test_faults_hit_the_chosen_call_and_stay_if_sticky() -> None:
    vfs = SimVfs()
    handle = vfs.open("x.seg", create=True)
    vfs.inject(fault("pwrite", "*.seg", nth=2, error=errno.EDQUOT))
    vfs.inject(fault("pread", "*", sticky=True))
    vfs.pwrite(handle, [b"1"], 0)
    with pytest.raises(OSError, match="quota") as caught:
        vfs.pwrite(handle, [b"2"], 1)
    assert caught.value.errno == errno.EDQUOT
    vfs.pwrite(handle, [b"3"], 1)
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output"):
            vfs.pread(handle, 1, 0)
    vfs.heal()
    assert vfs.pread(handle, 2, 0) == b"13"


def test_a_failing_write_may_have_written_a_part() -> None:
    vfs = SimVfs()
    handle = vfs.open("a", create=True)
    vfs.inject(fault("pwrite", partial_bytes=3))
    with pytest.raises(OSError, match="Input/output"):
        vfs.pwrite(handle, [b"abcdef"], 0)
    assert vfs.pread(handle, 10, 0) == b"abc"


def test_latency_is_collected() -> None:
    vfs = SimVfs()
    vfs.inject(slow("fdatasync", latency_ns=5_000_000))
    write(vfs, "a", b"x")
    write(vfs, "a", b"x")
    assert vfs.take_latency_ns() == 10_000_000
    assert vfs.take_latency_ns() == 0


def replace_file(vfs: SimVfs) -> None:
    """The textbook replacement; the subject of the enumeration below."""
    handle = vfs.open("tmp", create=True)
    vfs.pwrite(handle, [b"new" * 300], 0)
    vfs.fsync(handle)
    vfs.close(handle)
    vfs.rename("tmp", "file")
    vfs.fsync_dir("")


def careless_replace(vfs: SimVfs) -> None:
    """The same without its first sync: the enumeration must see through it."""
    handle = vfs.open("tmp", create=True)
    vfs.pwrite(handle, [b"new" * 300], 0)
    vfs.close(handle)
    vfs.rename("tmp", "file")
    vfs.fsync_dir("")


@pytest.mark.parametrize(("recipe", "expected_sound"), [(replace_file, True), (careless_replace, False)])
def test_a_crash_at_every_boundary_can_be_enumerated(recipe: object, expected_sound: bool) -> None:
    assert callable(recipe)
    origin = SimVfs()
    write(origin, "file", b"old" * 300)
    origin.fsync_dir("")
    counter = origin.clone()
    recipe(counter)
    states = set()
    for boundary in range(origin.boundaries + 1, counter.boundaries + 2):
        disk = origin.clone()
        disk.crash_at(boundary)
        try:
            recipe(disk)
        except SimCrash:
            with pytest.raises(SimCrash):
                disk.list_dir("")
        atoms = disk.unsynced()
        for mask in range(1 << len(atoms)):
            fork = disk.clone()
            fork.crash_keep([atom for bit, atom in enumerate(atoms) if mask >> bit & 1])
            states.add(read(fork, "file"))
        assert read(counter, "file") == b"new" * 300
    assert (states == {b"old" * 300, b"new" * 300}) is expected_sound


def test_a_named_crash_point_and_the_hook() -> None:
    vfs = SimVfs()
    calls: list[str] = []
    vfs.on_crash = lambda: calls.append("down")
    vfs.op_log = []
    vfs.inject(crash_point("fdatasync", "b"))
    write(vfs, "a", b"1")
    with pytest.raises(SimCrash):
        write(vfs, "b", b"2")
    assert calls == ["down"]
    assert [op for op, path, *_ in vfs.op_log if path == "b"] == ["create", "pwrite", "fdatasync"]
    vfs.heal()
    vfs.kill()
    assert read(vfs, "b") == b"2"


def test_the_heir_has_the_disk_and_the_dead_process_nothing() -> None:
    vfs = SimVfs()
    handle = vfs.open("a", create=True)
    vfs.pwrite(handle, [b"1"], 0)
    heir = vfs.replace()
    for call in (lambda: vfs.pwrite(handle, [b"2"], 0), lambda: vfs.open("a"), lambda: vfs.list_dir("")):
        with pytest.raises(SimCrash):
            call()
    assert read(heir, "a") == b"1"


def test_damage_is_there_now_and_after_a_power_cut() -> None:
    vfs = SimVfs()
    write(vfs, "a", b"a" * 1024)
    write(vfs, "b", b"b" * 1024)
    write(vfs, "c", b"c")
    vfs.fsync_dir("")
    write(vfs, "a", b"A" * 100, 50, sync=False)
    vfs.poke("a", 100, b"!!")
    vfs.cut("b", 10)
    vfs.lose("c")
    assert read(vfs, "a")[98:104] == b"AA!!AA"
    lost = durable(vfs)
    assert read(lost, "a")[98:104] == b"aa!!aa"
    assert read(lost, "b") == b"b" * 10
    assert not lost.exists("c")
    assert lost.files() == ["a", "b"]


def test_bad_sectors_cannot_be_read_until_written() -> None:
    vfs = SimVfs()
    write(vfs, "a", bytes(2048))
    vfs.bad_sectors("a", 512, 1024)
    handle = vfs.open("a")
    assert vfs.pread(handle, 512, 0) == bytes(512)
    with pytest.raises(OSError, match="Input/output"):
        vfs.pread(handle, 1, 600)
    vfs.pwrite(handle, [b"x" * 512], 512)
    assert vfs.pread(handle, 2, 600) == b"xx"


def test_a_fork_and_its_origin_do_not_see_each_other() -> None:
    vfs = SimVfs()
    handle = vfs.open("a", create=True)
    vfs.pwrite(handle, [b"111"], 0)
    fork = vfs.clone()
    vfs.pwrite(handle, [b"2"], 0)
    fork.pwrite(handle, [b"3"], 1)
    again = fork.clone()
    again.truncate(handle, 1)
    assert (vfs.peek("a"), fork.peek("a"), again.peek("a")) == (b"211", b"131", b"1")


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda vfs: vfs.open("none"), errno.ENOENT),
        (lambda vfs: vfs.open("f", create=True, exclusive=True), errno.EEXIST),
        (lambda vfs: vfs.open("d"), errno.EISDIR),
        (lambda vfs: vfs.open("no/file", create=True), errno.ENOENT),
        (lambda vfs: vfs.unlink("none"), errno.ENOENT),
        (lambda vfs: vfs.unlink("d"), errno.EISDIR),
        (lambda vfs: vfs.rename("none", "x"), errno.ENOENT),
        (lambda vfs: vfs.rmdir("d"), errno.ENOTEMPTY),
        (lambda vfs: vfs.rmdir("none"), errno.ENOENT),
        (lambda vfs: vfs.mkdir("f"), errno.EEXIST),
        (lambda vfs: vfs.pwrite(vfs.open("f", write=False), [b"x"], 0), errno.EBADF),
        (lambda vfs: vfs.close(999), errno.EBADF),
        (lambda vfs: vfs.fsync_dir("none"), errno.ENOENT),
    ],
)
def test_the_errors_are_those_of_a_real_file_system(call: object, code: int) -> None:
    assert callable(call)
    vfs = SimVfs()
    write(vfs, "f", b"")
    vfs.mkdir("d")
    write(vfs, "d/x", b"")
    with pytest.raises(OSError, match=r".") as caught:
        call(vfs)
    assert caught.value.errno == code
    assert vfs.list_dir("nothing") == []
    vfs.mkdir("d")


def test_random_histories_end_like_a_plain_dictionary() -> None:
    """Method: random operations on the simulated disk and on a dict of bytes; reads agree; after a sync of everything
    a crash changes nothing."""
    for seed in range(60):
        rng = Random(seed)
        vfs = SimVfs()
        model: dict[str, bytes] = {}
        for _ in range(60):
            name = rng.choice("abc")
            match rng.randrange(6):
                case 0 | 1 | 2:
                    data, offset = rng.randbytes(rng.randint(1, 1500)), rng.randint(0, 2000)
                    write(vfs, name, data, offset, sync=rng.random() < 0.2)
                    old = model.get(name, b"").ljust(offset, b"\0")
                    model[name] = old[:offset] + data + old[offset + len(data) :]
                case 3 if name in model:
                    size = rng.randint(0, 3000)
                    handle = vfs.open(name)
                    vfs.truncate(handle, size)
                    vfs.close(handle)
                    model[name] = model[name][:size].ljust(size, b"\0")
                case 4 if name in model:
                    target = rng.choice("abc")
                    vfs.rename(name, target)
                    model[target] = model.pop(name)
                case 5 if name in model:
                    vfs.unlink(name)
                    del model[name]
                case _:
                    vfs.fsync_dir("")
        assert {path: vfs.peek(path) for path in vfs.files()} == model
        for path in vfs.files():
            handle = vfs.open(path)
            vfs.fsync(handle)
            vfs.close(handle)
        vfs.fsync_dir("")
        assert vfs.unsynced() == []
        vfs.crash(rng)
        assert {path: vfs.peek(path) for path in vfs.files()} == model
        assert vfs.capacity_bytes - vfs.free_bytes() == sum(map(len, model.values()))
