"""The router with connections that only collect: who gets what, in which order, as which bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import pytest
from route_fakes import FakeSink

from jetstore.node.ports import Inbound
from server.auth.permissions import Permissions
from server.route.router import Router


class Recorder:
    """An internal subscriber that keeps what it got."""

    def __init__(self, log: list[tuple[str, bytes]] | None = None, name: str = "") -> None:
        self.batches: list[Inbound] = []
        self.log = log if log is not None else []
        self.name = name

    def on_messages(self, batch: Inbound) -> None:
        self.batches.append(batch)
        self.log += [(self.name, payload) for payload in batch.payloads]


class Bench:
    """A router and a loop that runs by hand."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []
        self.router = Router("$G", Random(7), self.soon.append)
        self.client = FakeSink("client")

    def run_soon(self) -> None:
        soon, self.soon[:] = list(self.soon), []
        for callback in soon:
            callback()

    def subscribe(
        self, subject: bytes, queue: bytes = b"", sid: bytes = b"1", sink: FakeSink | None = None
    ) -> FakeSink:
        sink = sink or FakeSink(subject.decode())
        self.router.subscribe_client(sink, subject, queue, sid)
        return sink

    def publish(self, *messages: tuple[bytes, ...], client: FakeSink | None = None) -> bool:
        """Each message: subject, payload and perhaps reply."""
        subjects, payloads = [m[0] for m in messages], [m[1] for m in messages]
        replies = [m[2] if len(m) > 2 else b"" for m in messages]
        return self.router.publish_from(client or self.client, subjects, replies, [], payloads)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_every_plain_subscription_gets_a_copy_in_order(bench: Bench) -> None:
    one, two = bench.subscribe(b"foo.*"), bench.subscribe(b"foo.>", sid=b"9")
    bench.publish((b"foo.a", b"1"), (b"foo.b", b"22", b"r"), (b"bar", b"3"), (b"foo.a", b"4"))
    assert one.out == b"MSG foo.a 1 1\r\n1\r\nMSG foo.b 1 r 2\r\n22\r\nMSG foo.a 1 1\r\n4\r\n"
    assert two.out == one.out.replace(b" 1 1\r\n", b" 9 1\r\n").replace(b" 1 r", b" 9 r")
    assert (one.out_msgs, one.out_bytes) == (3, 4)


def test_one_connection_sees_messages_of_all_its_subscriptions_in_publish_order(bench: Bench) -> None:
    sink = bench.subscribe(b"a", sid=b"1")
    bench.subscribe(b"b", sid=b"2", sink=sink)
    bench.publish((b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"b", b"4"))
    assert [line for line in sink.out.split(b"\r\n") if len(line) == 1] == [b"1", b"2", b"3", b"4"]


def test_headers_are_stripped_for_whoever_does_not_know_them(bench: Bench) -> None:
    knows, not_ = bench.subscribe(b"a"), bench.subscribe(b"a")
    not_.headers = False
    bench.router.publish_from(bench.client, [b"a", b"a"], [b"", b""], [12, 0], [b"NATS/1.0\r\n\r\nhi", b"x"])
    assert knows.out == b"HMSG a 1 12 14\r\nNATS/1.0\r\n\r\nhi\r\nMSG a 1 1\r\nx\r\n"
    assert not_.out == b"MSG a 1 2\r\nhi\r\nMSG a 1 1\r\nx\r\n"


def test_echo_false_keeps_own_messages_away(bench: Bench) -> None:
    bench.client.echo = False
    bench.subscribe(b"a", sink=bench.client)
    other = bench.subscribe(b"a")
    bench.publish((b"a", b"x"))
    assert bench.client.out == b""
    assert other.out == b"MSG a 1 1\r\nx\r\n"


