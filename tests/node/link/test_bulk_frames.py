"""Goal: the bodies of bulk frames are these bytes, and nothing that is not one is taken for one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetstore.node.link import bulk_frames as bulk
from jetstore.node.link.frames import FrameError, Kind

GOLDEN = [
    (bulk.request(7, 4096, "range", b"ab"), Kind.REQUEST, "07000000 00100000 05 72616e6765 6162"),
    (bulk.response(7, b"ab"), Kind.RESPONSE, "07000000 6162"),
    (bulk.chunk(7, b"ab"), Kind.CHUNK, "07000000 6162"),
    (bulk.end(7), Kind.END, "07000000"),
    (bulk.error(7, bulk.ErrorKind.REFUSED, 404, "no"), Kind.ERROR, "07000000 01 94010000 6e6f"),
    (bulk.credit(7, 4096), Kind.CREDIT, "07000000 00100000"),
    (bulk.cancel(7), Kind.CANCEL, "07000000"),
]
READERS: list[Callable[[memoryview], object]] = [
    bulk.read_request,
    bulk.read_payload,
    bulk.read_bare_id,
    bulk.read_error,
    bulk.read_credit,
]


@pytest.mark.parametrize(("made", "kind", "expected"), GOLDEN, ids=lambda value: getattr(value, "name", None))
def test_golden(made: bulk.Outgoing, kind: Kind, expected: str) -> None:
    assert made[0] is kind
    assert b"".join(map(bytes, made[1])).hex() == expected.replace(" ", "")


def body(made: bulk.Outgoing) -> memoryview:
    return memoryview(b"".join(map(bytes, made[1])))


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.text(min_size=1, max_size=60), st.binary(max_size=50))
def test_they_come_back(request_id: int, number: int, text: str, payload: bytes) -> None:
    assert bulk.read_request(body(bulk.request(request_id, number, text, payload))) == (
        request_id, number, text, payload,
    )  # fmt: skip
    assert bulk.read_payload(body(bulk.chunk(request_id, payload))) == (request_id, payload)
    assert bulk.read_bare_id(body(bulk.end(request_id))) == request_id
    assert bulk.read_credit(body(bulk.credit(request_id, number))) == (request_id, number)
    for kind in bulk.ErrorKind:
        assert bulk.read_error(body(bulk.error(request_id, kind, number, text))) == (request_id, kind, number, text)


@given(st.binary(max_size=40))
def test_noise_ends_in_a_frame_error_or_in_bounded_values(noise: bytes) -> None:
    for read in READERS:
        try:
            read(memoryview(noise))
        except FrameError:
            pass


@pytest.mark.parametrize("read", READERS)
def test_short_bodies(read: Callable[[memoryview], object]) -> None:
    with pytest.raises(FrameError):
        read(memoryview(b"\x00\x00\x00"))


def test_a_method_needs_a_short_name() -> None:
    for name in ("", "x" * 256):
        with pytest.raises(ValueError, match="method name"):
            bulk.request(1, 0, name, b"")
