"""The wire kernels against a slow and obvious model: every gear, every cut, every shape."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jetstore.hot import wire

EXAMPLES = int(os.environ.get("JETSTORE_EXAMPLES", "60"))
MAX_LINE = 4096
MAX_PAYLOAD = 1 << 20

Message = tuple[bytes, bytes, int, bytes]
"""subject, reply, header length (0 = PUB), payload"""


def encode(message: Message) -> bytes:
    subject, reply, header_len, payload = message
    args = [subject, *([reply] if reply else []), *([b"%d" % header_len] if header_len else []), b"%d" % len(payload)]
    return (b"HPUB " if header_len else b"PUB ") + b" ".join(args) + b"\r\n" + payload + b"\r\n"


def decoded(parsed: wire.Parsed) -> list[Message]:
    count = len(parsed.payloads)
    header_lens = parsed.header_lens or [0] * count
    assert len(parsed.subjects) == len(parsed.replies) == len(header_lens) == count
    return list(zip(parsed.subjects, parsed.replies, header_lens, parsed.payloads, strict=True))


def parse(buffer: bytes, pos: int = 0, *, headers: bool = True, max_payload: int = MAX_PAYLOAD) -> wire.Parsed:
    return wire.parse_publishes(buffer, pos, MAX_LINE, max_payload, headers)


token = st.binary(min_size=1, max_size=6).filter(lambda b: not set(b) & set(b" \t\r\n\x0b\x0c."))
subject = st.lists(token, min_size=1, max_size=4).map(b".".join)
text = st.binary(max_size=40).map(lambda b: b.replace(b"\r", b"-").replace(b"\n", b"-").replace(b"\x0b", b"-"))
payload = st.one_of(st.binary(max_size=40), text, st.sampled_from([b"", b"\r\n", b"PUB a 1\r\nx\r\n", b"\r", b"\n"]))


@st.composite
def messages(draw: st.DrawFn) -> Message:
    body = draw(payload)
    header_len = draw(st.one_of(st.just(0), st.integers(0, len(body))))
    return draw(subject), draw(st.one_of(st.just(b""), subject)), header_len, body


@st.composite
def runs(draw: st.DrawFn) -> list[Message]:
    """Many messages alike, so that the fast gears engage, with strangers between them."""
    run: list[Message] = []
    for _ in range(draw(st.integers(1, 4))):
        subject_, reply, header_len, body = draw(messages())
        kind = draw(st.integers(0, 4))
        for i in range(draw(st.integers(1, 40))):
            number = b"%03d" % i
            if kind == 0:
                run.append((subject_, reply, header_len, body))
            elif kind == 1:
                run.append((subject_, b"_INBOX.x." + number, header_len, body))
            elif kind == 2:
                run.append((subject_ + number, reply, header_len, body))
            elif kind == 3:
                run.append((subject_ + number, b"_INBOX." + number, header_len, body))
            else:
                run.append((subject_, reply, 0, body[: i % (len(body) + 1)]))
    return run


@settings(max_examples=EXAMPLES, deadline=None)
@given(runs(), st.binary(max_size=8))
def test_parse_gives_what_was_encoded_and_stops_at_the_rest(run: list[Message], rest: bytes) -> None:
    prefix = b"PING\r\n"
    encoded = prefix + b"".join(map(encode, run))
    parsed = parse(encoded + b"SUB a 1\r\n" + rest, len(prefix))
    assert decoded(parsed) == run
    assert parsed.pos == len(encoded)
    assert parsed.need == 0


@settings(max_examples=EXAMPLES, deadline=None)
@given(runs(), st.data())
def test_a_cut_anywhere_gives_whole_messages_and_the_bytes_needed(run: list[Message], data: st.DataObject) -> None:
    encoded = b"".join(map(encode, run))
    cut = data.draw(st.integers(0, len(encoded)))
    parsed = parse(encoded[:cut])
    whole, at = 0, 0
    while whole < len(run) and at + len(encode(run[whole])) <= cut:
        at += len(encode(run[whole]))
        whole += 1
    assert decoded(parsed) == run[:whole]
    assert parsed.pos == at
    if parsed.need:
        assert parsed.need == len(encode(run[whole]))
    else:
        assert encoded.find(b"\n", at, cut) < 0


@settings(max_examples=EXAMPLES * 3, deadline=None)
@given(runs(), st.data())
def test_damage_never_yields_a_message_that_is_not_there(run: list[Message], data: st.DataObject) -> None:
    """One changed byte: the messages taken must be exactly what a parser of one message at a time takes."""
    encoded = bytearray(b"".join(map(encode, run)))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] = data.draw(st.one_of(st.sampled_from(b" \t\r\n\x0b\x0c019PHU"), st.integers(0, 255)))
    buffer = bytes(encoded)
    parsed = parse(buffer)
    assert (decoded(parsed), parsed.pos) == one_by_one(buffer)


def one_by_one(buffer: bytes) -> tuple[list[Message], int]:
    """The specification: a message at a time, in the most obvious way."""
    found: list[Message] = []
    pos = 0
    while True:
        line_end = buffer.find(b"\n", pos)
        line = buffer[pos:line_end] if line_end >= 0 else b""
        if line_end < 0 or set(line) & {0x0B, 0x0C}:
            return found, pos
        args = line.replace(b"\t", b" ").replace(b"\r", b" ").split()
        sizes = 2 if args and args[0] == b"HPUB" else 1
        if not args or args[0] not in (b"PUB", b"HPUB") or not 1 <= len(args) - 1 - sizes <= 2:
            return found, pos
        if line[:1] in (b" ", b"\t", b"\r") or not all(arg.isdigit() and len(arg) <= 9 for arg in args[-sizes:]):
            return found, pos
        size, header_len = int(args[-1]), int(args[-2]) if sizes == 2 else 0
        stop = line_end + 1 + size
        if header_len > size or size > MAX_PAYLOAD or buffer[stop : stop + 2] != b"\r\n":
            return found, pos
        reply = args[2] if len(args) - 1 - sizes == 2 else b""
        found.append((args[1], reply, header_len, buffer[line_end + 1 : stop]))
        pos = stop + 2


@pytest.mark.parametrize(
    "line",
    [
        b"PING\r\n",
        b"pub a 1\r\nx\r\n",
        b"PUB a\r\n",
        b"PUB a b c 1\r\nx\r\n",
        b"PUB a -1\r\n",
        b"PUB a +1\r\nx\r\n",
        b"PUB a 1_0\r\n0123456789\r\n",
        b"PUB a 0000000001\r\nx\r\n",
        b"PUB a 1\r\nx\n\n",
        b"PUB a 1\r\nxyz",
        b"PUB a\x0bb 1\r\nx\r\n",
        b"PUB\na 1\r\nx\r\n" + b"PUB a 1\r\nx\r\n" * 20,
        b"HPUB a 2 1\r\nx\r\n",
        b"HPUB a b c 1 1\r\nx\r\n",
        b"HPUB a 1\r\nx\r\n",
        b"PUB a 2000000\r\nx",
        b"PUB " + b"a" * 4096 + b" 1\r\nx\r\n",
        b"PUB a 1",
        b"",
    ],
)
def test_the_unusual_is_left_for_the_state_machine(line: bytes) -> None:
    good = encode((b"a", b"", 0, b"x"))
    parsed = parse(good * 20 + line)
    assert decoded(parsed) == [(b"a", b"", 0, b"x")] * 20
    assert parsed.pos == 20 * len(good)
    assert parsed.need == 0


def test_headers_only_where_both_sides_have_them() -> None:
    buffer = encode((b"a", b"", 0, b"x")) + encode((b"a", b"", 1, b"x"))
    assert len(parse(buffer).payloads) == 2
    assert parse(buffer).header_lens == [0, 1]
    assert len(parse(buffer, headers=False).payloads) == 1
    assert parse(buffer, headers=False).header_lens == []


def test_max_payload_is_exact_in_every_gear() -> None:
    fits, above = encode((b"a", b"", 0, b"x" * 10)), encode((b"a", b"", 0, b"x" * 11))
    parsed = parse(fits * 30 + above, max_payload=10)
    assert len(parsed.payloads) == 30


def test_large_payloads_need_is_known_from_the_control_line() -> None:
    message = encode((b"a", b"b", 0, b"x" * 100_000))
    parsed = parse(message[:50_000])
    assert (parsed.payloads, parsed.need) == ([], len(message))
    assert parse(message).payloads == [b"x" * 100_000]


# -- formatting -------------------------------------------------------------------------------------------------------


def message_bytes(sid: bytes, subject_: bytes, reply: bytes, header_len: int, body: bytes) -> bytes:
    args = [subject_, sid, *([reply] if reply else []), *([b"%d" % header_len] if header_len else [])]
    args.append(b"%d" % len(body))
    return (b"HMSG " if header_len else b"MSG ") + b" ".join(args) + b"\r\n" + body + b"\r\n"


@settings(max_examples=EXAMPLES, deadline=None)
@given(runs(), st.sampled_from([b"1", b"a%d%b"]))
def test_format_messages(run: list[Message], sid: bytes) -> None:
    subjects, replies, header_lens, payloads = (list(column) for column in zip(*run, strict=True))
    expected = b"".join(message_bytes(sid, *message) for message in run)
    assert wire.format_messages(sid, subjects, replies, header_lens, payloads) == expected
    expected = b"".join(message_bytes(sid, s, b"", 0, p) for s, _, _, p in run)
    assert wire.format_messages(sid, subjects, (), (), payloads) == expected
    expected = b"".join(message_bytes(sid, s, b"", h, p) for s, _, h, p in run)
    assert wire.format_messages(sid, tuple(subjects), (), tuple(header_lens), tuple(payloads)) == expected


def test_strip_headers() -> None:
    assert wire.strip_headers([0, 2], [b"ab", b"cde"]) == [b"ab", b"e"]
    assert wire.strip_headers((), [b"ab"]) == [b"ab"]


@pytest.mark.parametrize("seqs", [[1], [9, 10], [7, 8, 9], [999, 1000], list(range(10_000, 10_050)), [3, 1, 2]])
@pytest.mark.parametrize("stream", [b"S", b"a%dstream", "größe".encode()])
def test_pub_acks(seqs: list[int], stream: bytes) -> None:
    replies = [b"_INBOX.%d" % seq for seq in seqs]
    expected = b"".join(
        message_bytes(b"7%", reply, b"", 0, b'{"stream":"' + stream + b'","seq":%d}' % seq)
        for reply, seq in zip(replies, seqs, strict=True)
    )
    assert wire.format_pub_acks(stream, replies, b"7%", seqs) == expected


def test_the_caches_are_bounded() -> None:
    for size in range(10_000):
        wire.size_of(b"%d" % size)
        wire.format_messages(b"1", [b"a", b"b"], (), (), [b"x" * (size % 6000), b""])
    assert len(wire._size_of) <= 4096
    assert len(wire._size_line) <= 4096