def test_a_queue_group_gets_one_copy_spread_evenly(bench: Bench) -> None:
    sinks = [bench.subscribe(pattern, b"q") for pattern in (b"foo.>", b"foo.*", b"foo.x", b"*.x", b">")]
    for _ in range(10):
        bench.publish(*[(b"foo.x", b"m")] * 200)
    counts = [sink.out_msgs for sink in sinks]
    assert sum(counts) == 2000
    assert min(counts) > 300, counts
    bench.publish(*[(b"foo.x", b"m")])
    assert sum(sink.out_msgs for sink in sinks) == 2001


def test_queue_groups_of_two_names_and_plain_all_get_it(bench: Bench) -> None:
    sinks = [bench.subscribe(b"a", b"q"), bench.subscribe(b"a", b"r"), bench.subscribe(b"a")]
    bench.publish((b"a", b"x"))
    assert [sink.out_msgs for sink in sinks] == [1, 1, 1]


def test_a_queue_member_that_cannot_take_it_is_skipped(bench: Bench) -> None:
    bench.client.echo = False
    bench.subscribe(b"a", b"q", sink=bench.client)
    other = bench.subscribe(b"a", b"q")
    for _ in range(20):
        bench.publish((b"a", b"x"))
    assert other.out_msgs == 20
    assert bench.client.out_msgs == 0


def test_messages_to_a_queue_keep_their_order_per_member(bench: Bench) -> None:
    sinks = [bench.subscribe(b"a", b"q") for _ in range(3)]
    bench.publish(*[(b"a", b"%03d" % i) for i in range(300)])
    got = [sink.out.split(b"\r\n")[1::2] for sink in sinks]
    assert all(part == sorted(part) for part in got)
    assert sorted(b for part in got for b in part) == [b"%03d" % i for i in range(300)]


def test_the_same_seed_makes_the_same_choices() -> None:
    outs = []
    for _ in range(2):
        bench = Bench()
        sinks = [bench.subscribe(b"a", b"q") for _ in range(3)]
        bench.publish(*[(b"a", b"%d" % i) for i in range(50)])
        outs.append([sink.out for sink in sinks])
    assert outs[0] == outs[1]


def test_unsub_max_counts_from_the_subscription(bench: Bench) -> None:
    sink = bench.subscribe(b"a")
    bench.publish((b"a", b"1"), (b"a", b"2"))
    subscription = sink.subscriptions[b"1"]
    bench.router.limit(subscription, 3)
    bench.publish((b"a", b"3"), (b"a", b"4"))
    assert sink.out_msgs == 3
    assert sink.subscriptions == {}
    assert len(bench.router.sublist) == 0


def test_unsub_max_already_reached_ends_it_now(bench: Bench) -> None:
    sink = bench.subscribe(b"a")
    bench.publish((b"a", b"1"), (b"a", b"2"))
    bench.router.limit(sink.subscriptions[b"1"], 2)
    assert sink.subscriptions == {}
    bench.publish((b"a", b"3"))
    assert sink.out_msgs == 2


def test_queue_members_with_a_limit_hand_over(bench: Bench) -> None:
    limited, other = bench.subscribe(b"a", b"q"), bench.subscribe(b"a", b"q")
    bench.router.limit(limited.subscriptions[b"1"], 5)
    bench.publish(*[(b"a", b"x")] * 100)
    assert (limited.out_msgs, other.out_msgs) == (5, 95)


# -- no responders ----------------------------------------------------------------------------------------------------


def status(reply: bytes, sid: bytes, subject: bytes) -> bytes:
    size = 32 + len(subject)
    return b"HMSG %b %b %d %d\r\nNATS/1.0 503\r\nNats-Subject: %b\r\n\r\n\r\n" % (reply, sid, size, size, subject)


