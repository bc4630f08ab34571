"""The same on jetstore and nats-server: push consumers, their deliver subjects and heartbeats."""

from __future__ import annotations

from delivery_oracle import MS, Session, scenario


@scenario
async def push_with_heartbeats(s: Session) -> None:
    await s.stream()
    await s.publish("s.a", "s.b")
    await s.publish("s.c", headers={"A": "b"})
    await s.consumer(deliver_subject="to", idle_heartbeat=200 * MS, flow_control=True, ack_policy="none")
    await s.listen("to")
    await s.got(4, "to")
    await s.info()
    await s.fetch(1, {"batch": 1})
    await s.publish("s.d")
    await s.got(1, "to")
    await s.leave("to")
    await s.info()
    await s.publish("s.e")
    await s.info()
    await s.listen("to")
    await s.got(1, "to")


@scenario
async def push_with_acks(s: Session) -> None:
    await s.stream()
    await s.publish(*["s.a"] * 4)
    await s.listen("to", "workers")
    await s.consumer(deliver_subject="to", deliver_group="workers", max_ack_pending=2, ack_wait=400 * MS)
    got = await s.got(2, "to")
    await s.quiet("to")
    await s.ack(got[0])
    await s.got(1, "to")
    await s.info()
    await s.got(1, "to")


@scenario
async def a_new_deliver_subject(s: Session) -> None:
    await s.stream()
    await s.publish("s.a", "s.b")
    await s.listen("one")
    await s.consumer(deliver_subject="one", ack_wait=60_000 * MS)
    await s.got(2, "one")
    await s.consumer(deliver_subject="two", ack_wait=60_000 * MS)
    await s.leave("one")
    await s.pause(100)
    await s.listen("two")
    await s.consumer(deliver_subject="two", ack_wait=60_000 * MS)
    await s.got(2, "two")
    await s.info()


@scenario
async def two_subscribers_of_a_deliver_subject(s: Session) -> None:
    await s.stream()
    await s.listen("to.one")
    other = await s.client.subscribe("to.*")
    await s.client.flush()
    await s.consumer(deliver_subject="to.one", ack_policy="none")
    for subject in ("s.a", "s.b"):
        await s.publish(subject)
        await s.got(1, "to.one")
    for _ in range(2):
        message = await other.next_msg(timeout=2)
        s.note(f"other <- {message.subject} {message.reply}")
    await s.info()


@scenario
async def paused_push(s: Session) -> None:
    await s.stream()
    await s.publish("s.a")
    await s.listen("to")
    await s.listen("$JS.EVENT.ADVISORY.CONSUMER.PAUSE.S.c")
    await s.consumer(deliver_subject="to", idle_heartbeat=100 * MS, pause_until="2099-01-01T00:00:00Z")
    await s.got(2, "to")
    await s.info()
    await s.api("CONSUMER.PAUSE.S.c")
    await s.got(1, "$JS.EVENT.ADVISORY.CONSUMER.PAUSE.S.c")
