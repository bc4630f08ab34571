"""KEYS: whatever dies when, a secret that was good or has just become good opens the store, with the same data keys."""

from __future__ import annotations

from random import Random

import pytest

from jepsen.sim.faults import SimCrash
from jepsen.sim.vfs import SimVfs
from jetstore.errors import Corruption, OperatingError
from jetstore.store.key_file import NAMES, end_sealing, open_keys, read_keys
from jetstore.store.keys import DataKey, Encryption, Keys

CHEAP = 16
FIRST = Encryption("first", cost=CHEAP)
SECOND = Encryption("second", previous="first", cost=CHEAP)


def opened(vfs: SimVfs, wanted: Encryption, *, is_new: bool = False, seed: int = 1) -> dict[int, DataKey]:
    keys, _ = open_keys(vfs, wanted, Random(seed).randbytes, is_new=is_new)
    assert keys is not None
    return keys.data_keys


def born() -> SimVfs:
    vfs = SimVfs()
    opened(vfs, FIRST, is_new=True)
    vfs.crash()
    return vfs


def test_a_store_without_encryption_has_no_keys() -> None:
    vfs = SimVfs()
    assert open_keys(vfs, None, Random(1).randbytes, is_new=True) == (None, [])
    assert vfs.files() == []
    assert read_keys(vfs, FIRST, Random(1).randbytes) is None


def test_birth_and_the_next_start() -> None:
    vfs = born()
    before = vfs.files(), [vfs.peek(name) for name in NAMES]
    first = opened(vfs, FIRST, seed=2)
    assert [key.cipher for key in first.values()] == ["chacha"]
    assert (vfs.files(), [vfs.peek(name) for name in NAMES]) == before, "nothing was written"
    keys = read_keys(vfs, FIRST, Random(1).randbytes)
    assert keys is not None
    assert keys.data_keys == first
    assert not any(
        key.secret in vfs.peek(name) or key.secret.hex().encode() in vfs.peek(name)
        for key in first.values()
        for name in NAMES
    )


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    vfs = born()
    before = [vfs.peek(name) for name in NAMES]
    for wanted, match in (
        (Encryption("wrong", cost=CHEAP), "does not open this store$"),
        (Encryption("wrong", previous="wronger", cost=CHEAP), "nor does the previous one"),
        (None, "is encrypted"),
    ):
        with pytest.raises(OperatingError, match=match):
            open_keys(vfs, wanted, Random(3).randbytes, is_new=False)
        with pytest.raises(OperatingError, match=match):
            read_keys(vfs, wanted, Random(3).randbytes)
    assert [vfs.peek(name) for name in NAMES] == before


def test_a_new_secret_seals_all_keys_anew_and_adds_one() -> None:
    vfs = born()
    old = opened(vfs, FIRST)
    keys, notes = open_keys(vfs, SECOND, Random(2).randbytes, is_new=False)
    assert keys is not None
    assert notes == ["the data keys have a new seal"]
    assert keys.data_keys[1] == old[1]
    assert keys.newest == 2
    assert keys.data_keys[2].cipher == "chacha"
    assert keys.is_due, "what is under the first one is to be written anew"
    assert opened(vfs, Encryption("second", cost=CHEAP)) == keys.data_keys, "the previous one is not needed any more"
    assert opened(vfs, SECOND) == keys.data_keys, "nor does it harm"
    with pytest.raises(OperatingError):
        opened(vfs, FIRST)


def test_another_cipher_seals_from_now_on() -> None:
    vfs = born()
    assert [key.cipher for key in opened(vfs, Encryption("first", "aes", cost=CHEAP), seed=2).values()] == [
        "chacha",
        "aes",
    ]
    assert len(opened(vfs, FIRST, seed=3)) == 2, "None: as it is"
    assert len(opened(vfs, Encryption("first", "chacha", cost=CHEAP), seed=4)) == 3


def test_a_bound() -> None:
    vfs = born()
    for number in range(2, 258):
        keys = opened(vfs, Encryption("first", ("chacha", "aes")[number % 2 == 0], cost=CHEAP), seed=number)
    assert len(keys) == 255
    assert opened(vfs, Encryption("last", previous="first", cost=CHEAP)) == keys


