"""Connections on a loop turned by hand: output rounds, timers, slow consumers, limits, the end, the counters."""

from __future__ import annotations

import json

import pytest
from net_fakes import QUIET, FakeTransport, Peer, ServerBench

from jetstore.node.ports import Inbound
from server.auth.authenticator import Authenticator, PasswordUser, User
from server.auth.permissions import Permissions
from server.net.connection import ClientConnection
from server.net.options import NetOptions
from server.protocol.client import ProtocolOptions


def info_of(line: bytes) -> dict[str, object]:
    assert line.startswith(b"INFO ")
    assert line.endswith(b" \r\n")
    fields = json.loads(line[5:-3])
    assert isinstance(fields, dict)
    return fields


def first_line(bench: ServerBench) -> bytes:
    connection, transport = ClientConnection(bench.server), FakeTransport(bench.loop)
    transport.protocol = connection
    connection.connection_made(transport)
    return transport.received


def test_the_first_line_is_info() -> None:
    bench = ServerBench()
    fields = info_of(first_line(bench))
    assert list(fields) == [
        *("server_id", "server_name", "version", "proto", "go", "host", "port", "headers", "max_payload"),
        *("client_id", "client_ip", "api_lvl", "jetstore"),
    ]
    assert (fields["client_id"], fields["client_ip"], fields["max_payload"]) == (1, "10.0.0.7", 1 << 20)
    assert info_of(first_line(bench))["client_id"] == 2


def test_the_second_info_names_the_account() -> None:
    peer = ServerBench().connect()
    pong, second = peer.send(b"PING\r\n").split(b"\r\n", 1)
    assert pong == b"PONG"
    fields = info_of(second)
    assert (fields["connect_info"], fields["remote_account"]) == (True, "$G")


def test_info_changes_go_to_whoever_listens() -> None:
    bench = ServerBench()
    ready, early, old = bench.connect(QUIET + b"PING\r\n"), bench.connect(), bench.connect(b"CONNECT {}\r\nPING\r\n")
    bench.info.connect_urls = ["a:4222", "b:4222"]
    bench.server.broadcast_info()
    bench.loop.run_soon()
    assert info_of(ready.take())["connect_urls"] == ["a:4222", "b:4222"]
    assert early.take() == old.take() == b""
    bench.server.enter_lame_duck()
    bench.loop.run_soon()
    assert info_of(ready.take())["ldm"] is True


def test_output_of_one_read_is_one_write_per_connection() -> None:
    bench = ServerBench()
    publisher, subscriber = bench.connect(), bench.connect(QUIET + b"SUB a 1\r\nSUB b 2\r\n")
    publisher.transport.writes.clear()
    subscriber.transport.writes.clear()
    publisher.send(b"PUB a 1\r\n1\r\nPUB b 1\r\n2\r\nPING\r\nPUB a 1\r\n3\r\nPING\r\n")
    assert subscriber.transport.writes == [b"MSG a 1 1\r\n1\r\nMSG b 2 1\r\n2\r\nMSG a 1 1\r\n3\r\n"]
    assert len(publisher.transport.writes) == 1


def test_output_outside_of_reads_is_one_write_per_turn_of_the_loop() -> None:
    bench = ServerBench()
    peer = bench.connect(QUIET + b"SUB r.* 1\r\n")
    peer.transport.writes.clear()
    bench.router.pub_acks(b"S", [b"r.1"], [1])
    bench.router.pub_acks(b"S", [b"r.2"], [2])
    assert peer.transport.writes == []
    bench.loop.run_soon()
    assert len(peer.transport.writes) == 1
    assert peer.take().count(b'{"stream":"S"') == 2


def test_a_handler_that_answers_at_once_is_in_the_same_write() -> None:
    bench = ServerBench()

    class Echo:
        def on_messages(self, batch: Inbound) -> None:
            bench.router.publish(batch.replies, batch.header_lens, batch.payloads)

    bench.router.subscribe(b"echo", Echo())
    peer = bench.connect(QUIET + b"SUB r 1\r\n")
    peer.transport.writes.clear()
    assert peer.send(b"PUB echo r 2\r\nhi\r\nPING\r\n").startswith(b"MSG r 1 2\r\nhi\r\nPONG\r\n")
    assert len(peer.transport.writes) == 1


def test_no_responders_comes_before_the_pong() -> None:
    peer = ServerBench().connect(QUIET + b"PING\r\nSUB r 1\r\n")
    status = b"HMSG r 1 38 38\r\nNATS/1.0 503\r\nNats-Subject: nobody\r\n\r\n\r\n"
    assert peer.send(b"PUB nobody r 1\r\nx\r\nPING\r\n") == status + b"PONG\r\n"


