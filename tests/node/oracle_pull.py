"""The same on jetstore and nats-server: pull requests and their statuses, where consumers start, what changes them."""

from __future__ import annotations

from typing import Any

from delivery_oracle import MS, Session, scenario


@scenario
async def pull_statuses(s: Session) -> None:
    await s.stream()
    await s.publish(*["s.a"] * 3)
    await s.consumer(max_batch=10, max_expires=5000 * MS, max_bytes=5000, max_waiting=3)
    bodies: list[Any] = [
        {"batch": 11},
        {"expires": 6000 * MS},
        {"max_bytes": 6000},
        {"batch": 1, "idle_heartbeat": 100 * MS},
        {"batch": "x"},
        {"batch": 1.5},
        {"batch": 1, "expires": -5},
        {"no_wait": "x"},
        {"expires": []},
        {"priority": 12},
        {"min_pending": 1},
        {"id": "x"},
        b"{bad",
        b"{",
        b"{}x",
        b'{"batch":}',
        b'{"batch": 1,}',
        {"batch": 1, "no_wait": True, "max_bytes": 5},
        {"batch": 2, "unknown": 1, "max_bytes": 500},
    ]
    for body in bodies:
        await s.fetch(3 if isinstance(body, dict) and "unknown" in body else 1, body)
    await s.info()
    await s.fetch(2, {"batch": 4, "no_wait": True})
    await s.fetch(1, {"batch": 4, "no_wait": True})
    await s.fetch(1, {"batch": 4, "no_wait": True, "expires": 100 * MS})
    await s.fetch(1, {"batch": 4, "expires": 100 * MS, "max_bytes": 77})
    await s.fetch(4, {"batch": 4, "expires": 350 * MS, "idle_heartbeat": 100 * MS})
    for inbox in ("one", "two", "three"):
        await s.request({"batch": 1, "expires": 4000 * MS}, inbox=inbox)
    await s.fetch(1, {"batch": 1, "expires": 4000 * MS}, inbox="four")
    await s.info()
    await s.api("CONSUMER.DELETE.S.c")
    for inbox in ("one", "two", "three"):
        await s.got(1, inbox)


@scenario
async def no_wait_forms(s: Session) -> None:
    await s.stream()
    await s.consumer(max_ack_pending=2)
    await s.request({"batch": 3, "no_wait": True, "expires": 2000 * MS})
    await s.publish("s.a")
    await s.got(2)
    await s.publish("s.a", "s.a", "s.a")
    await s.fetch(1, {"batch": 5, "no_wait": True})
    await s.quiet()
    await s.request({"batch": 5, "expires": 3000 * MS}, inbox="other")
    await s.fetch(1, {"batch": 1, "no_wait": True}, inbox="third")
    await s.info()


@scenario
async def requests_in_turn(s: Session) -> None:
    await s.stream()
    await s.consumer()
    for inbox in ("a", "b"):
        await s.request({"batch": 2, "expires": 20_000 * MS}, inbox=inbox)
    for inbox in ("a", "b", "a", "b"):
        await s.publish("s.x")
        await s.got(1, inbox)
    await s.info()


@scenario
async def headers_only(s: Session) -> None:
    await s.stream()
    await s.publish("s.a", body=b"12345", headers={"A": "b"})
    await s.publish("s.b", body=b"")
    await s.consumer(headers_only=True)
    await s.fetch(2, {"batch": 2})


