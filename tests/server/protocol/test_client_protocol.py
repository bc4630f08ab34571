"""The client protocol machine: a table of exchanges, then chunking and garbage."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.protocol.client import LEGAL, ClientProtocol, Later, ProtocolOptions, State
from server.protocol.connect import ConnectOptions
from server.protocol.events import Closing, Connected, Event, Publishes, Subscribe, Unsubscribe
from server.protocol.lines import Op, UnknownOperation, operation
from server.protocol.reasons import CloseReason

EXAMPLES = int(os.environ.get("JETSTORE_EXAMPLES", "60"))
QUIET = b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1}\r\n'
INFO2 = b"INFO {second} \r\n"


class Peer:
    """A machine with an owner that accepts every event, and a transcript of both in order."""

    def __init__(self, options: ProtocolOptions | None = None, password: str = "") -> None:
        self.out = bytearray()
        self.events: list[Event] = []
        self.password = password
        self.machine = ClientProtocol(
            options or ProtocolOptions(), self.out.extend, self._authenticate, lambda _: INFO2, now_s=0.0
        )

    def _authenticate(self, connect: ConnectOptions) -> object | None:
        return "somebody" if connect.password == self.password else None

    def feed(self, *chunks: bytes) -> Peer:
        for chunk in chunks:
            self.machine.receive(chunk, 0.0)
            while (event := self.machine.next_event()) is not None:
                self.events.append(event)
                if isinstance(event, Subscribe | Unsubscribe):
                    self.machine.accept()
                elif isinstance(event, Publishes):
                    for _ in event.payloads:
                        self.machine.accept()
        return self

    @property
    def closed(self) -> CloseReason | None:
        last = self.events[-1] if self.events else None
        return last.reason if isinstance(last, Closing) else None

    def messages(self) -> list[tuple[bytes, bytes, int, bytes]]:
        found = []
        for event in self.events:
            if isinstance(event, Publishes):
                header_lens = event.header_lens or [0] * len(event.payloads)
                found += zip(event.subjects, event.replies, header_lens, event.payloads, strict=True)
        return found


def transcript(events: Sequence[Event]) -> list[object]:
    """Events with runs of messages taken apart: how they are cut depends on chunking, what they say does not."""
    flat: list[object] = []
    for event in events:
        if isinstance(event, Publishes):
            header_lens = event.header_lens or [0] * len(event.payloads)
            flat += zip(event.subjects, event.replies, header_lens, event.payloads, strict=True)
        else:
            flat.append(event)
    return flat


ANSWERS: list[tuple[str, bytes, bytes, CloseReason | None]] = [
    # what, input, output, how it closes
    ("connect and ping", QUIET + b"PING\r\n", b"PONG\r\n" + INFO2, None),
    ("second INFO only once", QUIET + b"PING\r\nPING\r\n", b"PONG\r\n" + INFO2 + b"PONG\r\n", None),
    ("no second INFO without CONNECT", b"PING\r\n", b"PONG\r\n", None),
    ("no second INFO for protocol 0", b'CONNECT {"verbose":false}\r\nPING\r\n', b"PONG\r\n", None),
    ("bare LF", b"PING\n", b"PONG\r\n", None),
    ("verbose is the default", b"CONNECT {}\r\nPUB a 1\r\nx\r\nPING\r\n", b"+OK\r\n+OK\r\nPONG\r\n", None),
    ("verbose without CONNECT", b"SUB a 1\r\nUNSUB 1\r\n", b"+OK\r\n+OK\r\n", None),
    ("junk after PING", b"PINGxyz\r\nPING x\r\n", b"PONG\r\nPONG\r\n", None),
    ("any case", b"ping\r\nsub foo 1\r\nPuB a 1\r\nx\r\n", b"PONG\r\n+OK\r\n+OK\r\n", None),
    ("+OK, PONG and INFO are ignored", b"+OK\r\n+OKxx\r\nPONG\r\nINFO {}\r\nPING\r\n", b"PONG\r\n", None),
    ("-ERR from a client", b"-ERR 'x'\r\nPING\r\n", b"", CloseReason.CLIENT_CLOSED),
    ("bad subjects are the owner's business", b"SUB a..b 1\r\nSUB foo.>.b 2\r\n", b"+OK\r\n" * 2, None),
    ("literal look-alikes", b"SUB a* 1\r\nSUB foo.>x 2\r\nSUB a.b*c 3\r\n", b"+OK\r\n" * 3, None),
    ("pedantic", b"PUB a.* 1\r\nx\r\nPUB a..b 1\r\nx\r\n", b"-ERR 'Invalid Publish Subject'\r\n+OK\r\n" * 2, None),
    ("not pedantic", QUIET + b"PUB a.* 1\r\nx\r\nPUB a..b 1\r\nx\r\n", b"", None),
    ("unknown", b"FOO\r\n", b"-ERR 'Unknown Protocol Operation'\r\n", CloseReason.PARSE_ERROR),
    ("unknown at the first byte", b"X", b"-ERR 'Unknown Protocol Operation'\r\n", CloseReason.PARSE_ERROR),
    ("empty line", b"\r\n", b"-ERR 'Unknown Protocol Operation'\r\n", CloseReason.PARSE_ERROR),
    ("leading blank", b" PING\r\n", b"-ERR 'Unknown Protocol Operation'\r\n", CloseReason.PARSE_ERROR),
    (
        "leading blank of a PUB",
        QUIET + b" PUB a 0\r\n",
        b"-ERR 'Unknown Protocol Operation'\r\n",
        CloseReason.PARSE_ERROR,
    ),
    ("MSG to a server", b"MSG a 1 1\r\nx\r\n", b"-ERR 'Unknown Protocol Operation'\r\n", CloseReason.PARSE_ERROR),
    ("op without blank", b"PUB\r\n", b"-ERR 'Unknown Protocol Operation'\r\n", CloseReason.PARSE_ERROR),
    ("op too long", b"SUBX a 1\r\n", b"-ERR 'Unknown Protocol Operation'\r\n", CloseReason.PARSE_ERROR),
    ("no CR LF after payload", b"PUB a 1\r\nx\n\n", b"-ERR 'Unknown Protocol Operation'\r\n", CloseReason.PARSE_ERROR),
    ("payload too long", QUIET + b"PUB a 1\r\nxyz", b"-ERR 'Unknown Protocol Operation'\r\n", CloseReason.PARSE_ERROR),
    ("PUB without size", b"PUB a\r\n", b"", CloseReason.PARSE_ERROR),
    ("PUB with too much", b"PUB a b c 1\r\n", b"", CloseReason.PARSE_ERROR),
    ("PUB with nothing", b"PUB \r\n", b"", CloseReason.PARSE_ERROR),
    ("negative size", b"PUB a -1\r\n", b"", CloseReason.PARSE_ERROR),
    ("signed size", b"PUB a +1\r\nx\r\n", b"", CloseReason.PARSE_ERROR),
    ("no number", QUIET + b"PUB a x\r\n", b"", CloseReason.PARSE_ERROR),
    ("ten digits", QUIET + b"PUB a 0000000001\r\nx\r\n", b"", CloseReason.PARSE_ERROR),
    ("nine digits", QUIET + b"PUB a 000000001\r\nx\r\nPING\r\n", b"PONG\r\n" + INFO2, None),
    ("SUB arguments", b"SUB a\r\n", b"", CloseReason.PARSE_ERROR),
    ("SUB arguments, too many", b"SUB a b c d\r\n", b"", CloseReason.PARSE_ERROR),
    ("UNSUB arguments", b"UNSUB 1 2 3\r\n", b"", CloseReason.PARSE_ERROR),
    ("UNSUB with no number", b"UNSUB 1 x\r\n", b"+OK\r\n", None),
    ("HPUB without headers", b"HPUB a 0 0\r\n\r\n", b"", CloseReason.MESSAGE_HEADER_VIOLATION),
    ("HPUB header longer than all", QUIET + b"HPUB a 5 1\r\n", b"", CloseReason.PARSE_ERROR),
    ("bad JSON", b"CONNECT {bad\r\n", b"", CloseReason.PARSE_ERROR),
    ("no JSON", b"CONNECT\r\n", b"", CloseReason.PARSE_ERROR),
    ("JSON that is no object", b"CONNECT []\r\n", b"", CloseReason.PARSE_ERROR),
    ("wrong type", b'CONNECT {"verbose":"x"}\r\n', b"", CloseReason.PARSE_ERROR),
    ("number for bool", b'CONNECT {"verbose":0}\r\n', b"", CloseReason.PARSE_ERROR),
    ("bool for number", b'CONNECT {"protocol":true}\r\n', b"", CloseReason.PARSE_ERROR),
    ("NaN", b'CONNECT {"x":NaN}\r\n', b"", CloseReason.PARSE_ERROR),
    ("null object and fields", b'CONNECT null\r\nCONNECT {"verbose":null}\r\n', b"+OK\r\n+OK\r\n", None),
    ("names in any case", b'CONNECT {"Verbose":false}\r\nPING\r\n', b"PONG\r\n", None),
    ("last of two wins", b'CONNECT {"verbose":true,"verbose":false}\r\nPING\r\n', b"PONG\r\n", None),
    ("no blank", b'CONNECT{"verbose":false}\r\nPING\r\n', b"PONG\r\n", None),
    (
        "protocol 2",
        b'CONNECT {"protocol":2}\r\n',
        b"-ERR 'invalid client protocol'\r\n",
        CloseReason.BAD_CLIENT_PROTOCOL_VERSION,
    ),
    (
        "no_responders without headers",
        b'CONNECT {"headers":false,"no_responders":true}\r\n',
        b"-ERR 'no responders requires headers support'\r\n",
        CloseReason.NO_RESPONDERS_REQUIRES_HEADERS,
    ),
    (
        "account",
        b'CONNECT {"account":"x"}\r\n',
        b"-ERR 'Authorization Violation'\r\n",
        CloseReason.AUTHENTICATION_FAILURE,
    ),
    (
        "max_payload + 1",
        QUIET + b"PUB a 1048577\r\n",
        b"-ERR 'Maximum Payload Violation'\r\n",
        CloseReason.MAXIMUM_PAYLOAD_EXCEEDED,
    ),
    ("control line 4096", b"CONNECT {}\r\nPUB " + b"a" * 4094 + b" 1\r\nx\r\n", b"+OK\r\n+OK\r\n", None),
    (
        "control line 4097",
        b"CONNECT {}\r\nPUB " + b"a" * 4095 + b" 1\r\n",
        b"+OK\r\n-ERR 'maximum control line exceeded'\r\n",
        CloseReason.MAXIMUM_CONTROL_LINE_EXCEEDED,
    ),
    (
        "control line 4097 of a quiet client",
        QUIET + b"PUB " + b"a" * 4095 + b" 1\r\nx\r\n",
        b"-ERR 'maximum control line exceeded'\r\n",
        CloseReason.MAXIMUM_CONTROL_LINE_EXCEEDED,
    ),
    (
        "unfinished control line",
        b"SUB " + b"a" * 4097,
        b"-ERR 'maximum control line exceeded'\r\n",
        CloseReason.MAXIMUM_CONTROL_LINE_EXCEEDED,
    ),
    ("unfinished, not yet too long", b"SUB " + b"a" * 4096, b"", None),
    ("blanks do not count", QUIET + b"PUB" + b" " * 5000 + b"a 1\r\nx\r\nPING\r\n", b"PONG\r\n" + INFO2, None),
]
IDS = [row[0] for row in ANSWERS]


@pytest.mark.parametrize(("what", "given", "output", "closes"), ANSWERS, ids=IDS)
def test_answers(what: str, given: bytes, output: bytes, closes: CloseReason | None) -> None:
    peer = Peer().feed(given)
    assert bytes(peer.out) == output, what
    assert peer.closed is closes


@pytest.mark.parametrize(("what", "given", "output", "closes"), ANSWERS, ids=IDS)
def test_answers_byte_by_byte(what: str, given: bytes, output: bytes, closes: CloseReason | None) -> None:
    peer = Peer().feed(*(given[i : i + 1] for i in range(len(given))))
    assert bytes(peer.out) == output, what
    assert peer.closed is closes
    assert transcript(peer.events) == transcript(Peer().feed(given).events)


@pytest.mark.parametrize("verbose", [True, False])
def test_messages_in_every_spelling(verbose: bool) -> None:
    peer = Peer().feed(b"CONNECT {}\r\n" if verbose else QUIET)
    peer = peer.feed(b'CONNECT {"headers":true}\r\n' if verbose else b"")
    peer.feed(
        b"PUB a 0\r\n\r\n",
        b"PUB a.b r.1 5\r\nhello\r\n",
        b"pub\ta\t \tr  5  \r\nPUB a\r\n",
        b"PUB a 13\nPUB a 1\r\nx\r\n\r\r\n",
        b"HPUB a 12 14\r\nNATS/1.0\r\n\r\nhi\r\n",
        b"HPUB a r 12 12\r\nNATS/1.0\r\n\r\n\r\n",
        b"PUB a\x0bb 1\r\nx\r\n",
    )
    assert peer.messages() == [
        (b"a", b"", 0, b""),
        (b"a.b", b"r.1", 0, b"hello"),
        (b"a", b"r", 0, b"PUB a"),
        (b"a", b"", 0, b"PUB a 1\r\nx\r\n\r"),
        (b"a", b"", 12, b"NATS/1.0\r\n\r\nhi"),
        (b"a", b"r", 12, b"NATS/1.0\r\n\r\n"),
        (b"a\x0bb", b"", 0, b"x"),
    ]


def test_subscriptions() -> None:
    peer = Peer().feed(QUIET + b"SUB a.* 1\r\nSUB\tb.>  q \t s-2 \r\nUNSUB 1 5\r\nUNSUB s-2\r\nUNSUB 3 -1\r\n")
    assert peer.events[1:] == [
        Subscribe(b"a.*", b"", b"1"),
        Subscribe(b"b.>", b"q", b"s-2"),
        Unsubscribe(b"1", 5),
        Unsubscribe(b"s-2", 0),
        Unsubscribe(b"3", 0),
    ]


def test_connect_options_arrive() -> None:
    peer = Peer(password="geheim")
    peer.feed('CONNECT {"user":"é","pass":"geheim","name":"n\\ud800","lang":"go","echo":false,"x":[1]}\r\n'.encode())
    (event,) = peer.events
    assert isinstance(event, Connected)
    assert event.user == "somebody"
    assert (event.options.user, event.options.name, event.options.echo) == ("é", "n?", False)


# -- authentication and time ------------------------------------------------------------------------------------------

LOCKED = ProtocolOptions(auth_required=True)


@pytest.mark.parametrize(
    "given", [b"PING\r\n", b"P", b"SUB a 1\r\n", b'CONNECT {"pass":"wrong"}\r\n', b"CONNECT {}\r\n"]
)
def test_nothing_before_a_right_connect(given: bytes) -> None:
    peer = Peer(LOCKED, "right").feed(given)
    assert bytes(peer.out) == b"-ERR 'Authorization Violation'\r\n"
    assert peer.closed is CloseReason.AUTHENTICATION_FAILURE


def test_a_right_connect_opens() -> None:
    peer = Peer(LOCKED, "right").feed(b"C", b'ONNECT {"pass":"right"}\r\nPING\r\n')
    assert bytes(peer.out) == b"+OK\r\nPONG\r\n"
    assert peer.machine.auth_timer_fired() is None


def test_authentication_timeout() -> None:
    peer = Peer(LOCKED, "right").feed(b"CONN")
    assert peer.machine.auth_timer_fired() == Closing(CloseReason.AUTHENTICATION_TIMEOUT)
    assert bytes(peer.out) == b"-ERR 'Authentication Timeout'\r\n"
    assert peer.feed(b'ECT {"pass":"right"}\r\n').events == []


def test_stale_after_two_pings_without_pong() -> None:
    peer = Peer(ProtocolOptions(ping_interval_s=1.0, ping_max=2))
    assert peer.machine.keepalive.first_delay_s(0.0) == 1.0
    assert peer.machine.ping_timer_fired(1.0) is None
    assert peer.machine.ping_timer_fired(2.0) is None
    assert bytes(peer.out) == b"PING\r\nPING\r\n"
    assert peer.machine.ping_timer_fired(3.0) == Closing(CloseReason.STALE_CONNECTION)
    assert bytes(peer.out) == b"PING\r\nPING\r\n-ERR 'Stale Connection'\r\n"
    assert peer.machine.ping_timer_fired(4.0) is None


def test_activity_spares_the_ping_and_pong_resets_the_count() -> None:
    peer = Peer(ProtocolOptions(ping_interval_s=10.0))
    assert peer.machine.keepalive.first_delay_s(0.5) == pytest.approx(2.2)
    peer.machine.ping_timer_fired(2.0)
    peer.machine.receive(b"PONG\r\n", 2.25)
    assert peer.machine.next_event() is None
    assert peer.machine.keepalive.rtt_s == 0.25
    peer.machine.ping_timer_fired(12.0)
    assert bytes(peer.out) == b"PING\r\n"
    peer.machine.ping_timer_fired(22.3)
    assert bytes(peer.out) == b"PING\r\nPING\r\n"
    peer.machine.receive(b"PING\r\n", 4000.0)
    peer.machine.next_event()
    assert peer.machine.keepalive.unanswered == 1
    peer.machine.ping_timer_fired(4001.0)
    assert bytes(peer.out).endswith(b"PONG\r\nPING\r\n"), "a busy client is pinged hourly for its round trip"


# -- chunking, garbage, memory ----------------------------------------------------------------------------------------

subjects = st.sampled_from([b"a", b"a.b", b"a.*", b"a..b", b"_INBOX.x.1", b"$JS.ACK.s.c.1"])
bodies = st.one_of(st.binary(max_size=30), st.sampled_from([b"PING\r\n", b"\r\n", b"x" * 128]))


@st.composite
def operations(draw: st.DrawFn) -> bytes:
    kind = draw(st.integers(0, 11))
    subject, body = draw(subjects), draw(bodies)
    if kind < 4:
        reply = draw(st.sampled_from([b"", b"r.1 ", b"_INBOX.abc.12 "]))
        one = b"PUB %b %b%d\r\n%b\r\n" % (subject, reply, len(body), body)
        return one * draw(st.integers(1, 30))
    if kind == 4:
        header_len = draw(st.integers(0, len(body)))
        return b"HPUB %b %d %d\r\n%b\r\n" % (subject, header_len, len(body), body)
    return draw(
        st.sampled_from(
            [
                b"PING\r\n",
                b"PONG\n",
                b"SUB a.* 1\r\n",
                b"UNSUB 1 3\r\n",
                b'CONNECT {"headers":true}\r\n',
                QUIET,
                b"pub a\t1\r\nx\r\n",
            ]
        )
    )


streams = st.lists(operations(), max_size=8).map(b"".join)


def chunks(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return [stream[a:b] for a, b in pairwise(edges)]


@settings(max_examples=EXAMPLES * 2, deadline=None)
@given(st.sampled_from([b"", QUIET]), streams, st.lists(st.integers(0, 10_000), max_size=12))
def test_any_chunking_gives_the_same(connect: bytes, stream: bytes, cuts: list[int]) -> None:
    stream = connect + stream
    whole, cut = Peer().feed(stream), Peer().feed(*chunks(stream, cuts))
    assert transcript(cut.events) == transcript(whole.events)
    assert cut.out == whole.out
    if len(stream) < 600:
        single = Peer().feed(*(stream[i : i + 1] for i in range(len(stream))))
        assert transcript(single.events) == transcript(whole.events)
        assert single.out == whole.out


@settings(max_examples=EXAMPLES * 2, deadline=None)
@given(streams, st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=3)), max_size=4), st.integers(0, 10_000))
def test_garbage_ends_in_the_same_way_however_it_is_cut(
    stream: bytes, damage: list[tuple[int, bytes]], cut: int
) -> None:
    damaged = bytearray(QUIET + stream)
    for at, junk in damage:
        at = len(QUIET) + at % (len(stream) + 1)
        damaged[at : at + len(junk)] = junk
    whole, parts = Peer().feed(bytes(damaged)), Peer().feed(*chunks(bytes(damaged), [cut]))
    assert transcript(whole.events) == transcript(parts.events)
    assert whole.out == parts.out
    # After the end nothing is heard any more.
    if whole.closed:
        before = len(whole.out)
        whole.feed(b"PING\r\n")
        assert len(whole.out) == before


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.binary(max_size=12), st.binary(max_size=6))
def test_what_a_beginning_says_holds_for_the_line(line: bytes, more: bytes) -> None:
    def of(text: bytes) -> Op | str | None:
        try:
            return operation(text)
        except UnknownOperation:
            return "unknown"

    if of(line) is not None:
        assert of(line + more) == of(line)


def test_a_message_in_many_reads_is_joined_once() -> None:
    """Large payloads in small chunks: the buffer grows only when the message is complete."""
    peer = Peer().feed(QUIET, b"PUB big 1000000\r\n")
    for _ in range(100):
        peer.feed(b"x" * 10_000)
        assert len(peer.machine._buffer) < 20
    peer.feed(b"\r\nPING\r\n")
    assert peer.messages() == [(b"big", b"", 0, b"x" * 1_000_000)]
    assert bytes(peer.out) == b"PONG\r\n" + INFO2


@pytest.mark.parametrize("endless", [b"PING", b"+OK", b"PUB ", b"CONNECT ", b"SUB \t"])
def test_endless_lines_do_not_fill_memory(endless: bytes) -> None:
    peer = Peer().feed(endless)
    for _ in range(50):
        peer.feed(b" " * 4000)
    assert peer.closed is None
    assert len(peer.machine._buffer) + peer.machine._ahead_bytes < 10_000


def test_every_state_has_its_row() -> None:
    assert set(LEGAL) == set(State)
    assert LEGAL[State.CLOSED] == frozenset()
    assert LEGAL[State.AWAITING_CONNECT] == {Op.CONNECT}


def test_input_waits_while_credentials_are_looked_at() -> None:
    out = bytearray()
    machine = ClientProtocol(
        ProtocolOptions(auth_required=True), out.extend, lambda _: Later.LATER, lambda _: INFO2, now_s=0.0
    )
    machine.receive(b'CONNECT {"verbose":true}\r\nPING\r\n', 0.0)
    assert machine.next_event() is None
    assert machine.is_verifying
    assert machine.next_event() is None
    assert not out
    assert isinstance(machine.authenticated("joe"), Connected)
    assert machine.next_event() is None
    assert out == b"+OK\r\nPONG\r\n"
    assert machine.authenticated("again") is None


def test_credentials_that_turn_out_wrong_or_too_late() -> None:
    out = bytearray()
    options = ProtocolOptions(auth_required=True)
    machine = ClientProtocol(options, out.extend, lambda _: Later.LATER, lambda _: INFO2, now_s=0.0)
    machine.receive(b"CONNECT {}\r\nPING\r\n", 0.0)
    assert machine.next_event() is None
    assert isinstance(machine.authenticated(None), Closing)
    assert out == b"-ERR 'Authorization Violation'\r\n"

    machine = ClientProtocol(options, out.extend, lambda _: Later.LATER, lambda _: INFO2, now_s=0.0)
    machine.receive(b"CONNECT {}\r\n", 0.0)
    assert machine.next_event() is None
    assert machine.auth_timer_fired() == Closing(CloseReason.AUTHENTICATION_TIMEOUT)
    assert machine.authenticated("joe") is None