def test_duplicate_sids_keep_the_first_subject() -> None:
    peer = ServerBench().connect(b'CONNECT {"pedantic":false}\r\n')
    assert peer.send(b"SUB a 1\r\nSUB b 1\r\n") == b"+OK\r\n+OK\r\n"
    assert peer.send(b"PUB a 1\r\nx\r\nPUB b 1\r\ny\r\n") == b"+OK\r\nMSG a 1 1\r\nx\r\n+OK\r\n"
    assert peer.send(b"UNSUB 9\r\nUNSUB 1\r\nPUB a 1\r\nx\r\n") == b"+OK\r\n+OK\r\n+OK\r\n"


def test_a_second_connect_drops_subscriptions() -> None:
    peer = ServerBench().connect(QUIET + b"SUB a 1\r\n")
    assert peer.send(QUIET + b"PUB a 1\r\nx\r\n") == b""


def test_echo_off() -> None:
    bench = ServerBench()
    peer = bench.connect(b'CONNECT {"verbose":false,"pedantic":false,"echo":false}\r\n')
    assert peer.send(b"SUB a 1\r\nPUB a 1\r\nx\r\n") == b""
    bench.connect().send(b"PUB a 1\r\nx\r\n")
    assert peer.take() == b"MSG a 1 1\r\nx\r\n"


# -- limits -----------------------------------------------------------------------------------------------------------


def test_max_connections() -> None:
    bench = ServerBench(NetOptions(max_connections=2))
    bench.connect()
    second = bench.connect()
    connection, transport = ClientConnection(bench.server), FakeTransport(bench.loop)
    transport.protocol = connection
    connection.connection_made(transport)
    info, error, rest = transport.received.split(b"\r\n")
    assert info.startswith(b"INFO ")
    assert error == b"-ERR 'maximum connections exceeded'"
    assert rest == b""
    assert transport.is_gone
    bench.loop.run_soon()
    assert len(bench.server.connections) == 2
    second.transport.close()
    bench.loop.run_soon()
    assert bench.connect().send(b"PING\r\n").startswith(b"PONG\r\n")


def test_max_subscriptions_and_tokens() -> None:
    peer = ServerBench(NetOptions(max_subscriptions=2, max_sub_tokens=3)).connect()
    assert peer.send(b"SUB a.b.c.d 1\r\n") == (
        b"-ERR 'Permissions Violation for Subscription to \"a.b.c.d\", too many tokens'\r\n"
    )
    assert peer.send(b"SUB a.b.c 1\r\nSUB b 2\r\nSUB c 3\r\n") == b"-ERR 'maximum subscriptions exceeded'\r\n"
    assert peer.send(b"UNSUB 1\r\nSUB c 3\r\nPUB c 1\r\nx\r\n") == b"MSG c 3 1\r\nx\r\n"


def test_subscription_permissions() -> None:
    user = User("joe", permissions=Permissions(subscribe_allow=["ok.*"]))
    bench = ServerBench(authenticator=Authenticator(users=[PasswordUser(user, "x")]))
    connect = b'CONNECT {"verbose":false,"pedantic":false,"user":"joe","pass":"x"}\r\n'
    peer = bench.connect(connect)
    assert peer.send(b"SUB ok.a 1\r\nSUB no 2\r\nSUB no q 3\r\n") == (
        b"-ERR 'Permissions Violation for Subscription to \"no\"'\r\n"
        b'-ERR \'Permissions Violation for Subscription to "no" using queue "q"\'\r\n'
    )
    assert list(peer.connection.subscriptions) == [b"1"]


def test_auth_timeout() -> None:
    bench = ServerBench(NetOptions(auth_timeout_s=2.0), Authenticator(token="t"))
    late, good = Peer(bench.loop, bench.server), Peer(bench.loop, bench.server)
    assert info_of(first_line(bench))["auth_required"] is True
    good.send(b'CONNECT {"verbose":false,"auth_token":"t"}\r\n')
    bench.loop.advance(1.9)
    assert late.take() == b""
    bench.loop.advance(0.2)
    assert late.take() == b"-ERR 'Authentication Timeout'\r\n"
    assert late.transport.is_gone
    assert not good.transport.is_gone


# -- time -------------------------------------------------------------------------------------------------------------