@scenario
async def start_positions(s: Session) -> None:
    await s.stream()
    await s.publish("s.a", "s.b", "s.a", "s.c", "s.b", "s.a")
    await s.api("STREAM.MSG.DELETE.S", {"seq": 1})
    await s.consumer("all")
    await s.consumer("last", deliver_policy="last")
    await s.consumer("lastb", deliver_policy="last", filter_subject="s.b")
    await s.consumer("lastnone", deliver_policy="last", filter_subject="s.zzz")
    await s.consumer("new", deliver_policy="new")
    await s.consumer("seq", deliver_policy="by_start_sequence", opt_start_seq=3)
    await s.consumer("seqold", deliver_policy="by_start_sequence", opt_start_seq=1)
    await s.consumer("seqnew", deliver_policy="by_start_sequence", opt_start_seq=20)
    await s.consumer("time", deliver_policy="by_start_time", opt_start_time="2020-01-01T00:00:00Z")
    await s.consumer("future", deliver_policy="by_start_time", opt_start_time="2099-01-01T00:00:00Z")
    await s.consumer("lps", deliver_policy="last_per_subject", filter_subject="s.>")
    await s.consumer("lpsb", deliver_policy="last_per_subject", filter_subjects=["s.b", "s.c"])
    for name, count in (("lps", 3), ("lpsb", 2), ("lastb", 1), ("seq", 4), ("all", 5)):
        await s.fetch(count + 1, {"batch": 10, "no_wait": True}, name)
        await s.info(name)
    await s.publish("s.b")
    for name in ("lps", "lpsb", "new", "seqnew", "lastnone"):
        await s.info(name)


@scenario
async def start_on_an_empty_stream(s: Session) -> None:
    await s.stream()
    for policy in ("all", "last", "new", "last_per_subject"):
        await s.consumer(policy, deliver_policy=policy, filter_subject="s.>")
    await s.publish("s.a")
    for policy in ("all", "last", "new", "last_per_subject"):
        await s.info(policy)
        await s.fetch(1, {"batch": 1}, policy)


@scenario
async def updates(s: Session) -> None:
    await s.stream()
    await s.publish(*["s.a", "s.b"] * 4)
    await s.consumer(filter_subject="s.a", ack_wait=60_000 * MS)
    got = await s.fetch(2, {"batch": 2})
    await s.consumer(filter_subject="s.b", ack_wait=60_000 * MS)
    await s.fetch(3, {"batch": 9, "no_wait": True})
    await s.consumer(filter_subjects=["s.a", "s.b"], ack_wait=60_000 * MS, max_ack_pending=5)
    await s.ack(got[0])
    await s.info()


@scenario
async def pausing(s: Session) -> None:
    await s.stream()
    await s.publish(*["s.a"] * 3)
    await s.consumer()
    answer = await s.api("CONSUMER.PAUSE.S.c", {"pause_until": "2099-01-01T00:00:00Z"})
    s.note(f"{answer.get('paused')}")
    s.note((await s.api("CONSUMER.INFO.S.c"))["config"]["metadata"]["_nats.req.level"])
    await s.info()
    await s.fetch(1, {"batch": 1, "no_wait": True})
    await s.fetch(1, {"batch": 1, "expires": 150 * MS})
    answer = await s.api("CONSUMER.PAUSE.S.c")
    s.note(f"{answer.get('paused')} {answer.get('pause_until')}")
    s.note((await s.api("CONSUMER.INFO.S.c"))["config"]["metadata"]["_nats.req.level"])
    await s.fetch(1, {"batch": 1, "expires": 3000 * MS})
    await s.info()


@scenario
async def resets(s: Session) -> None:
    await s.stream()
    await s.publish(*["s.a"] * 6)
    await s.consumer()
    got = await s.fetch(4, {"batch": 4})
    await s.ack(got[0])
    for body in (None, {"seq": 3}, {"seq": 100}):
        answer = await s.api("CONSUMER.RESET.S.c", body)
        s.note(f"reset_seq {answer.get('reset_seq')}")
        await s.info()
        await s.fetch(2 if body != {"seq": 100} else 1, {"batch": 2, "no_wait": True})
    await s.info()


@scenario
async def inactivity(s: Session) -> None:
    await s.stream()
    await s.api(
        "CONSUMER.CREATE.S.e",
        {"stream_name": "S", "config": {"name": "e", "ack_policy": "explicit", "inactive_threshold": 300 * MS}},
    )
    await s.info("e")
    await s.pause(2000)
    await s.info("e")
