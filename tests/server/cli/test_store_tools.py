"""Goal: the offline tools on real directories: what they print, their exit codes, and that looking changes nothing."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from random import Random

import lmdb
import pytest
from click.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parents[2] / "node"))

from damaged_store import small_store
from sealing_world import cut

from jepsen.sim.encryption import Secrets
from jepsen.sim.vfs import SimVfs
from jetstore.store.keys import Encryption
from jetstore.store.lock import DirectoryLock
from jetstore.store.memory_index import FileRows
from server.cli.store_tools import inspect, recover_command, verify_command

ROWS = "index/2"


@pytest.fixture(scope="module")
def disk() -> SimVfs:
    return small_store(30, 10)


def laid_out(disk: SimVfs, root: Path) -> Path:
    """The files in a real directory, but for the indexes."""
    for path in disk.files():
        if path.startswith("index/"):
            continue
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(disk.peek(path))
    (root / "LOCK").touch()
    return root


@pytest.fixture
def root(tmp_path: Path, disk: SimVfs) -> Path:
    """The store in a real directory, its indexes in LMDB."""
    root = laid_out(disk, tmp_path / "jetstore")
    (root / "index").mkdir()
    env = lmdb.open(str(root / "index"))
    with env.begin(write=True) as txn:
        for uid in (2, 3):
            for key, value in FileRows(disk, uid).values.items():
                txn.put(key, value)
    env.close()
    return root


def run(command: object, *arguments: str) -> Result:
    result = CliRunner().invoke(command, arguments)  # type: ignore[arg-type]
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def fingerprint(root: Path) -> dict[str, str]:
    return {
        str(path): hashlib.blake2b(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "LOCK"
    }


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x40
    path.write_bytes(data)


def test_a_sound_store(root: Path) -> None:
    before = fingerprint(root)
    for where in (root, root.parent):
        shown = run(inspect, "-sd", str(where))
        assert shown.exit_code == 0
        assert "$G/S" in shown.output
        assert "messages 40" in shown.output
        assert "consumers C" in shown.output
        verified = run(verify_command, "-sd", str(where))
        assert verified.exit_code == 0
        assert verified.output.splitlines()[-1].startswith("OK")
        assert "index" not in verified.output
    nothing = run(recover_command, "-sd", str(root), "--export", str(root.parent / "export"))
    assert (nothing.exit_code, nothing.output) == (0, "nothing to do: the store is readable\n")
    assert fingerprint(root) == before


def test_damage_is_named_and_the_exit_code_is_1(root: Path) -> None:
    path = root / "groups/2/segments/00000000000000000001.seg"
    flip(path, 200)
    before = fingerprint(root)
    assert run(inspect, "-sd", str(root)).exit_code == 0
    verified = run(verify_command, "-sd", str(root))
    assert verified.exit_code == 1
    assert "sequences 2-2 unreadable" in verified.output
    assert str(path.relative_to(root)) in verified.output
    assert fingerprint(root) == before


def test_a_flipped_index_is_a_note_whatever_the_flip_does_to_its_reader(root: Path) -> None:
    data = root / "index/data.mdb"
    size = data.stat().st_size
    noted = 0
    for offset in range(7, size, size // 4):
        flip(data, offset)
        before = fingerprint(root)
        verified = run(verify_command, "-sd", str(root))
        assert verified.exit_code == 0, (offset, verified.output)
        noted += "index will be rebuilt" in verified.output
        assert fingerprint(root) == before
        flip(data, offset)
    # every byte of the rows themselves is covered
    key = next(key for key in FileRows(small_store(30, 10), 2).values if len(key) > 8)
    flip(data, data.read_bytes().rindex(key) + len(key) + 3)
    assert "S: the index will be rebuilt" in run(verify_command, "-sd", str(root)).output


def test_an_index_cut_short_or_gone_is_a_note(root: Path) -> None:
    data = root / "index/data.mdb"
    data.write_bytes(data.read_bytes()[:5000])
    verified = run(verify_command, "-sd", str(root))
    assert verified.exit_code == 0
    assert "S: the index will be rebuilt" in verified.output
    data.unlink()
    verified = run(verify_command, "-sd", str(root))
    assert verified.exit_code == 0
    assert "S: the index will be rebuilt" in verified.output


@pytest.mark.parametrize("command", [inspect, verify_command])
def test_a_store_in_use_is_left_alone(root: Path, command: object) -> None:
    lock = DirectoryLock(root)
    try:
        refused = run(command, "-sd", str(root))
    finally:
        lock.close()
    assert refused.exit_code == 1
    assert "stop the server first" in refused.output


def test_no_store_there(tmp_path: Path) -> None:
    refused = run(inspect, "-sd", str(tmp_path))
    assert refused.exit_code == 1
    assert "there is no jetstore store" in refused.output


def test_identity_gone(root: Path) -> None:
    for name in ("IDENTITY", "IDENTITY.b"):
        flip(root / name, 5)
    verified = run(verify_command, "-sd", str(root))
    assert verified.exit_code == 1
    assert "IDENTITY" in verified.output


def test_recover_mends_exports_and_says_so(root: Path) -> None:
    export = root.parent / "export"
    for path in (root / "journal").iterdir():
        data = path.read_bytes()
        at = data.find(b"34".ljust(100, b"."))
        if at >= 0:
            flip(path, at)
    flip(root / "groups/2/segments/00000000000000000001.seg", 200)
    assert run(verify_command, "-sd", str(root)).exit_code == 1
    mended = run(recover_command, "-sd", str(root), "--export", str(export))
    assert mended.exit_code == 0, mended.output
    assert "S: mended; sequences 34-40 are an explicit gap now; messages lost: up to 2" in mended.output
    assert "S: stored messages in 2-2 were unreadable and are removed" in mended.output
    assert "S: 6 messages behind the fault exported" in mended.output
    assert len((export / "S.jsonl").read_bytes().splitlines()) == 6
    assert run(verify_command, "-sd", str(root)).exit_code == 0
    again = run(recover_command, "-sd", str(root), "--export", str(export))
    assert (again.exit_code, again.output) == (0, "nothing to do: the store is readable\n")


def test_an_export_is_never_overwritten(root: Path) -> None:
    for path in (root / "journal").iterdir():
        at = path.read_bytes().find(b"34".ljust(100, b"."))
        if at >= 0:
            flip(path, at)
    export = root.parent / "export"
    export.mkdir()
    (export / "S.jsonl").write_text("mine")
    refused = run(recover_command, "-sd", str(root), "--export", str(export))
    assert refused.exit_code == 1
    assert "exists already" in refused.output
    assert (export / "S.jsonl").read_text() == "mine"


class OneSecret(Secrets):
    def __init__(self) -> None:
        super().__init__(Random(1))

    def given(self) -> Encryption:
        return Encryption("s3cret", "aes", cost=16)


def test_an_encrypted_store_is_read_and_mended_with_its_key(tmp_path: Path) -> None:
    root = laid_out(small_store(30, 10, secrets=OneSecret()), tmp_path / "jetstore")
    config, other = tmp_path / "server.conf", tmp_path / "other.conf"
    config.write_text('jetstream { key: "s3cret" }')
    other.write_text('jetstream { key: "another" }')
    before = fingerprint(root)
    for command in (inspect, verify_command):
        for arguments, match in (((), "this store is encrypted"), (("-c", str(other)), "the key does not open")):
            refused = run(command, "-sd", str(root), *arguments)
            assert refused.exit_code == 1
            assert match in refused.output
            assert "-c" in refused.output
    with_key = ("-sd", str(root), "-c", str(config))
    assert "messages 40" in run(inspect, *with_key).output
    verified = run(verify_command, *with_key)
    assert (verified.exit_code, "index" in verified.output) == (0, False), verified.output
    assert fingerprint(root) == before
    flip(root / "groups/2/segments/00000000000000000001.seg", 200)
    assert run(verify_command, *with_key).exit_code == 1
    mended = run(recover_command, *with_key, "--export", str(tmp_path / "export"))
    assert mended.exit_code == 0, mended.output
    assert "were unreadable and are removed" in mended.output
    assert run(verify_command, *with_key).exit_code == 0
    assert not any(b"OTHER" in path.read_bytes() for path in root.rglob("*") if path.is_file())


def test_a_store_that_is_being_encrypted_is_read_and_mended(tmp_path: Path, disk: SimVfs) -> None:
    root = laid_out(cut(disk, 120, OneSecret()), tmp_path / "jetstore")
    config = tmp_path / "server.conf"
    config.write_text('jetstream { key: "s3cret" }')
    with_key = ("-sd", str(root), "-c", str(config))
    before = fingerprint(root)
    assert "this store is encrypted" in run(verify_command, "-sd", str(root)).output
    shown = run(inspect, *with_key).output
    assert "messages 40" in shown
    assert "what was stored before is not all encrypted yet" in shown
    verified = run(verify_command, *with_key)
    assert verified.exit_code == 0, verified.output
    assert fingerprint(root) == before
    segment = next((root / "groups/2/segments").iterdir())
    flip(segment, 200)
    assert run(verify_command, *with_key).exit_code == 1
    mended = run(recover_command, *with_key, "--export", str(tmp_path / "export"))
    assert mended.exit_code == 0, mended.output
    assert run(verify_command, *with_key).exit_code == 0
    assert "not all encrypted yet" in run(inspect, *with_key).output