def test_stale_connections_are_closed() -> None:
    bench = ServerBench(NetOptions(protocol=ProtocolOptions(ping_interval_s=1.0)))
    silent, alive = bench.connect(), bench.connect()
    seen = b""
    for _ in range(20):
        bench.loop.advance(0.25)
        seen += silent.take()
        if b"PING" in alive.take():
            alive.send(b"PONG\r\n")
    assert seen == b"PING\r\nPING\r\n-ERR 'Stale Connection'\r\n"
    assert silent.transport.is_gone
    assert not alive.transport.is_gone
    assert bench.server.totals.stale_connections == 1
    assert bench.server.closed[-1].reason == "Stale Connection"


def test_no_timer_outlives_its_connection() -> None:
    bench = ServerBench(NetOptions(auth_timeout_s=50.0), Authenticator(token="t"))
    for how in ("close", "abort"):
        peer = Peer(bench.loop, bench.server)
        getattr(peer.transport, how)()
        bench.loop.run_soon()
    assert bench.loop.timers() == 0
    assert bench.server.connections == {}


# -- slow consumers ---------------------------------------------------------------------------------------------------


def test_too_much_pending_output_closes_without_a_word() -> None:
    bench = ServerBench(NetOptions(max_pending_bytes=1000, write_pause_bytes=100))
    slow, publisher = bench.connect(QUIET + b"SUB a 1\r\n"), bench.connect()
    slow.transport.is_valve_open = False
    for _ in range(8):
        publisher.send(b"PUB a 100\r\n" + b"x" * 100 + b"\r\n")
    assert not slow.transport.is_gone
    publisher.send(b"PUB a 100\r\n" + b"x" * 100 + b"\r\n")
    assert slow.transport.was_aborted
    assert b"-ERR" not in slow.take()
    assert bench.server.totals.slow_consumers == 1
    assert bench.server.closed[-1].reason == "Slow Consumer (Pending Bytes)"
    assert len(bench.router.sublist) == 0


def test_output_that_makes_no_progress_closes() -> None:
    bench = ServerBench(NetOptions(write_deadline_s=10.0))
    stuck, slow, publisher = (bench.connect(QUIET + b"SUB a 1\r\n") for _ in range(3))
    for peer in (stuck, slow):
        peer.transport.is_valve_open = False
    publisher.send(b"PUB a 1000\r\n" + b"x" * 1000 + b"\r\n")
    for _ in range(6):
        slow.transport.drain(10)
        slow.send(b"PONG\r\n")
        bench.loop.advance(4.0)
    assert stuck.transport.was_aborted
    assert not slow.transport.is_gone
    assert not publisher.transport.is_gone
    assert [stats.reason for stats in bench.server.closed] == ["Slow Consumer (Write Deadline)"]


def test_a_peer_that_does_not_take_the_goodbye_is_cut_off() -> None:
    bench = ServerBench(NetOptions(write_deadline_s=10.0))
    peer = bench.connect()
    peer.transport.is_valve_open = False
    peer.send(b"FOO\r\n")
    assert not peer.transport.is_gone
    bench.loop.advance(10.1)
    assert peer.transport.is_gone
    bench.loop.run_soon()
    assert bench.server.closed[-1].reason == "Parse Error"
    assert bench.server.totals.slow_consumers == 0


def test_a_producer_that_is_too_fast_is_slowed_down() -> None:
    bench = ServerBench(NetOptions(max_pending_bytes=1000, write_pause_bytes=100))
    slow, publisher = bench.connect(QUIET + b"SUB a 1\r\n"), bench.connect()
    slow.transport.is_valve_open = False
    for _ in range(7):
        publisher.send(b"PUB a 100\r\n" + b"x" * 100 + b"\r\n")
    assert publisher.transport.is_reading_paused
    assert bench.server.totals.stalled_clients == 1
    bench.loop.advance(0.02)
    assert not publisher.transport.is_reading_paused
    slow.transport.drain()
    publisher.send(b"PUB a 100\r\n" + b"x" * 100 + b"\r\n")
    assert not publisher.transport.is_reading_paused


def test_without_the_stall_messages_are_dropped() -> None:
    bench = ServerBench(NetOptions(max_pending_bytes=1000, write_pause_bytes=100, no_fast_producer_stall=True))
    slow, publisher = bench.connect(QUIET + b"SUB a 1\r\n"), bench.connect()
    slow.transport.is_valve_open = False
    for _ in range(50):
        publisher.send(b"PUB a 100\r\n" + b"x" * 100 + b"\r\n")
    assert not slow.transport.is_gone
    assert not publisher.transport.is_reading_paused
    assert slow.connection.out_msgs == 7


