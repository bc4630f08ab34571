// @nats-io/jetstream: streams, publishing, batches, every kind of consumer.
import { AckPolicy, DeliverPolicy, jetstream, jetstreamManager, RetentionPolicy, StorageType } from "@nats-io/jetstream";
import { headers, nanos } from "@nats-io/nats-core";
import { connect, fact as print, only, refused, take } from "./facts.mjs";

const fact = (name, value) => print("jetstream", name, value);

export async function run() {
  const nc = await connect();
  const js = jetstream(nc, { timeout: 20000 });
  const jsm = await jetstreamManager(nc, { timeout: 20000 });

  const added = await jsm.streams.add({
    name: "ORDERS",
    subjects: ["orders.>"],
    allow_direct: true,
    allow_atomic: true,
    allow_msg_ttl: true,
    allow_rollup_hdrs: true,
    max_msgs_per_subject: 100,
    metadata: { team: "a" },
  });
  fact("added", only(added.config, "name", "subjects", "retention", "storage", "discard", "num_replicas", "max_msgs_per_subject", "allow_direct", "allow_atomic", "allow_msg_ttl", "duplicate_window"));
  fact("added twice, differently", await refused(jsm.streams.add({ name: "ORDERS", subjects: ["other"] })));
  fact("subjects overlap", await refused(jsm.streams.add({ name: "OTHER", subjects: ["orders.a"] })));
  fact("no such stream", await refused(jsm.streams.info("NONE")));

  const first = await js.publish("orders.a", "1", { msgID: "id-1" });
  fact("published", only(first, "stream", "seq", "duplicate"));
  fact("published again", only(await js.publish("orders.a", "1", { msgID: "id-1" }), "seq", "duplicate"));
  for (const [name, expect] of Object.entries({
    "last sequence": { lastSequence: 9 },
    "last message id": { lastMsgID: "id-9" },
    "stream name": { streamName: "OTHER" },
    "last subject sequence": { lastSubjectSequence: 9 },
  })) {
    fact(`expected ${name}`, await refused(js.publish("orders.a", "x", { expect })));
  }
  fact("expected and so", (await js.publish("orders.b", "2", { expect: { lastSequence: 1, streamName: "ORDERS", lastMsgID: "id-1" } })).seq);
  fact("nobody listens", await refused(js.publish("elsewhere", "x", { retries: 0 })));
  const hd = headers();
  hd.append("Colour", "green");
  hd.append("Colour", "blue");
  await js.publish("orders.c", "3", { headers: hd });

  const stored = await jsm.streams.getMessage("ORDERS", { seq: 3 });
  fact("get message", [stored.subject, stored.seq, stored.string(), stored.header.values("Colour")]);
  fact("get last of a subject", (await jsm.streams.getMessage("ORDERS", { last_by_subj: "orders.a" })).seq);
  fact("get what is not there", (await jsm.streams.getMessage("ORDERS", { seq: 99 })) === null);
  const direct = await jsm.direct.getMessage("ORDERS", { seq: 2 });
  fact("direct get", [direct.subject, direct.seq, direct.string()]);
  fact("direct get by subject", (await jsm.direct.getMessage("ORDERS", { next_by_subj: "orders.c", seq: 1 })).seq);
  const several = await jsm.direct.getBatch("ORDERS", { seq: 1, batch: 2 });
  fact("direct get, a batch", (await take(several, 2)).map((m) => m.seq));
  const lasts = await jsm.direct.getLastMessagesFor("ORDERS", { multi_last: ["orders.a", "orders.c"] });
  fact("direct get, last of several", (await take(lasts, 2)).map((m) => m.seq));

  const batch = await js.startBatch("orders.batch", "a");
  batch.add("orders.batch", "b");
  await batch.add("orders.batch", "c", { ack: true });
  const committed = await batch.commit("orders.batch", "d");
  fact("batch", only(committed, "stream", "seq", "count"));
  fact("batch, in order", await Promise.all([4, 5, 6, 7].map(async (seq) => (await jsm.streams.getMessage("ORDERS", { seq })).string())));
  const dropped = await js.startBatch("orders.batch", "x");
  fact("batch, expectation not met", await refused(dropped.commit("orders.batch", "y", { expect: { lastSubjectSequence: 1 } })));

  const info = await jsm.streams.info("ORDERS", { subjects_filter: ">" });
  fact("state", only(info.state, "messages", "first_seq", "last_seq", "num_subjects", "subjects"));
  const updated = await jsm.streams.update("ORDERS", { max_msgs: 1000, description: "all of them" });
  fact("updated", only(updated.config, "max_msgs", "description", "subjects"));
  fact("updated, not possible", await refused(jsm.streams.update("ORDERS", { retention: RetentionPolicy.Workqueue, storage: StorageType.Memory })));
  fact("names", await take(jsm.streams.names(), 1));
  fact("found by subject", await jsm.streams.find("orders.x"));
  fact("deleted message", [await jsm.streams.deleteMessage("ORDERS", 3), (await jsm.streams.info("ORDERS", { deleted_details: true })).state.deleted]);

  // pull consumers
  for (let n = 0; n < 50; n++) await js.publish("orders.many", String(n));
  const made = await jsm.consumers.add("ORDERS", {
    durable_name: "worker",
    ack_policy: AckPolicy.Explicit,
    filter_subject: "orders.many",
    ack_wait: nanos(30000),
    max_deliver: 5,
  });
  fact("consumer", only(made.config, "durable_name", "ack_policy", "deliver_policy", "filter_subject", "ack_wait", "max_deliver", "max_ack_pending", "max_waiting"));
  const worker = await js.consumers.get("ORDERS", "worker");
  const fetched = [];
  for await (const m of await worker.fetch({ max_messages: 10, expires: 20000 })) {
    fetched.push([m.string(), m.info.deliveryCount, m.info.pending]);
    if (fetched.length === 1) m.nak();
    else if (fetched.length === 2) m.term("bad one");
    else if (fetched.length === 3) { m.working(); fact("acknowledged twice", await m.ackAck()); }
    else m.ack();
  }
  fact("fetched", fetched);
  const next = await worker.next({ expires: 20000 });
  fact("next is the refused one", [next.string(), next.info.deliveryCount]);
  next.ack();
  const rest = [];
  const consuming = await worker.consume({ max_messages: 7 });
  for await (const m of consuming) {
    rest.push(m.string());
    await m.ackAck();
    if (rest.length === 40) break;
  }
  fact("consumed", [rest.length, rest[0], rest.at(-1)]);
  const left = await worker.info();
  fact("nothing left", only(left, "num_ack_pending", "num_pending", "num_redelivered"));
  fact("nothing to fetch", (await take(await worker.fetch({ max_messages: 1, expires: 1000 }), 1)).length);
  fact("paused", (await jsm.consumers.pause("ORDERS", "worker", new Date(Date.now() + 3600000))).paused);
  fact("resumed", (await jsm.consumers.resume("ORDERS", "worker")).paused);
  const limited = await worker.fetch({ max_bytes: 1000, expires: 1000 }).then((f) => take(f, 1));
  fact("limited by bytes", limited.length);

  const byGroup = await jsm.consumers.add("ORDERS", {
    durable_name: "grouped",
    ack_policy: AckPolicy.Explicit,
    filter_subject: "orders.many",
    priority_policy: "pinned_client",
    priority_groups: ["a"],
    priority_timeout: nanos(60000),
  });
  fact("priority group", only(byGroup.config, "priority_policy", "priority_groups", "priority_timeout"));
  const pinned = await (await js.consumers.get("ORDERS", "grouped")).fetch({ max_messages: 2, expires: 20000, group: "a" });
  fact("pinned", (await take(pinned, 2)).map((m) => [m.string(), (m.headers?.get("Nats-Pin-Id") ?? "").length > 0]));
  const groups = (await jsm.consumers.info("ORDERS", "grouped")).priority_groups;
  fact("pinned group", groups.map((g) => [g.group, g.pinned_client_id.length > 0]));
  await jsm.consumers.unpin("ORDERS", "grouped", "a");
  fact("unpinned", (await jsm.consumers.info("ORDERS", "grouped")).priority_groups.map((g) => g.pinned_client_id ?? ""));

  // ordered and push consumers
  const ordered = await js.consumers.get("ORDERS", { filter_subjects: "orders.many" });
  fact("ordered", (await take(await ordered.consume(), 50)).every((m, n) => m.string() === String(n)));
  const since = await js.consumers.get("ORDERS", { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: 50 });
  fact("ordered from a sequence", (await take(await since.consume(), 3)).map((m) => m.seq));
  const last = await js.consumers.get("ORDERS", { deliver_policy: DeliverPolicy.LastPerSubject });
  fact("ordered, last per subject", (await take(await last.consume(), 4)).map((m) => [m.subject, m.seq]));

  await jsm.consumers.add("ORDERS", {
    durable_name: "pushed",
    deliver_subject: "deliver.here",
    ack_policy: AckPolicy.Explicit,
    filter_subject: "orders.many",
    flow_control: true,
    idle_heartbeat: nanos(5000),
  });
  const pushed = await js.consumers.getPushConsumer("ORDERS", "pushed");
  const received = [];
  for await (const m of await pushed.consume()) {
    received.push(m.string());
    m.ack();
    if (received.length === 50) break;
  }
  fact("pushed", [received.length, received[0], received.at(-1)]);
  const orderedPush = await js.consumers.getPushConsumer("ORDERS", { filter_subjects: ["orders.many"] });
  fact("pushed, ordered", (await take(await orderedPush.consume(), 50)).every((m, n) => m.string() === String(n)));

  fact("consumers", (await jsm.consumers.list("ORDERS").next()).map((c) => c.config.durable_name ?? "").filter((n) => n).sort());
  fact("consumer deleted", [await jsm.consumers.delete("ORDERS", "worker"), await refused(jsm.consumers.info("ORDERS", "worker"))]);

  await jsm.streams.add({ name: "WORK", subjects: ["work"], retention: RetentionPolicy.Workqueue });
  for (let n = 0; n < 3; n++) await js.publish("work", String(n));
  await jsm.consumers.add("WORK", { durable_name: "w", ack_policy: AckPolicy.Explicit });
  fact("work queue, a second consumer", await refused(jsm.consumers.add("WORK", { durable_name: "w2", ack_policy: AckPolicy.Explicit })));
  for await (const m of await (await js.consumers.get("WORK", "w")).fetch({ max_messages: 2, expires: 20000 })) await m.ackAck();
  fact("work queue", only((await jsm.streams.info("WORK")).state, "messages", "first_seq", "last_seq"));

  await jsm.streams.add({ name: "COPY", mirror: { name: "ORDERS" } });
  await jsm.streams.add({ name: "SUM", sources: [{ name: "ORDERS", filter_subject: "orders.many" }] });
  const copied = async (name, messages) => {
    for (;;) {
      const { state } = await jsm.streams.info(name);
      if (state.messages >= messages) return state.messages;
    }
  };
  fact("mirrored", await copied("COPY", 58));
  fact("sourced", await copied("SUM", 50));

  fact("purged, by subject", (await jsm.streams.purge("ORDERS", { filter: "orders.many", keep: 2 })).purged);
  fact("purged, all", (await jsm.streams.purge("ORDERS")).purged);
  const account = await jsm.getAccountInfo();
  fact("account", only(account, "streams"));
  for (const name of ["SUM", "COPY", "WORK", "ORDERS"]) fact(`deleted ${name}`, await jsm.streams.delete(name));
  await nc.close();
}
