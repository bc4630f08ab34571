"""Sealed bytes open only as they were sealed; the stream of a journal file is the same read from anywhere."""

from __future__ import annotations

import pickle
from os import urandom
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetstore.errors import Corruption
from jetstore.store.keys import MARK_BYTES, SEALED_EXTRA_BYTES, Cipher, DataKey, Keys

CIPHERS: tuple[Cipher, ...] = ("chacha", "aes")


def keys_of(*ciphers: Cipher) -> Keys:
    draw = Random(7).randbytes
    return Keys({number: DataKey(cipher, draw(32)) for number, cipher in enumerate(ciphers, 1)}, draw)


@pytest.mark.parametrize("cipher", CIPHERS)
def test_what_is_sealed_opens_and_nothing_else_does(cipher: Cipher) -> None:
    keys = keys_of(cipher)
    for plain in (b"", b"x", bytes(5_000)):
        sealed = keys.seal(plain)
        assert len(sealed) == len(plain) + SEALED_EXTRA_BYTES
        assert keys.open(sealed) == plain
        assert keys.seal(plain) != sealed, "another nonce each time"
    sealed = keys.seal(b"secret")
    assert b"secret" not in sealed
    for at in range(len(sealed)):
        wrong = bytearray(sealed)
        wrong[at] ^= 1
        with pytest.raises(Corruption):
            keys.open(wrong)
    for size in range(len(sealed)):
        with pytest.raises(Corruption):
            keys.open(sealed[:size])


def test_the_newest_key_seals_and_all_open() -> None:
    older, both = keys_of("chacha"), keys_of("chacha", "aes")
    sealed = older.seal(b"before")
    assert both.open(sealed) == b"before"
    assert both.seal(b"now")[0] == 2
    with pytest.raises(Corruption, match="not there"):
        older.open(both.seal(b"now"))


@pytest.mark.parametrize("cipher", CIPHERS)
@given(data=st.binary(min_size=1, max_size=300), offset=st.integers(0, 1 << 29), cuts=st.lists(st.integers(0, 300)))
def test_the_stream_of_a_file_is_read_from_any_place(cipher: Cipher, data: bytes, offset: int, cuts: list[int]) -> None:
    keys = keys_of(cipher)
    mark = keys.new_mark()
    hidden = keys.journal(mark, offset, data)
    assert len(hidden) == len(data)
    for start in {min(cut, len(data)) for cut in cuts}:
        assert keys.journal(mark, offset + start, hidden[start:]) == data[start:]


@pytest.mark.parametrize("cipher", CIPHERS)
def test_no_two_places_and_no_two_files_share_a_stream(cipher: Cipher) -> None:
    keys = keys_of(cipher)
    one, other = keys.new_mark(), keys.new_mark()
    assert len(one) == len(other) == MARK_BYTES
    streams = [keys.journal(mark, at, bytes(64)) for mark in (one, other) for at in range(0, 64 * 200, 64)]
    assert len(set(streams)) == len(streams)


def test_keys_travel_to_the_writer_process() -> None:
    keys = Keys(keys_of("aes", "chacha").data_keys, urandom)
    twin = pickle.loads(pickle.dumps(keys))
    assert twin.open(keys.seal(b"x")) == b"x"
    assert twin.newest == 2
