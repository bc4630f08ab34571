"""Goal: a hello comes back as it was; each reason to refuse has its own definite text; strangers are recognised."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetstore.node.link.frames import FrameError
from jetstore.node.link.hello import (
    Hello,
    Purpose,
    Reason,
    Refused,
    check_hello,
    decode_hello,
    decode_refusal,
    encode_hello,
    encode_refusal,
    is_foreign,
)

MINE = Hello(Purpose.RAFT, "C", "", "00000000000000a1", "n1", 1, 3, "1111111111111111", 40)
THEIRS = Hello(Purpose.BULK, "C", "", "00000000000000b2", "n2", 2, 5, "2222222222222222", 60, "h:6222", "u", "p")

U64 = st.integers(0, 2**64 - 1)
HEX = st.binary(min_size=8, max_size=8).map(bytes.hex)
HELLO = st.builds(
    Hello,
    st.sampled_from(Purpose),
    st.text(max_size=20),
    st.text(max_size=20),
    HEX,
    st.text(max_size=20),
    st.integers(0, 2**32 - 1),
    U64,
    HEX,
    U64,
    st.text(max_size=20),
    st.text(max_size=20),
    st.text(max_size=20),
)


def refusal(mine: Hello, theirs: Hello, **options: object) -> tuple[Reason, str]:
    arguments: dict[str, object] = {"authorize": None, "names": {}}
    with pytest.raises(Refused) as refused:
        check_hello(mine, theirs, **(arguments | options))  # type: ignore[arg-type]
    return refused.value.reason, refused.value.text


@given(HELLO)
def test_a_hello_comes_back(hello: Hello) -> None:
    assert decode_hello(encode_hello(hello)) == hello


@given(HELLO, st.data())
def test_a_cut_or_longer_hello_is_refused(hello: Hello, draw: st.DataObject) -> None:
    data = encode_hello(hello)
    with pytest.raises(FrameError):
        decode_hello(data[: draw.draw(st.integers(0, len(data) - 1))])
    with pytest.raises(FrameError):
        decode_hello(data + b"x")


@given(st.binary(max_size=200))
def test_noise_is_no_hello(noise: bytes) -> None:
    for data in (noise, encode_hello(MINE)[:10] + noise):
        try:
            decode_hello(data)
        except FrameError:
            pass


def test_golden() -> None:
    expected = """
        4a534c494e4b0000 0100 02 00 02000000 0000000000000000 00000000000000b2 2222222222222222
        0500000000000000 3c00000000000000
        0100 43 0000 0200 6e32 0600 683a36323232 0100 75 0100 70
    """
    assert encode_hello(THEIRS).hex() == "".join(expected.split())


def test_another_version_is_named() -> None:
    data = bytearray(encode_hello(THEIRS))
    data[8:10] = (9).to_bytes(2, "little")
    for body in (data, data[:10]):  # whatever comes behind it in that version
        with pytest.raises(Refused, match="version 9 is unknown") as refused:
            decode_hello(body)
        assert refused.value.reason is Reason.VERSION


def test_somebody_who_may_talk() -> None:
    check_hello(MINE, THEIRS, authorize=None, names={"n2": THEIRS.node_id, "n3": "x"})
    check_hello(MINE, THEIRS, authorize=lambda user, password: (user, password) == ("u", "p"), names={})
    check_hello(replace(MINE, cluster_id="one"), THEIRS, authorize=None, names={})


def test_reasons() -> None:
    assert refusal(MINE, THEIRS, authorize=lambda user, password: False) == (
        Reason.AUTHORIZATION,
        "Authorization Violation",
    )
    other_cluster = replace(THEIRS, cluster_name="D")
    assert refusal(MINE, other_cluster) == (Reason.CLUSTER_NAME, 'cluster name "D" does not match "C"')
    assert refusal(MINE, other_cluster, authorize=lambda user, password: False)[0] is Reason.AUTHORIZATION
    reason, text = refusal(replace(MINE, cluster_id="one"), replace(THEIRS, cluster_id="two"))
    assert reason is Reason.CLUSTER_ID
    assert "cluster id two does not match one" in text
    assert refusal(MINE, MINE)[0] is Reason.SELF
    reason, text = refusal(MINE, replace(MINE, boot_nonce="33" * 8, boot_counter=9))
    assert reason is Reason.OLD_DISK
    assert "one disk is a copy of the other" in text
    for theirs, names in ((replace(THEIRS, node_name="n1"), {}), (THEIRS, {"n2": "someone else"})):
        reason, text = refusal(MINE, theirs, names=names)
        assert reason is Reason.DUPLICATE_NAME
        assert text == f'Remote server has a duplicate name: "{theirs.node_name}"'


@pytest.mark.parametrize("reason", Reason)
def test_a_refusal_comes_back(reason: Reason) -> None:
    back = decode_refusal(encode_refusal(Refused(reason, "because é")))
    assert (back.reason, back.text) == (reason, "because é")


@pytest.mark.parametrize("body", [b"", b"\x00x", b"\xffx"])
def test_no_refusal(body: bytes) -> None:
    with pytest.raises(FrameError):
        decode_refusal(body)


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (b'INFO {"server_id":"x"}', True),
        (b'CONNECT {"echo":true}', True),
        (b"PING\r\n", True),
        (b"-ERR 'x'", True),
        (b"INF", False),
        (b"GET / HTTP/1.1", False),
        (b"\x16\x03\x01\x02", False),
    ],
)
def test_nats_bytes_are_recognised(first: bytes, expected: bool) -> None:
    assert is_foreign(first) is expected
