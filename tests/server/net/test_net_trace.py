"""The protocol trace: the lines that nats-server 2.15.1 wrote for the same bytes, however they are cut."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from server.net.trace import WireTrace

SENT = (
    b'CONNECT {"verbose":true,"pass":"geheim","user":"u","auth_token":"tok"}\r\nPING\r\nSUB foo q 2\r\n'
    b"PUB foo bar 5\r\nhello\r\nHPUB foo 12 14\r\nNATS/1.0\r\n\r\nhi\r\nUNSUB 1 3\r\nPUB x 0\r\n\r\n"
)
SHOWN = [
    '<<- [CONNECT {"verbose":true,"pass":"[REDACTED]","user":"u","auth_token":"[REDACTED]"}]',
    "<<- [PING]",
    "<<- [SUB foo q 2]",
    "<<- [PUB foo bar 5]",
    '<<- MSG_PAYLOAD: ["hello"]',
    "<<- [HPUB foo 12 14]",
    '<<- MSG_PAYLOAD: ["NATS/1.0\\r\\n\\r\\nhi"]',
    "<<- [UNSUB 1 3]",
    "<<- [PUB x 0]",
    '<<- MSG_PAYLOAD: [""]',
]


@given(st.lists(st.integers(0, len(SENT)), max_size=12))
def test_any_cut_gives_the_same_lines(cuts: list[int]) -> None:
    lines: list[str] = []
    trace = WireTrace("<<-", lines.append)
    edges = [0, *sorted(cuts), len(SENT)]
    for start, end in pairwise(edges):
        trace.feed(SENT[start:end])
    assert lines == SHOWN


def test_answers() -> None:
    lines: list[str] = []
    WireTrace("->>", lines.append).feed(b"+OK\r\nMSG foo 1 bar 5\r\nhello\r\n-ERR 'Unknown Protocol Operation'\r\n")
    assert lines == [
        "->> [OK]",
        "->> [MSG foo 1 bar 5]",
        '->> MSG_PAYLOAD: ["hello"]',
        "->> [-ERR Unknown Protocol Operation]",
    ]


@given(st.binary(max_size=400))
def test_garbage_is_shown_and_does_no_harm(data: bytes) -> None:
    WireTrace("<<-", lambda text: None).feed(data + b"\r\nPUB a " + b"9" * 5000 + b"\r\n")
