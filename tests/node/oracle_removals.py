"""The same on jetstore and nats-server: consumers when messages go (deleted, purged, evicted, acknowledged)."""

from __future__ import annotations

from delivery_oracle import MS, Session, scenario


@scenario
async def removals_and_counters(s: Session) -> None:
    await s.stream()
    await s.publish(*["s.a", "s.b"] * 5)
    await s.consumer("c")
    await s.consumer("b", filter_subject="s.b")
    await s.fetch(4, {"batch": 4})
    for seq in (1, 3, 8):
        await s.api("STREAM.MSG.DELETE.S", {"seq": seq})
        await s.info("c")
        await s.info("b")
    await s.api("STREAM.PURGE.S")
    await s.info("c")
    await s.info("b")
    await s.publish("s.a", "s.b")
    await s.info("c")
    await s.info("b")
    await s.fetch(2, {"batch": 2})


@scenario
async def purges(s: Session) -> None:
    await s.stream()
    await s.publish(*["s.a", "s.b"] * 5)
    await s.consumer("c")
    await s.consumer("b", filter_subject="s.b")
    await s.consumer("idle")
    await s.fetch(4, {"batch": 4})
    await s.fetch(2, {"batch": 2}, "b")
    await s.api("STREAM.PURGE.S", {"seq": 4})
    for name in ("c", "b", "idle"):
        await s.info(name)
    await s.api("STREAM.PURGE.S", {"filter": "s.b"})
    for name in ("c", "b"):
        await s.info(name)
    await s.api("STREAM.PURGE.S", {"keep": 1})
    for name in ("c", "b", "idle"):
        await s.info(name)
    await s.publish("s.b")
    for name in ("c", "b", "idle"):
        await s.info(name)
        await s.fetch(1, {"batch": 1}, name)


@scenario
async def deleted_while_pending(s: Session) -> None:
    await s.stream()
    await s.publish(*["s.a"] * 4)
    await s.listen("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.S.c")
    await s.consumer()
    await s.fetch(3, {"batch": 3})
    await s.api("STREAM.MSG.DELETE.S", {"seq": 2})
    await s.got(1, "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.S.c")
    await s.info()


@scenario
async def limits_behind_and_ahead(s: Session) -> None:
    await s.stream(max_msgs=4)
    await s.publish(*["s.a"] * 3)
    await s.consumer()
    got = await s.fetch(2, {"batch": 2})
    await s.publish(*["s.a"] * 6)
    await s.info()
    await s.ack(got[1])
    await s.info()
    await s.fetch(5, {"batch": 9, "no_wait": True})
    await s.info()


@scenario
async def evicted_while_pending(s: Session) -> None:
    await s.stream(max_msgs_per_subject=1)
    await s.publish("s.a", "s.b", "s.c")
    await s.consumer()
    got = await s.fetch(2, {"batch": 2})
    await s.publish("s.a", "s.c")
    await s.info()
    await s.ack(got[0])
    await s.ack(got[1])
    await s.info()
    await s.fetch(3, {"batch": 9, "no_wait": True})


@scenario
async def filters(s: Session) -> None:
    await s.stream()
    await s.consumer(filter_subjects=["s.a", "s.*.x"])
    await s.publish("s.a", "s.b", "s.b.x", "s.c.y", "s.a", "s.z.x")
    await s.info()
    await s.api("STREAM.PURGE.S", {"filter": "s.*.x"})
    await s.info()
    await s.fetch(3, {"batch": 9, "no_wait": True})
    await s.info()


@scenario
async def work_queue(s: Session) -> None:
    await s.stream(retention="workqueue")
    await s.publish(*["s.a"] * 4)
    await s.consumer(max_deliver=1, ack_wait=200 * MS)
    got = await s.fetch(3, {"batch": 3})
    await s.ack(got[1])
    await s.count()
    await s.ack(got[2], b"+TERM")
    await s.count()
    await s.pause(400)
    await s.ack(got[0])
    await s.count()


@scenario
async def work_queue_with_two_consumers(s: Session) -> None:
    await s.stream(retention="workqueue")
    await s.consumer("c", filter_subject="s.a")
    await s.consumer("d", filter_subject="s.b")
    await s.consumer("e", filter_subject="s.>")
    await s.publish("s.a", "s.b", "s.c")
    got = await s.fetch(1, {"batch": 1})
    await s.ack(got[0], b"+NXT")
    await s.count()
    await s.info("d")
    await s.api("CONSUMER.DELETE.S.c")
    await s.count()


@scenario
async def interest(s: Session) -> None:
    await s.stream(retention="interest")
    await s.publish("s.a")
    await s.count()
    await s.consumer("c")
    await s.consumer("d", filter_subject="s.b")
    await s.publish("s.a", "s.b")
    await s.count()
    got = await s.fetch(2, {"batch": 2})
    await s.ack(got[0])
    await s.ack(got[1])
    await s.count()
    await s.api("CONSUMER.DELETE.S.d")
    await s.count()