def test_no_responders_exact_bytes_in_order(bench: Bench) -> None:
    client = bench.client
    client.no_responders = True
    bench.subscribe(b"_INBOX.x.*", sid=b"7", sink=client)
    bench.subscribe(b"own", sid=b"8", sink=client)
    bench.publish((b"nobody", b"1", b"_INBOX.x.1"), (b"own", b"2", b"_INBOX.x.2"), (b"no.one", b"3", b"_INBOX.x.3"))
    own = b"MSG own 8 _INBOX.x.2 1\r\n2\r\n"
    assert client.out == status(b"_INBOX.x.1", b"7", b"nobody") + own + status(b"_INBOX.x.3", b"7", b"no.one")


def test_no_responders_only_if_asked_for_and_the_reply_is_subscribed(bench: Bench) -> None:
    bench.subscribe(b"r", sink=bench.client)
    bench.publish((b"nobody", b"1", b"r"))
    bench.client.no_responders = True
    bench.publish((b"nobody", b"1"), (b"nobody", b"1", b"elsewhere"))
    assert bench.client.out == b""


def test_echo_false_and_handlers_count_as_they_should(bench: Bench) -> None:
    client = bench.client
    client.no_responders, client.echo = True, False
    bench.subscribe(b"r", sid=b"1", sink=client)
    bench.subscribe(b"a", sid=b"2", sink=client)
    bench.publish((b"a", b"x", b"r"))
    assert client.take() == status(b"r", b"1", b"a")
    bench.router.subscribe(b"a", Recorder())
    bench.publish((b"a", b"x", b"r"))
    assert client.take() == b""


def test_what_is_above_a_limit_has_no_responder(bench: Bench) -> None:
    client = bench.client
    client.no_responders = True
    bench.subscribe(b"r", sink=client)
    limited = bench.subscribe(b"a")
    bench.router.limit(limited.subscriptions[b"1"], 2)
    bench.publish(*[(b"a", b"x", b"r")] * 3)
    assert limited.out_msgs == 2
    assert client.out == status(b"r", b"1", b"a")


# -- reserved subjects and permissions --------------------------------------------------------------------------------


@pytest.mark.parametrize("subject", [b"$NRG.x", b"_GR_.x", b"$GR.x"])
def test_reserved_subjects_are_refused(bench: Bench, subject: bytes) -> None:
    everything = bench.subscribe(b">")
    bench.publish((b"a", b"1"), (subject, b"2"), (b"b", b"3"))
    assert bench.client.out == b"-ERR 'Permissions Violation for Publish to \"%b\"'\r\n" % subject
    assert everything.out == b"MSG a 1 1\r\n1\r\nMSG b 1 1\r\n3\r\n"


@pytest.mark.parametrize("reply", [b"$JS.ACK.a.b", b"_R_.x", b"_GR_.x", b"$GR.x"])
def test_reserved_replies_are_refused(bench: Bench, reply: bytes) -> None:
    everything = bench.subscribe(b">")
    bench.publish((b"a", b"1", b"r.1"), (b"a", b"2", reply), (b"a", b"3", b"r.2"))
    assert bench.client.out == b"-ERR 'Permissions Violation for Publish with Reply of \"%b\"'\r\n" % reply
    assert everything.out == b"MSG a 1 r.1 1\r\n1\r\nMSG a 1 r.2 1\r\n3\r\n"


def test_acknowledgements_may_be_published_to_and_look_alikes_are_fine(bench: Bench) -> None:
    handler = Recorder()
    bench.router.subscribe(b"$JS.ACK.>", handler)
    bench.publish((b"$JS.ACK.S.C.1", b""), (b"$JS.ACKx", b"", b"$JS.ACKx"), (b"_R_.x", b""))
    assert bench.client.out == b""
    assert len(handler.batches) == 1


def test_verbose_ok_comes_before_the_message_and_not_for_refused_ones(bench: Bench) -> None:
    bench.client.verbose = True
    bench.subscribe(b">", sink=bench.client)
    bench.publish((b"a", b"1"))
    bench.publish((b"a", b"1", b"$JS.ACK.x"))
    error = b"-ERR 'Permissions Violation for Publish with Reply of \"$JS.ACK.x\"'\r\n"
    assert bench.client.out == b"+OK\r\nMSG a 1 1\r\n1\r\n" + error


