"""Goal: any chunking gives the same frames; whatever else comes is refused at once, without memory for it."""

from __future__ import annotations

import struct
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetstore.node.link.frames import HEAD_BYTES, FrameError, FrameReader, Kind, frame

GOLDEN = {
    # length   kind zero   number   body crc head crc body
    (Kind.READY, 0, b""): "00000000 02 000000 00000000 00000000 8a329320",
    (Kind.PING, 1, b"12345678"): "08000000 04 000000 01000000 9a808760 d277c6de 3132333435363738",
    (Kind.RAFT, 2**32, b"abc"): "03000000 10 000000 00000000 b73f4b36 0729a1a0 616263",
}


def as_bytes(kind: Kind, number: int, body: bytes) -> bytes:
    return b"".join(map(bytes, frame(kind, number, [body])))


def read(data: bytes, cuts: list[int], reader: FrameReader) -> list[tuple[Kind, bytes]]:
    """Feed ``data`` in pieces of the given sizes (then whole), as a transport would."""
    found = []
    at = 0
    sizes = iter(cuts)
    while at < len(data):
        buffer = reader.get_buffer()
        assert len(buffer) > 0
        size = min(next(sizes, len(data)), len(buffer), len(data) - at)
        buffer[:size] = data[at : at + size]
        reader.updated(size)
        at += size
        found += [(kind, bytes(body)) for kind, body in reader.frames()]
    return found


def reader(body_bytes_max: int = 4096, resting_bytes: int = 64) -> FrameReader:
    return FrameReader(body_bytes_max=body_bytes_max, resting_bytes=resting_bytes)


@pytest.mark.parametrize("key", list(GOLDEN), ids=lambda key: key[0].name)
def test_golden(key: tuple[Kind, int, bytes]) -> None:
    expected = bytes.fromhex(GOLDEN[key].replace(" ", ""))
    assert as_bytes(*key).hex() == expected.hex()
    if key[1] == 0:
        assert read(expected, [], reader()) == [(key[0], key[2])]


def test_the_numbers_of_the_kinds_are_for_ever() -> None:
    assert {kind.name: kind.value for kind in Kind} == {
        "HELLO": 1, "READY": 2, "REFUSED": 3, "PING": 4, "PONG": 5, "GOODBYE": 6, "RAFT": 16,
        "REQUEST": 32, "RESPONSE": 33, "CHUNK": 34, "END": 35, "ERROR": 36, "CREDIT": 37, "CANCEL": 38,
        "ROUTE": 48,
    }  # fmt: skip


FRAMES = st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=300)), max_size=12)
CUTS = st.lists(st.integers(1, 200), max_size=100)


@given(FRAMES, CUTS, st.integers(1, 500))
def test_any_chunking_gives_the_same_frames(frames: list[tuple[Kind, bytes]], cuts: list[int], resting: int) -> None:
    data = b"".join(as_bytes(kind, number, body) for number, (kind, body) in enumerate(frames))
    under_test = reader(resting_bytes=resting)
    assert read(data, cuts, under_test) == frames
    assert under_test.is_between_frames
    under_test.get_buffer()
    assert under_test.capacity_bytes <= max(resting, HEAD_BYTES)


@given(FRAMES.filter(bool), CUTS, st.data())
def test_any_damage_is_noticed(frames: list[tuple[Kind, bytes]], cuts: list[int], draw: st.DataObject) -> None:
    """A flipped bit, or a missing, doubled or moved frame: what was before it comes out, nothing else."""
    pieces = [as_bytes(kind, number, body) for number, (kind, body) in enumerate(frames)]
    harm = draw.draw(st.sampled_from(["flip", "lose", "double", "swap"]))
    at = draw.draw(st.integers(0, len(pieces) - 1))
    if harm == "flip":
        bit = draw.draw(st.integers(0, len(pieces[at]) * 8 - 1))
        damaged = bytearray(pieces[at])
        damaged[bit // 8] ^= 1 << bit % 8
        pieces[at] = bytes(damaged)
    elif harm == "lose":
        del pieces[at]
        if at == len(pieces):
            return
    elif harm == "double":
        pieces.insert(at, pieces[at])
        at += 1
    elif at + 1 < len(pieces):
        pieces[at], pieces[at + 1] = pieces[at + 1], pieces[at]
    else:
        return
    under_test = reader()
    found: list[tuple[Kind, bytes]] = []
    with pytest.raises(FrameError):  # noqa: PT012 (what came before the damage is asserted too)
        stream = b"".join(pieces)
        for start in range(0, len(stream), 7):
            found += read(stream[start : start + 7], cuts, under_test)
    assert found == frames[: len(found)]
    assert len(found) <= at


def test_every_single_bit_counts() -> None:
    frames = [(Kind.RAFT, b"some body"), (Kind.PING, b"12345678")]
    data = b"".join(as_bytes(kind, number, body) for number, (kind, body) in enumerate(frames))
    first = HEAD_BYTES + len(frames[0][1])
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        under_test = reader()
        found: list[tuple[Kind, bytes]] = []
        with pytest.raises(FrameError):  # noqa: PT012 (what came before the damage is asserted too)
            for start in range(0, len(data), 5):
                found += read(bytes(damaged[start : start + 5]), [], under_test)
        assert found == (frames[:1] if bit >= first * 8 else [])


@given(st.binary(min_size=HEAD_BYTES, max_size=200), CUTS)
def test_noise_is_refused_without_memory_for_it(noise: bytes, cuts: list[int]) -> None:
    under_test = reader(body_bytes_max=10_000)
    with pytest.raises(FrameError):
        read(noise, cuts, under_test)
    assert under_test.capacity_bytes <= 64


def test_a_length_is_judged_before_anything_is_allocated() -> None:
    large = as_bytes(Kind.RAFT, 0, bytes(5000))
    under_test = reader(body_bytes_max=4999)
    with pytest.raises(FrameError, match="frame of 5000 bytes, at most 4999"):
        read(large[:HEAD_BYTES], [], under_test)
    assert under_test.capacity_bytes == 64
    damaged = struct.pack("<I", 2**32 - 1) + large[4:]
    with pytest.raises(FrameError, match="checksum of a frame head"):
        read(damaged, [], reader(body_bytes_max=2**32))


def test_the_buffer_grows_for_one_large_frame_and_shrinks_again() -> None:
    rng = Random(1)
    frames = [(Kind.RAFT, rng.randbytes(size)) for size in (10, 100_000, 10, 40)]
    data = b"".join(as_bytes(kind, number, body) for number, (kind, body) in enumerate(frames))
    under_test = reader(body_bytes_max=1 << 20, resting_bytes=128)
    assert read(data, [1] * 50 + [1000] * 200, under_test) == frames
    under_test.get_buffer()
    assert under_test.capacity_bytes == 128


def test_parts_are_passed_on_as_they_are() -> None:
    data = bytes(1 << 20)
    buffers = frame(Kind.RAFT, 0, [b"head", data])
    assert buffers[2] is data