def test_when_writable() -> None:
    bench = ServerBench(NetOptions(write_pause_bytes=1000))
    peer = bench.connect(QUIET + b"SUB t 1\r\n")
    called: list[str] = []
    bench.router.when_writable(b"t", lambda: called.append("at once"))
    assert called == [], "never from inside the call"
    bench.loop.run_soon()
    assert called == ["at once"]
    peer.transport.is_valve_open = False
    bench.router.deliver(b"t", [b"s"], [], [], [b"x" * 2000])
    assert bench.router.pending_bytes(b"t") > 2000
    bench.router.when_writable(b"t", lambda: called.append("drained"))
    bench.loop.run_soon()
    peer.transport.drain(500)
    bench.loop.run_soon()
    assert called == ["at once"]
    peer.transport.drain(600)
    bench.loop.run_soon()
    assert called == ["at once", "drained"]


def test_when_writable_of_output_that_left_at_once() -> None:
    bench = ServerBench(NetOptions(write_pause_bytes=1000))
    bench.connect(QUIET + b"SUB t 1\r\n")
    called: list[str] = []
    bench.router.deliver(b"t", [b"s"], [], [], [b"x" * 2000])
    bench.router.when_writable(b"t", lambda: called.append("flushed"))
    bench.loop.run_soon()
    assert called == ["flushed"]


def test_when_writable_of_a_connection_that_goes_away() -> None:
    bench = ServerBench(NetOptions(write_pause_bytes=1000))
    peer = bench.connect(QUIET + b"SUB t 1\r\n")
    peer.transport.is_valve_open = False
    bench.router.deliver(b"t", [b"s"], [], [], [b"x" * 2000])
    called: list[str] = []
    bench.router.when_writable(b"t", lambda: called.append("gone"))
    peer.transport.abort()
    bench.loop.run_soon()
    assert called == ["gone"]
    assert bench.router.pending_bytes(b"t") == 0


# -- the end and the counters -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["eof", "lost", "reset"])
def test_whatever_way_a_client_leaves_its_subscriptions_go(how: str) -> None:
    bench = ServerBench()
    peer = bench.connect(QUIET + b"SUB a 1\r\nSUB b q 2\r\n")
    if how == "eof":
        assert not peer.connection.eof_received()
    else:
        peer.connection.connection_lost(None if how == "lost" else ConnectionResetError())
    bench.loop.run_soon()
    assert len(bench.router.sublist) == 0
    assert bench.server.connections == {}
    (closed,) = bench.server.closed
    assert closed.reason == ("Read Error" if how == "reset" else "Client Closed")
    assert closed.stop_ns > closed.start_ns - 1


def test_lame_duck_closes_one_after_the_other() -> None:
    bench = ServerBench()
    peers = [bench.connect(QUIET + b"PING\r\n") for _ in range(4)]
    bench.server.enter_lame_duck()
    bench.server.close_gradually(8.0)
    open_after = []
    for _ in range(5):
        bench.loop.run_soon()
        open_after.append(len(bench.server.connections))
        bench.loop.advance(2.0)
    assert open_after == [3, 2, 1, 0, 0]
    assert all(b'"ldm":true' in peer.take() for peer in peers)
    assert {stats.reason for stats in bench.server.closed} == {"Server Shutdown"}


def test_counters() -> None:
    bench = ServerBench()
    one = bench.connect(
        QUIET[:-3]
        + b',"name":"app","lang":"python","version":"2.9"}\r\nSUB a 1\r\nPUB a 5\r\nhello\r\nPUB b 2\r\nhi\r\n'
    )
    one.take()
    bench.loop.advance(1.5)
    stats = one.connection.stats()
    assert (stats.in_msgs, stats.in_bytes, stats.out_msgs, stats.out_bytes) == (2, 7, 1, 5)
    assert (stats.name, stats.lang, stats.version, stats.subscriptions) == ("app", "python", "2.9", 1)
    assert (stats.ip, stats.port, stats.cid, stats.account) == ("10.0.0.7", 5555, 1, "$G")
    assert stats.idle_ns == pytest.approx(1.5e9)
    one.transport.close()
    bench.loop.run_soon()
    two = bench.connect(QUIET + b"PUB x 1\r\nx\r\n")
    totals = bench.server.traffic()
    assert (totals.total_connections, totals.in_msgs, totals.in_bytes) == (2, 3, 8)
    assert (totals.out_msgs, totals.out_bytes) == (1, 5)
    assert list(bench.server.connections) == [two.connection.cid]


def test_closed_connections_are_remembered_but_not_for_ever() -> None:
    bench = ServerBench(NetOptions(max_closed_clients=3))
    for _ in range(5):
        bench.connect().transport.close()
        bench.loop.run_soon()
    assert [stats.cid for stats in bench.server.closed] == [3, 4, 5]
