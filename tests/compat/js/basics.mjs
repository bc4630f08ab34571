// What applications do through nats.js. Run as: node basics.mjs PORT. Ends with 0 when everything held.
import assert from "node:assert/strict";
import { AckPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { Kvm } from "@nats-io/kv";
import { Objm } from "@nats-io/obj";
import { connect, headers } from "@nats-io/transport-node";

const nc = await connect({ servers: `127.0.0.1:${process.argv[2]}`, reconnect: false });
const bytes = new TextEncoder();

async function check(name, body) {
  await body();
  console.log(`ok ${name}`);
}

await check("request and reply, headers, no responders", async () => {
  const service = nc.subscribe("double", {
    callback: (_, message) => message.respond(bytes.encode(message.string() + message.string())),
  });
  assert.equal((await nc.request("double", "ab")).string(), "abab");
  service.unsubscribe();
  await assert.rejects(nc.request("nobody", ""), /no responders/i);
});

const jsm = await jetstreamManager(nc);
const js = jetstream(nc);

await check("stream, publish, dedupe, expectations", async () => {
  await jsm.streams.add({ name: "ORDERS", subjects: ["orders.>"] });
  const first = await js.publish("orders.a", "1", { msgID: "id-1" });
  assert.equal(first.seq, 1);
  const again = await js.publish("orders.a", "1", { msgID: "id-1" });
  assert.equal(again.duplicate, true);
  const extra = headers();
  extra.set("Colour", "green");
  await js.publish("orders.b", "2", { headers: extra, expect: { lastSequence: 1 } });
  await assert.rejects(js.publish("orders.b", "x", { expect: { lastSequence: 1 } }), /wrong last sequence/);
  const message = await jsm.streams.getMessage("ORDERS", { seq: 2 });
  assert.equal(message.header.get("Colour"), "green");
  const info = await jsm.streams.info("ORDERS");
  assert.equal(info.state.messages, 2);
});

await check("pull consumer: fetch, consume, ack, nak", async () => {
  for (let number = 0; number < 50; number++) {
    await js.publish("orders.many", String(number));
  }
  await jsm.consumers.add("ORDERS", {
    durable_name: "worker",
    ack_policy: AckPolicy.Explicit,
    filter_subject: "orders.many",
  });
  const consumer = await js.consumers.get("ORDERS", "worker");
  const batch = await consumer.fetch({ max_messages: 10, expires: 10_000 });
  const seen = [];
  for await (const message of batch) {
    seen.push(message.string());
    if (seen.length === 1) {
      message.nak();
    } else {
      assert.equal(await message.ackAck(), true);
    }
  }
  assert.deepEqual(seen, [...Array(10).keys()].map(String));
  const messages = await consumer.consume({ max_messages: 20 });
  const rest = new Set();
  for await (const message of messages) {
    rest.add(message.string());
    message.ack();
    if (rest.size === 41) break;
  }
  assert.ok(rest.has("0"));
  assert.ok(rest.has("49"));
});

await check("ordered consumer", async () => {
  const ordered = await js.consumers.get("ORDERS", { filter_subjects: "orders.many" });
  const messages = await ordered.consume();
  let next = 0;
  for await (const message of messages) {
    assert.equal(message.string(), String(next++));
    if (next === 50) break;
  }
});

await check("key-value", async () => {
  const bucket = await new Kvm(nc).create("settings", { history: 5 });
  assert.equal(await bucket.put("a", "1"), 1);
  assert.equal((await bucket.get("a")).string(), "1");
  assert.equal(await bucket.update("a", "2", 1), 2);
  await assert.rejects(bucket.update("a", "3", 1), /wrong last sequence/);
  await assert.rejects(bucket.create("a", "x"), /wrong last sequence/);
  const watch = await bucket.watch();
  const changes = [];
  await bucket.put("b", "3");
  await bucket.delete("a");
  for await (const entry of watch) {
    changes.push(`${entry.operation} ${entry.key}`);
    if (changes.length === 3) break;
  }
  assert.deepEqual(changes, ["PUT a", "PUT b", "DEL a"]);
  assert.equal((await bucket.get("a")).operation, "DEL");
  const keys = [];
  for await (const key of await bucket.keys()) keys.push(key);
  assert.deepEqual(keys, ["b"]);
  const history = [];
  for await (const entry of await bucket.history({ key: "a" })) history.push(entry.revision);
  assert.deepEqual(history, [1, 2, 4]);
  await bucket.purge("a");
  await bucket.destroy();
});

await check("object store", async () => {
  const store = await new Objm(nc).create("files");
  const data = new Uint8Array(1_500_000).map((_, index) => (index * 7) % 256);
  await store.putBlob({ name: "photo" }, data);
  assert.deepEqual(await store.getBlob("photo"), data);
  const info = await store.info("photo");
  assert.equal(info.size, data.length);
  await store.delete("photo");
  assert.equal(await store.getBlob("photo"), null);
});

await check("purge and delete", async () => {
  assert.equal((await jsm.streams.purge("ORDERS", { filter: "orders.many" })).purged, 50);
  assert.equal(await jsm.streams.delete("ORDERS"), true);
  await assert.rejects(jsm.streams.info("ORDERS"), /not found/);
});

await nc.close();
console.log("done");