def test_a_lost_or_damaged_copy_is_written_again_and_two_are_refused() -> None:
    vfs = born()
    expected = opened(vfs, FIRST)
    for name in NAMES:
        for harm in (lambda n=name: vfs.lose(n), lambda n=name: vfs.poke(n, 70, b"\xff\xff")):
            harm()
            assert opened(vfs, FIRST, seed=5) == expected
            assert all(read_keys(twin, FIRST, Random(1).randbytes) is not None for twin in halves(vfs))
    for name in NAMES:
        vfs.poke(name, 70, b"\xff\xff")
    with pytest.raises(Corruption, match="no copy of the keys is readable"):
        opened(vfs, FIRST)


def halves(vfs: SimVfs) -> list[SimVfs]:
    """The disk with only either copy."""
    twins = [vfs.clone(), vfs.clone()]
    for twin, name in zip(twins, NAMES, strict=True):
        twin.lose(name)
    return twins


@pytest.mark.parametrize(
    ("before", "wanted"), [(None, FIRST), (FIRST, SECOND), (FIRST, Encryption("first", "aes", cost=CHEAP))]
)
def test_a_power_cut_at_every_boundary(before: Encryption | None, wanted: Encryption) -> None:
    vfs = SimVfs() if before is None else born()
    old = opened(vfs, before) if before is not None else {}
    point = 0
    while True:
        point += 1
        for seed in range(4):
            twin = vfs.clone()
            twin.crash_at(twin.boundaries + point)
            try:
                opened(twin, wanted, is_new=before is None, seed=9)
            except SimCrash:
                twin.crash(Random(seed))
            else:
                return
            found = opened(twin, wanted, is_new=before is None, seed=10)
            assert old.items() <= found.items()
            again = opened(twin, Encryption(wanted.secret, cost=CHEAP), seed=11)
            assert again == found
            assert all(opened(half, Encryption(wanted.secret, cost=CHEAP)) == found for half in halves(twin))


def mixed(vfs: SimVfs, wanted: Encryption = FIRST, seed: int = 1) -> Keys:
    keys, _ = open_keys(vfs, wanted, Random(seed).randbytes, is_new=False)
    assert keys is not None
    return keys


def test_a_plain_store_gets_keys_that_say_so_until_they_are_told_otherwise() -> None:
    vfs = SimVfs()
    first = mixed(vfs)
    assert first.is_mixed
    before = [vfs.peek(name) for name in NAMES]
    assert mixed(vfs, seed=2).data_keys == first.data_keys
    assert [vfs.peek(name) for name in NAMES] == before, "nothing was written"
    second = mixed(vfs, SECOND, seed=3)
    assert (second.is_mixed, len(second.data_keys)) == (True, 2), "another secret changes nothing of that"
    end_sealing(vfs, second.when_sealed)
    third = mixed(vfs, Encryption("second", cost=CHEAP), seed=4)
    assert (third.is_mixed, third.is_due) == (False, False)
    assert third.data_keys == {2: second.data_keys[2]}, "the newest seals all there is"


def test_no_room_to_begin_with_changes_nothing() -> None:
    vfs = SimVfs()

    def full() -> None:
        raise OperatingError("no room")

    with pytest.raises(OperatingError, match="no room"):
        open_keys(vfs, FIRST, Random(1).randbytes, is_new=False, check_beginning=full)
    assert vfs.files() == []


def test_a_power_cut_at_every_boundary_of_the_end() -> None:
    """A store that was mixed is, or is not any more; and once it is not it never is again."""
    vfs = SimVfs()
    keys = mixed(vfs)
    seen = set()
    for point in range(1, 40):
        for seed in range(4):
            twin = vfs.clone()
            twin.crash_at(twin.boundaries + point)
            try:
                end_sealing(twin, keys.when_sealed)
            except SimCrash:
                twin.crash(Random(seed))
            else:
                assert seen == {True, False}
                return
            found = mixed(twin, seed=5)
            assert found.data_keys == keys.data_keys
            seen.add(found.is_mixed)
            for half in halves(twin):
                assert mixed(half, seed=6).is_mixed == found.is_mixed
    raise AssertionError("it never ends")
