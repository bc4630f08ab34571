"""The same on jetstore and nats-server: what acknowledgements of every kind do, and what comes again without them."""

from __future__ import annotations

import nats
from delivery_oracle import MS, Session, scenario


@scenario
async def acks_out_of_order(s: Session) -> None:
    await s.stream()
    await s.publish(*["s.a"] * 6)
    await s.consumer()
    got = await s.fetch(4, {"batch": 4})
    for index in (1, 3, 0, 2, 2):
        await s.ack(got[index])
        await s.info()
    await s.fetch(3, {"batch": 3, "no_wait": True})


@scenario
async def ack_all_and_kinds_of_acks(s: Session) -> None:
    await s.stream()
    await s.publish(*["s.a"] * 6)
    await s.consumer(ack_policy="all")
    got = await s.fetch(5, {"batch": 5})
    await s.ack(got[2])
    await s.info()
    await s.ack(got[0], b"-NAK")
    await s.ack(got[3], b"-NAK")
    await s.fetch(1, {"batch": 1})
    await s.info()
    await s.ack(got[3], b"+TERM why")
    await s.info()
    await s.ack(got[4], b"+WPI")
    await s.ack(got[4], b"nonsense")
    await s.ack(got[4], b"+ACK")
    await s.info()


@scenario
async def nak_delay_wpi_term(s: Session) -> None:
    await s.stream()
    await s.publish(*["s.a"] * 5)
    await s.listen("$JS.EVENT.ADVISORY.CONSUMER.*.S.c")
    await s.consumer(ack_wait=60_000 * MS)
    await s.got(1, "$JS.EVENT.ADVISORY.CONSUMER.*.S.c")
    got = await s.fetch(4, {"batch": 4})
    await s.ack(got[1], b"-NAK")
    await s.ack(got[0], b'-NAK {"delay": 900000000}')
    await s.ack(got[2], b"+TERM  some reason")
    await s.ack(got[3], b"-NAK bad")
    await s.info()
    await s.fetch(3, {"batch": 3})
    await s.quiet()
    await s.fetch(1, {"batch": 1})
    await s.info()
    await s.got(4, "$JS.EVENT.ADVISORY.CONSUMER.*.S.c")
    await s.ack(got[2], b"+TERM")
    await s.got(1, "$JS.EVENT.ADVISORY.CONSUMER.*.S.c")
    await s.ack(got[2], b"-NAK")
    await s.quiet("$JS.EVENT.ADVISORY.CONSUMER.*.S.c")
    await s.api("CONSUMER.DELETE.S.c")
    await s.got(1, "$JS.EVENT.ADVISORY.CONSUMER.*.S.c")


@scenario
async def redelivery_and_max_deliver(s: Session) -> None:
    await s.stream()
    await s.publish(*["s.a"] * 5)
    await s.listen("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.S.c")
    await s.consumer(ack_wait=250 * MS, max_deliver=2)
    got = await s.fetch(3, {"batch": 3})
    await s.ack(got[1])
    await s.pause(400)
    again = await s.fetch(2, {"batch": 2})
    await s.ack(again[1])
    await s.info()
    await s.pause(400)
    more = await s.fetch(1, {"batch": 1})
    await s.got(1, "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.S.c")
    await s.ack(more[0])
    await s.info()
    await s.ack(again[0])
    await s.info()


@scenario
async def max_deliver_by_nak(s: Session) -> None:
    await s.stream()
    await s.publish("s.a", "s.b")
    await s.listen("$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.S.c")
    await s.consumer(max_deliver=2)
    for _ in range(2):
        got = await s.fetch(1, {"batch": 1})
        await s.ack(got[0], b"-NAK")
    await s.fetch(1, {"batch": 1})
    await s.got(1, "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.S.c")
    await s.info()


@scenario
async def next_with_ack(s: Session) -> None:
    await s.stream()
    await s.publish(*["s.a"] * 4)
    await s.consumer()
    got = await s.fetch(1, {"batch": 1})
    await s.client.publish(got[0].reply, b'+NXT {"batch": 2}', reply="inbox")
    got = await s.got(2)
    await s.client.publish(got[0].reply, b"+NXT", reply="inbox")
    await s.got(1)
    await s.info()


@scenario
async def no_such_responders(s: Session) -> None:
    await s.stream()
    await s.publish("s.a")
    await s.consumer(ack_policy="none")
    got = await s.fetch(1, {"batch": 1})
    await s.ack(got[0])
    await s.info()
    try:
        await s.client.request("$JS.API.CONSUMER.MSG.NEXT.S.nobody", b"", timeout=1)
    except nats.errors.NoRespondersError:
        s.note("no responders")


@scenario
async def ack_samples(s: Session) -> None:
    await s.stream()
    await s.publish("s.a", "s.b", "s.c")
    await s.listen("$JS.EVENT.METRIC.>")
    await s.consumer(sample_freq="100")
    got = await s.fetch(3, {"batch": 3})
    await s.ack(got[0])
    await s.got(1, "$JS.EVENT.METRIC.>")
    await s.ack(got[1], b"+TERM")
    await s.ack(got[1])
    await s.quiet("$JS.EVENT.METRIC.>")
    await s.ack(got[2], b"-NAK")
    again = await s.fetch(1, {"batch": 1})
    await s.ack(again[0])
    await s.got(1, "$JS.EVENT.METRIC.>")