def test_publish_permissions(bench: Bench) -> None:
    bench.client.permits = Permissions(publish_allow=["ok.>"], publish_deny=["ok.not"])
    everything = bench.subscribe(b">")
    bench.publish((b"ok.1", b"1"), (b"ok.not", b"2"), (b"x", b"3"), (b"ok.2", b"4"))
    assert everything.out == b"MSG ok.1 1 1\r\n1\r\nMSG ok.2 1 1\r\n4\r\n"
    assert bench.client.out.count(b"-ERR 'Permissions Violation for Publish to ") == 2


def test_a_wide_subscription_does_not_see_denied_subjects(bench: Bench) -> None:
    sink = bench.subscribe(b"foo.>")
    sink.permits = Permissions(subscribe_deny=["foo.secret"])
    bench.publish((b"foo.a", b"1"), (b"foo.secret", b"2"), (b"foo.b", b"3"))
    assert sink.out == b"MSG foo.a 1 1\r\n1\r\nMSG foo.b 1 1\r\n3\r\n"


def test_a_message_nobody_may_see_has_no_responder_but_the_next_one_has(bench: Bench) -> None:
    client = bench.client
    client.no_responders = True
    bench.subscribe(b"r", sink=client)
    sink = bench.subscribe(b"foo.>", b"q")
    sink.permits = Permissions(subscribe_deny=["foo.secret"])
    bench.publish((b"foo.secret", b"1", b"r"), (b"foo.a", b"2", b"r"))
    assert client.out == status(b"r", b"1", b"foo.secret")
    assert sink.out == b"MSG foo.a 1 r 1\r\n2\r\n"


# -- the engine's side ------------------------------------------------------------------------------------------------


def test_handlers_get_runs_in_publish_order(bench: Bench) -> None:
    log: list[tuple[str, bytes]] = []
    one, two = Recorder(log, "one"), Recorder(log, "two")
    bench.router.subscribe(b"one.>", one)
    bench.router.subscribe(b"two.*", two)
    bench.publish((b"one.a", b"1", b"r"), (b"one.b", b"2"), (b"two.a", b"3"), (b"one.a", b"4"))
    assert log == [("one", b"1"), ("one", b"2"), ("two", b"3"), ("one", b"4")]
    assert list(one.batches[0].subjects) == [b"one.a", b"one.b"]
    assert list(one.batches[0].replies) == [b"r", b""]
    assert one.batches[0].client is bench.client
    assert one.batches[0].account == "$G"


def test_a_run_of_unique_replies_is_one_call(bench: Bench) -> None:
    handler = Recorder()
    bench.router.subscribe(b"orders.*", handler)
    bench.publish(*[(b"orders.new", b"x", b"_INBOX.a.%d" % i) for i in range(500)])
    bench.publish(*[(b"orders.%d" % i, b"x", b"_INBOX.a.%d" % i) for i in range(500)])
    assert [len(batch.payloads) for batch in handler.batches] == [500, 500]


def test_core_subscribers_get_copies_of_what_handlers_get(bench: Bench) -> None:
    handler, sink = Recorder(), bench.subscribe(b"orders.>")
    bench.router.subscribe(b"orders.*", handler)
    bench.publish((b"orders.a", b"1"), (b"orders.b", b"2"))
    assert sink.out_msgs == 2
    assert len(handler.batches) == 1


def test_closed_handlers_get_nothing(bench: Bench) -> None:
    handler = Recorder()
    handle = bench.router.subscribe(b"a", handler)
    handle.close()
    handle.close()
    bench.publish((b"a", b"1"))
    assert handler.batches == []
    assert len(bench.router.sublist) == 0


