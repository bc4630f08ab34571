// The older package `nats` (TCP only): the same server, the client many applications still have.
import { AckPolicy, connect, consumerOpts, Empty, headers, JSONCodec, StringCodec } from "nats";
import { fact as print, only, refused, take, url } from "./facts.mjs";

const fact = (name, value) => print("legacy", name, value);

export async function run() {
  const nc = await connect({ servers: url, reconnect: false });
  const text = StringCodec();
  const json = JSONCodec();
  nc.subscribe("double", { callback: (_, m) => m.respond(text.encode(m.string() + m.string())) });
  fact("request", (await nc.request("double", text.encode("ab"))).string());
  fact("no responders", await refused(nc.request("nobody", Empty)));
  const hd = headers();
  hd.set("Colour", "green");
  const sub = nc.subscribe("h", { max: 1 });
  nc.publish("h", Empty, { headers: hd });
  fact("headers", (await take(sub, 1))[0].headers.get("Colour"));

  const jsm = await nc.jetstreamManager();
  const js = nc.jetstream({ timeout: 20000 });
  await jsm.streams.add({ name: "OLD", subjects: ["old.*"] });
  for (let n = 0; n < 20; n++) await js.publish("old.a", json.encode({ n }));
  await jsm.consumers.add("OLD", { durable_name: "worker", ack_policy: AckPolicy.Explicit });
  const consumer = await js.consumers.get("OLD", "worker");
  const seen = [];
  for await (const m of await consumer.fetch({ max_messages: 20, expires: 20000 })) {
    seen.push(m.json().n);
    m.ack();
  }
  fact("fetched", seen);
  const options = consumerOpts();
  options.orderedConsumer();
  const ordered = await js.subscribe("old.a", options);
  fact("ordered, push", (await take(ordered, 20)).map((m) => m.seq));
  const pull = consumerOpts();
  pull.durable("puller");
  pull.ackExplicit();
  pull.manualAck();
  const pulling = await js.pullSubscribe("old.a", pull);
  pulling.pull({ batch: 5, expires: 20000 });
  fact("pull subscription", (await take(pulling, 5)).map((m) => (m.ack(), m.seq)));

  const kv = await js.views.kv("old", { history: 3 });
  fact("kv", [await kv.put("a", text.encode("1")), (await kv.get("a")).string(), await refused(kv.update("a", text.encode("2"), 9))]);
  const watch = await kv.watch();
  await kv.delete("a");
  fact("kv watch", (await take(watch, 2)).map((e) => [e.key, e.operation]));
  const store = await js.views.os("old");
  await store.putBlob({ name: "one" }, new Uint8Array(300000));
  fact("object", (await store.getBlob("one")).length);

  const service = await nc.services.add({ name: "old", version: "0.0.1" });
  service.addEndpoint("upper", (_, m) => m.respond(text.encode(m.string().toUpperCase())));
  await nc.flush();
  fact("service", (await nc.request("upper", text.encode("abc"))).string());
  const [ping] = await take(await nc.services.client({ strategy: "count", maxMessages: 1 }).ping("old"), 1);
  fact("service ping", only(ping, "name", "version"));
  await service.stop();
  await kv.destroy();
  await store.destroy();
  fact("deleted", await jsm.streams.delete("OLD"));
  await nc.drain();
  fact("closed", nc.isClosed());
}
