"""Goal: a plain store that gets a key becomes an encrypted one, and loses nothing, whatever dies when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from itertools import count
from random import Random

import pytest
from damaged_store import LIMITS, current_server, fingerprint, flip, play_over, put
from deep import IS_DEEP
from sealing_world import (
    ALL,
    FEW,
    ROOMY,
    SUBJECTS,
    WORDS,
    Given,
    NoSecret,
    check_all,
    convert,
    cut,
    keys_of,
    operations,
    plain_journal,
    plain_store,
    put_file,
    sealed,
    sealing,
    shows,
)
from test_recover import run_recover

from jepsen.sim.client import Client
from jepsen.sim.command import quiet
from jepsen.sim.encryption import Secrets
from jepsen.sim.vfs import SimVfs
from jepsen.sim.world import World
from jetstore.errors import Corruption, OperatingError
from jetstore.limits import MIB
from jetstore.node.examine import StoreReport, examine, verify
from jetstore.node.storage import Storage
from jetstore.store.checkpoint_files import (
    KIND_KEYS,
    KIND_MANIFEST,
    read_chunk,
    read_framed,
    sealed_with,
    write_framed,
)
from jetstore.store.install_manifest import encode_manifest, manifest_path
from jetstore.store.key_file import NAMES
from jetstore.store.writer import Writer
from jetstore.types import GroupUid
from server.facts import engine_counters

STEP = 1 if IS_DEEP else 11


CHECKPOINT_CUT_OFF = {"the two copies of the head differ", "one of the two copies of the head is missing"}
"""What ``verify`` says of every store that died between the copies."""


@pytest.fixture(scope="module")
def plain() -> SimVfs:
    return plain_store()


@pytest.fixture(scope="module")
def done(plain: SimVfs) -> SimVfs:
    return convert(plain)


def look(vfs: SimVfs, given: Secrets | None = None) -> StoreReport:
    """``jetstore verify``."""
    vfs = vfs.clone()
    vfs.keys = keys_of(vfs, given)
    before = fingerprint(vfs)
    report, files = examine(vfs, LIMITS)
    verify(vfs, LIMITS, report)
    files.close()
    assert fingerprint(vfs) == before
    return report


def wrong(report: StoreReport) -> set[str]:
    return {*report.findings, *[finding for group in report.groups for finding in group.findings]}


def refused(vfs: SimVfs, given: Secrets) -> str:
    """Why a start over the disk ends before it serves. It changed nothing but the counter of starts."""
    quiet()
    world = World(Random(1), limits=LIMITS)
    machine = world.machine
    machine.secrets = given
    try:
        machine.change_disk(vfs.clone(), is_own=True)
        machine.vfs.kill()

        async def main() -> None:
            machine.power_on()
            await asyncio.sleep(0.2)
            machine.kill(1e6)

        world.run(main())
        before, after = fingerprint(vfs), fingerprint(machine.vfs)
        assert [path for path in before if before[path] != after.pop(path) and not path.startswith("IDENTITY")] == []
        assert not after
        (_, error), *_ = machine.exits
        assert isinstance(error, OperatingError | Corruption)
        return str(error)
    finally:
        world.close()


def test_nothing_shows_what_is_stored_and_everything_is_there(plain: SimVfs, done: SimVfs) -> None:
    assert set(shows(plain, WORDS + SUBJECTS)) == {*WORDS, *SUBJECTS}, "the look is not blind"
    assert shows(done, WORDS + SUBJECTS) == {}
    assert not keys_of(done).is_mixed
    assert look(done).is_sound
    again = convert(done)
    assert shows(again) == {}


@pytest.mark.parametrize("last", [ALL, FEW])
def test_nothing_plain_is_left_when_keys_say_so(last: int, plain: SimVfs, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[dict[bytes, list[str]]] = []
    genuine = Writer.end_sealing

    def end_sealing(writer: Writer) -> None:
        assert isinstance(writer.vfs, SimVfs)
        looks.append(shows(writer.vfs))
        genuine(writer)

    late = count()
    leave = Storage.leave_file

    def leave_file(storage: Storage, groups: Sequence[GroupUid]) -> None:
        if next(late) > 3:
            leave(storage, groups)

    monkeypatch.setattr(Writer, "end_sealing", end_sealing)
    monkeypatch.setattr(Storage, "leave_file", leave_file)
    convert(plain if last == ALL else plain_journal(), last=last, limits=ROOMY)
    assert looks == [{}]


@pytest.mark.parametrize("last", [ALL, FEW])
def test_a_power_cut_at_any_boundary(last: int, plain: SimVfs) -> None:
    """Of a store with segments; and of one that only has a journal."""
    plain = plain if last == ALL else plain_journal()
    total = operations(plain)
    assert total > 60
    mixed = 0
    for at in range(1, total + 1, STEP):
        left = cut(plain, at)
        if left.exists(NAMES[0]) or left.exists(NAMES[1]):
            assert wrong(look(left)) <= CHECKPOINT_CUT_OFF, at
            mixed += keys_of(left).is_mixed
        left = cut(left, at // 2 + 1)  # and once more, elsewhere
        assert shows(convert(left, last=last)) == {}, at
    assert mixed > total // STEP // 2


def half(plain: SimVfs, at: int = 150) -> SimVfs:
    """A store in the middle of it: some is sealed, some is not."""
    left = cut(plain, at)
    assert keys_of(left).is_mixed
    assert b"......" in shows(left)
    assert any(sealed_with(left, path) for path in left.files())
    return left


def test_what_does_not_fit_is_refused_in_the_middle_of_it_and_harms_nothing(plain: SimVfs) -> None:
    left = half(plain)
    assert "the key does not open this store" in refused(left, Given("another"))
    assert "nor does the previous one" in refused(left, Given("another", previous="a third"))
    assert "it opens with its key alone, and there is no way back" in refused(left, NoSecret())
    assert shows(convert(left)) == {}


def test_another_secret_and_cipher_in_the_middle_of_it(plain: SimVfs) -> None:
    left = convert(half(plain), Given("new", "aes", "s3cret"))
    keys = keys_of(left, Given("new"))
    assert (keys.is_due, list(keys.data_keys), keys.data_keys[2].cipher) == (False, [2], "aes")
    assert shows(left) == {}
    assert look(left, Given("new")).is_sound
    assert "does not open" in refused(left, Given())


def test_a_new_secret_or_cipher_and_all_is_written_anew(done: SimVfs) -> None:
    """The data key before is gone from KEYS: what is left of it in old copies opens nothing that is stored now."""
    for given in (Given("new", previous="s3cret"), Given(cipher="aes")):
        left = convert(done, given)
        keys = keys_of(left, given)
        assert (keys.is_due, list(keys.data_keys)) == (False, [2])
        assert look(left, given).is_sound
        left = convert(left, given)
        assert list(keys_of(left, given).data_keys) == [2]


def test_no_key_goes_that_something_in_quarantine_may_need(done: SimVfs) -> None:
    async def story(world: World, client: Client) -> None:
        await asyncio.sleep(60)
        assert sealing(world).reasons == ["quarantine may hold what only older keys open"]
        vfs = world.machine.vfs
        vfs.unlink("quarantine/7-1/HEAD.a")
        vfs.rmdir("quarantine/7-1")
        assert vfs.keys is not None
        assert list(vfs.keys.data_keys) == [1, 2]
        await sealed(world)
        assert list(vfs.keys.data_keys) == [2], "not in memory, either"

    left = done.clone()
    left.mkdir("quarantine")
    put_file(left, "quarantine/7-1/HEAD.a", done.peek("groups/2/HEAD.a"))
    given = Given("new", previous="s3cret")
    left, _ = play_over(left, story, secrets=given)
    assert list(keys_of(left, given).data_keys) == [2]


def test_a_power_cut_at_any_boundary_while_a_new_secret_takes_effect(done: SimVfs) -> None:
    given = Given("new", "aes", "s3cret")
    total = operations(done, given)
    assert total > 100
    both = 0
    for at in range(1, total + 1, STEP):
        left = cut(done, at, given)
        assert wrong(look(left, given)) <= CHECKPOINT_CUT_OFF, at
        both += len(keys_of(left, given).data_keys) == 2
        left = cut(left, at // 2 + 1, given)  # and once more, elsewhere
        left = convert(left, given)
        assert list(keys_of(left, Given("new")).data_keys) == [2]
        assert wrong(look(left, Given("new"))) <= CHECKPOINT_CUT_OFF, at
    assert both > total // STEP // 2


def test_a_plain_store_without_the_room_is_refused_and_stays_plain(plain: SimVfs) -> None:
    full = plain.clone()
    full.capacity_bytes = full.used_bytes + LIMITS.disk_resume_bytes
    assert "no room to encrypt what this store holds" in refused(full, Given())
    play_over(full, lambda world, client: check_all(client))


def test_it_waits_for_room_and_goes_on_by_itself(plain: SimVfs) -> None:
    async def story(world: World, client: Client) -> None:
        await asyncio.sleep(5)
        assert any("no room to write" in reason for reason in sealing(world).reasons)
        await put(client, ALL + 1, ALL + 3)
        await check_all(client, ALL + 3)
        assert sealing(world).is_due
        assert engine_counters(current_server(world).node).encrypting
        world.machine.vfs.capacity_bytes = 64 * MIB
        await sealed(world)
        assert not engine_counters(current_server(world).node).encrypting
        await check_all(client, ALL + 3)

    full = cut(plain, 60)
    full.capacity_bytes = full.used_bytes + LIMITS.disk_reserve_bytes + LIMITS.journal_file_bytes
    left, _ = play_over(full, story, secrets=Given())
    assert shows(left) == {}


def test_a_store_that_lost_its_keys_gets_no_new_ones(plain: SimVfs, done: SimVfs) -> None:
    for left in (half(plain), done.clone()):
        for name in NAMES:
            left.lose(name)
        assert "its KEYS and KEYS.b are gone" in refused(left, Given())
        for path in left.files():
            if path.startswith("journal"):
                left.lose(path)
        assert "its KEYS and KEYS.b are gone" in refused(left, Given())


def test_plain_files_slipped_into_an_encrypted_store_are_damage(plain: SimVfs, done: SimVfs) -> None:
    """What was there before, under the names that count now."""
    segment = next(path for path in done.files() if "/2/segments/" in path)
    older = next(path for path in plain.files() if path.endswith(segment.rpartition("/")[2].replace("-1.seg", ".seg")))
    for old, new, what in (
        (older, segment, "unreadable: not sealed"),
        ("groups/2/HEAD.a", "groups/2/HEAD.a", "not sealed, in an encrypted store in groups/2/HEAD.a"),
    ):
        left = done.clone()
        put_file(left, new, plain.peek(old))
        assert any(what in finding for finding in wrong(look(left))), new
    left = done.clone()
    chunk = next(path for path in left.files() if "/3/chunks/" in path)
    put_file(left, chunk, plain.peek("groups/3/chunks/index-1"))
    left.keys = keys_of(left)
    with pytest.raises(Corruption, match="not sealed, in an encrypted store"):
        read_chunk(left, GroupUid(3), chunk.rpartition("/")[2])
    left = done.clone()
    number = max(path for path in plain.files() if path.startswith("journal") and any(plain.peek(path)))
    for path in [path for path in left.files() if path.startswith("journal")]:
        left.lose(path)
    put_file(left, number, plain.peek(number))
    assert any("not sealed, in an encrypted store" in finding for finding in wrong(look(left)))
    assert "not sealed, in an encrypted store" in refused(left, Given())


def test_nobody_without_the_secret_makes_a_store_mixed_again(done: SimVfs) -> None:
    left = done.clone()
    for name in NAMES:
        content = json.loads(read_framed(left, GroupUid(0), KIND_KEYS, name))
        write_framed(left, GroupUid(0), KIND_KEYS, name, json.dumps({**content, "mixed": True}).encode())
    assert "the key does not open this store" in refused(left, Given())


def test_a_power_cut_between_the_copies_of_keys(plain: SimVfs, done: SimVfs) -> None:
    mixed = half(plain)
    for new, old in (NAMES, reversed(NAMES)):
        left = done.clone()
        put_file(left, old, mixed.peek(old))
        # Other data keys, but of the same secret: which copy counts is what is looked at.
        assert keys_of(left).is_mixed == (new == NAMES[1])


def test_damage_keeps_it_from_ending_and_is_not_hidden(plain: SimVfs) -> None:
    left = plain.clone()
    path = next(path for path in left.files() if "/2/segments/" in path)
    flip(left, path, 300)

    async def story(world: World, client: Client) -> None:
        await asyncio.sleep(20)
        assert sealing(world).is_due
        (reason,) = sealing(world).reasons
        assert path in reason
        assert (await client.api("STREAM.INFO.S"))["state"]["messages"] == ALL

    left, _ = play_over(left, story, secrets=Given())
    assert {name for paths in shows(left).values() for name in paths} == {path}
    assert any(path in finding for finding in wrong(look(left)))
    left.keys = keys_of(left)
    done, remaining, _ = run_recover(left)
    assert (len(done), remaining) == (1, [])
    left.keys = None

    async def ends(world: World, client: Client) -> None:
        await sealed(world)

    left, _ = play_over(left, ends, secrets=Given())
    assert shows(left) == {}
    assert look(left).is_sound


@pytest.mark.parametrize("given", [Given(), Given("new", previous="s3cret")])
def test_what_was_half_received_goes_and_is_asked_for_again(given: Secrets, plain: SimVfs, done: SimVfs) -> None:
    """A plain one, and one under the key before."""
    left = plain.clone()
    if given.given().previous:
        left = done.clone()
        left.keys = keys_of(left)
    row = ["00000000000000000900.seg", 900, 910, 11, 500, 0, 0, 1]
    fields = {"storage": "file", "number": 1, "first_seq": 1, "covered_seq": 910, "missing": [], "files": [row]}
    write_framed(left, GroupUid(2), KIND_MANIFEST, manifest_path(2), encode_manifest(fields))
    put_file(left, f"groups/2/segments/{row[0]}", b"......")
    put_file(left, "groups/2/chunks/index-9.tmp", b"......")
    left = convert(left, given)
    assert shows(left) == {}
    assert not [path for path in left.files() if path.endswith((str(row[0]), "INSTALL", ".tmp"))]


def test_it_does_not_end_beside_files_that_nobody_knows(plain: SimVfs) -> None:
    async def story(world: World, client: Client) -> None:
        vfs = world.machine.vfs
        await asyncio.sleep(1)
        assert sealing(world).is_due
        put_file(vfs, "groups/2/segments/stray.seg", b"......")
        put_file(vfs, "groups/9/HEAD.a", b"......")
        vfs.capacity_bytes = 64 * MIB
        await asyncio.sleep(60)
        assert sealing(world).reasons == ["groups/2/segments/stray.seg is still there", "group 9 is not open"]
        assert sealing(world).is_due
        vfs.unlink("groups/2/segments/stray.seg")
        vfs.unlink("groups/9/HEAD.a")
        vfs.rmdir("groups/9")
        await sealed(world)

    full = cut(plain, 60)
    full.capacity_bytes = full.used_bytes + LIMITS.disk_reserve_bytes + LIMITS.journal_file_bytes
    play_over(full, story, secrets=Given())


def test_new_messages_meanwhile(plain: SimVfs) -> None:
    async def story(world: World, client: Client) -> None:
        last = ALL
        while sealing(world).is_due:
            await put(client, last + 1, last + 1)
            last += 1
        assert last > ALL
        await check_all(client, last)

    left, _ = play_over(plain, story, secrets=Given())
    assert shows(left) == {}
    assert look(left).is_sound