def test_what_the_engine_publishes_reaches_handlers_later_and_in_order(bench: Bench) -> None:
    class Repeater(Recorder):
        def on_messages(self, batch: Inbound) -> None:
            super().on_messages(batch)
            if len(self.batches) < 3:
                bench.router.publish([b"a"], (), [b"again"])

    handler, sink = Repeater(), bench.subscribe(b"a")
    bench.router.subscribe(b"a", handler)
    bench.router.publish([b"a", b"a"], [], [b"1", b"2"], [b"", b"r"])
    assert sink.out == b"MSG a 1 1\r\n1\r\nMSG a 1 r 1\r\n2\r\n"
    assert handler.batches == []
    bench.run_soon()
    assert handler.log == [("", b"1"), ("", b"2")]
    assert handler.batches[0].client is None
    bench.run_soon()
    bench.run_soon()
    assert handler.log[2:] == [("", b"again"), ("", b"again")]
    assert not bench.soon


def test_a_handler_that_raises_does_not_lose_what_follows(bench: Bench) -> None:
    class Failing:
        def on_messages(self, batch: Inbound) -> None:
            raise RuntimeError("boom")

    handler = Recorder()
    bench.router.subscribe(b"bad", Failing())
    bench.router.subscribe(b"good", handler)
    bench.router.publish([b"bad"], (), [b""])
    bench.router.publish([b"good"], (), [b"x"])
    with pytest.raises(RuntimeError):
        bench.run_soon()
    bench.run_soon()
    assert handler.log == [("", b"x")]


def ack(reply: bytes, sid: bytes, stream: bytes, seq: int) -> bytes:
    body = b'{"stream":"%b","seq":%d}' % (stream, seq)
    return b"MSG %b %b %d\r\n%b\r\n" % (reply, sid, len(body), body)


def test_pub_acks_to_one_inbox(bench: Bench) -> None:
    sink = bench.subscribe(b"_INBOX.me.*", sid=b"4")
    replies = [b"_INBOX.me.%d" % i for i in range(20)]
    bench.router.pub_acks(b"ORDERS", [*replies, b""], list(range(90, 111)))
    bench.run_soon()
    assert sink.out == b"".join(ack(reply, b"4", b"ORDERS", 90 + i) for i, reply in enumerate(replies))
    assert sink.out_msgs == 20


def test_pub_acks_to_many_clients_keep_each_ones_order(bench: Bench) -> None:
    sinks = [bench.subscribe(b"_INBOX.%d.*" % i) for i in range(5)]
    replies = [b"_INBOX.%d.%d" % (i % 5, i) for i in range(100)]
    bench.router.pub_acks(b"S", replies, list(range(1, 101)))
    bench.run_soon()
    for at, sink in enumerate(sinks):
        expected = [ack(b"_INBOX.%d.%d" % (at, i), b"1", b"S", i + 1) for i in range(at, 100, 5)]
        assert sink.out == b"".join(expected)


def test_pub_acks_in_odd_circumstances(bench: Bench) -> None:
    literal = bench.subscribe(b"reply.1")
    wild = bench.subscribe(b"reply.*")
    limited = bench.subscribe(b"other")
    bench.router.limit(limited.subscriptions[b"1"], 1)
    bench.router.pub_acks(b'na\\"me', [b"reply.1", b"nobody", b"reply.2", b"other", b"other"], [1, 2, 3, 4, 5])
    bench.run_soon()
    assert literal.out == ack(b"reply.1", b"1", b'na\\"me', 1)
    assert wild.out == ack(b"reply.1", b"1", b'na\\"me', 1) + ack(b"reply.2", b"1", b'na\\"me', 3)
    assert limited.out == ack(b"other", b"1", b'na\\"me', 4)
    bench.router.pub_acks(b"S", [b"", b""], [1, 2])
    bench.router.pub_acks(b"S", [], [])


def test_pub_acks_of_many_streams_go_out_together(bench: Bench) -> None:
    sinks = [bench.subscribe(b"_INBOX.%d.*" % i, sid=b"%d" % i) for i in range(3)]
    limited = bench.subscribe(b"_INBOX.other")
    bench.router.limit(limited.subscriptions[b"1"], 1)
    flushed: list[int] = []
    bench.router.flush_output = lambda: flushed.append(1)
    expected = {sink.name: b"" for sink in sinks}
    for number in range(60):
        stream, to = b's\\"%d' % number, number % 3
        bench.router.pub_acks(stream, [b"_INBOX.%d.%d" % (to, number)], [number + 1])
        expected[sinks[to].name] += ack(b"_INBOX.%d.%d" % (to, number), b"%d" % to, stream, number + 1)
    bench.router.pub_acks(b"last", [b"_INBOX.other", b"_INBOX.other", b"nobody"], [1, 2, 3])
    assert not any(sink.out for sink in sinks)
    bench.run_soon()
    assert {sink.name: sink.out for sink in sinks} == expected
    assert limited.out == ack(b"_INBOX.other", b"1", b"last", 1)
    assert flushed == [1]


@pytest.mark.parametrize("acks", [3, 200])
def test_pub_acks_of_many_streams_to_one_inbox(bench: Bench, acks: int) -> None:
    sink = bench.subscribe(b"_INBOX.me.*", sid=b"4")
    for number in range(acks):
        bench.router.pub_acks(b"s%d" % number, [b"_INBOX.me.%d" % number], [number])
    bench.run_soon()
    assert sink.out == b"".join(ack(b"_INBOX.me.%d" % n, b"4", b"s%d" % n, n) for n in range(acks))
    assert sink.out_msgs == acks
    bench.router.pub_acks(b"S", [b"_INBOX.gone.1"], [1])
    bench.router.pub_acks(b"T", [b"_INBOX.gone.2"], [1])
    bench.run_soon()
    assert not bench.soon


def test_pub_ack_to_a_handler(bench: Bench) -> None:
    handler = Recorder()
    bench.router.subscribe(b"internal.reply", handler)
    bench.router.pub_acks(b"S", [b"internal.reply"], [1])
    bench.run_soon()
    bench.run_soon()
    assert handler.log == [("", b'{"stream":"S","seq":1}')]


def test_deliver_keeps_the_stored_subject_and_uses_the_subscribers_sid(bench: Bench) -> None:
    sink = bench.subscribe(b"_INBOX.me.*", sid=b"5")
    taken = bench.router.deliver(
        b"_INBOX.me.1", [b"orders.a", b"orders.b"], [b"$JS.ACK.1", b"$JS.ACK.2"], (), [b"x", b"yy"]
    )
    assert taken == 2
    assert sink.out == b"MSG orders.a 5 $JS.ACK.1 1\r\nx\r\nMSG orders.b 5 $JS.ACK.2 2\r\nyy\r\n"


def test_deliver_says_how_many_were_taken(bench: Bench) -> None:
    columns: tuple[list[bytes], list[bytes], list[int], list[bytes]] = ([b"s"] * 5, [b""] * 5, [], [b"x"] * 5)
    assert bench.router.deliver(b"nobody", *columns) == 0
    limited = bench.subscribe(b"t")
    bench.router.limit(limited.subscriptions[b"1"], 3)
    assert bench.router.deliver(b"t", *columns) == 3
    closed = bench.subscribe(b"t")
    closed.is_closed = True
    assert bench.router.deliver(b"t", *columns) == 0
    handler = Recorder()
    bench.router.subscribe(b"t", handler)
    assert bench.router.deliver(b"t", *columns) == 5
    bench.run_soon()
    assert list(handler.batches[0].subjects) == [b"s"] * 5


def test_deliver_to_a_queue_group(bench: Bench) -> None:
    plain, other = bench.subscribe(b"t"), bench.subscribe(b"t", b"other")
    group = [bench.subscribe(b"t", b"q") for _ in range(2)]
    assert bench.router.deliver(b"t", [b"s"] * 40, [], [], [b"x"] * 40, queue=b"q") == 40
    assert plain.out_msgs == other.out_msgs == 0
    assert sum(sink.out_msgs for sink in group) == 40
    assert min(sink.out_msgs for sink in group) > 5
    assert bench.router.deliver(b"t", [b"s"], [], [], [b"x"], queue=b"none") == 0


def test_deliver_looks_at_permissions_for_the_target(bench: Bench) -> None:
    sink = bench.subscribe(b"_INBOX.me.*")
    sink.permits = Permissions(subscribe_deny=["foo.secret"])
    assert bench.router.deliver(b"_INBOX.me.1", [b"foo.secret"] * 3, [], [], [b"x"] * 3) == 3
    assert sink.out_msgs == 3


def test_deliver_headers(bench: Bench) -> None:
    sink = bench.subscribe(b"t")
    bench.router.deliver(b"t", [b"s"], [b"r"], [12], [b"NATS/1.0\r\n\r\nhi"])
    assert sink.out == b"HMSG s 1 r 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"


def test_interest(bench: Bench) -> None:
    router = bench.router
    assert not router.has_interest(b"t.1")
    bench.subscribe(b"t.*", b"q")
    assert router.has_interest(b"t.1")
    assert router.has_interest(b"t.1", b"q")
    assert not router.has_interest(b"t.1", b"r")
    handle = router.subscribe(b"internal", Recorder())
    assert router.has_interest(b"internal")
    handle.close()
    assert not router.has_interest(b"internal")


def test_watch_interest_tells_later_and_once_per_burst(bench: Bench) -> None:
    seen: list[bool] = []
    handle = bench.router.watch_interest(b"t.1", seen.append)
    sink = bench.subscribe(b"t.*")
    bench.subscribe(b"t.1", sid=b"2", sink=sink)
    bench.subscribe(b"u.*", sid=b"3", sink=sink)
    assert seen == []
    bench.run_soon()
    assert seen == [True]
    bench.router.drop_client(sink)
    bench.run_soon()
    assert seen == [True, False]
    bench.subscribe(b"t.>")
    handle.close()
    handle.close()
    bench.run_soon()
    assert seen == [True, False]
    bench.subscribe(b"t.1")
    assert not bench.soon


def test_pending_bytes_and_when_writable_look_at_the_fullest(bench: Bench) -> None:
    router = bench.router
    called: list[str] = []
    assert router.pending_bytes(b"t") == 0
    router.when_writable(b"t", lambda: called.append("nobody"))
    bench.run_soon()
    assert called == ["nobody"]
    one, two = bench.subscribe(b"t"), bench.subscribe(b"t", b"q")
    one.pending, two.pending = 10, 20
    assert router.pending_bytes(b"t") == 20
    router.when_writable(b"t", lambda: called.append("two"))
    assert (len(one.waiting), len(two.waiting)) == (0, 1)


def test_congestion_is_reported_to_the_producer(bench: Bench) -> None:
    sink = bench.subscribe(b"a")
    assert bench.publish((b"a", b"x")) is False
    sink.congested = True
    assert bench.publish((b"a", b"x")) is True
    bench.router.drops_when_congested = True
    bench.publish((b"a", b"x"))
    assert sink.out_msgs == 2
    bench.router.deliver(b"a", [b"s"], [], [], [b"x"])
    assert sink.out_msgs == 3, "only producers that are clients are dropped"


def test_subscribing_a_thousand_clients_leaves_nothing_behind(bench: Bench) -> None:
    sinks = [bench.subscribe(b"_INBOX.%d.*" % i) for i in range(1000)]
    hits = Counter(b"_INBOX.%d.x" % i for i in range(1000))
    bench.publish(*[(subject, b"x") for subject in hits])
    assert all(sink.out_msgs == 1 for sink in sinks)
    for sink in sinks:
        bench.router.drop_client(sink)
    assert len(bench.router.sublist) == 0
