// @nats-io/nats-core over either transport: publish, subscribe, queues, requests, headers, limits, drain.
import { createInbox, deferred, Empty, headers } from "@nats-io/nats-core";
import { connect, fact as print, refused, take } from "./facts.mjs";

const fact = (name, value) => print("core", name, value);

export async function run() {
  const nc = await connect({ name: "core" });
  fact("info", {
    headers: nc.info.headers,
    proto: nc.info.proto,
    jetstream: nc.info.jetstream,
    max_payload: nc.info.max_payload,
  });
  fact("round trip", (await nc.rtt()) >= 0);

  const star = nc.subscribe("greet.*", { max: 3 });
  const tail = nc.subscribe("greet.>", { max: 4 });
  for (const subject of ["greet.a", "greet.b.c", "greet.d", "greet.e"]) nc.publish(subject, subject.toUpperCase());
  fact("one word", (await take(star, 3)).map((m) => m.string()));
  fact("several words", (await take(tail, 4)).map((m) => m.subject));

  const counts = [0, 0, 0];
  const all = deferred();
  const queues = counts.map((_, n) =>
    nc.subscribe("jobs", {
      queue: "workers",
      callback: () => {
        counts[n]++;
        if (counts[0] + counts[1] + counts[2] === 90) all.resolve();
      },
    })
  );
  const second = await connect();
  await nc.flush();
  for (let n = 0; n < 90; n++) second.publish("jobs");
  await all;
  await Promise.all([second.flush(), nc.flush()]);
  fact("queue group: each once, all take part", [counts[0] + counts[1] + counts[2], counts.every((n) => n > 0)]);
  queues.forEach((one) => one.unsubscribe());

  const hd = headers(503, "Busy");
  hd.append("Colour", "green");
  hd.append("Colour", "blue: light");
  hd.set("empty", "");
  const carried = nc.subscribe("headers", { max: 1 });
  await nc.flush();
  second.publish("headers", "body", { headers: hd });
  const [message] = await take(carried, 1);
  fact("headers", [message.headers.code, message.headers.description, message.headers.values("Colour"), message.headers.get("empty"), message.string()]);

  nc.subscribe("double", { callback: (_, m) => m.respond(m.string() + m.string()) });
  await nc.flush();
  fact("request", (await second.request("double", "ab")).string());
  fact("request, own inbox each", (await second.request("double", "x", { noMux: true, timeout: 5000 })).string());
  const answers = await Promise.all([...Array(200).keys()].map((n) => second.request("double", `${n}.`, { timeout: 20000 })));
  fact("requests at the same time", answers.every((a, n) => a.string() === `${n}.${n}.`));
  fact("no responders", await refused(second.request("nobody", Empty)));

  for (let n = 0; n < 3; n++) {
    nc.subscribe("many", { callback: (_, m) => m.respond(String(n)) });
  }
  await nc.flush();
  const several = await second.requestMany("many", Empty, { strategy: "count", maxMessages: 3, maxWait: 10000 });
  fact("request many", (await take(several, 3)).map((m) => m.string()).sort());

  const limited = nc.subscribe("limited", { max: 2 });
  for (let n = 0; n < 5; n++) nc.publish("limited", String(n));
  await nc.flush();
  const two = [];
  for await (const m of limited) two.push(m.string());
  fact("unsubscribe after two", two);

  const drained = nc.subscribe("drained");
  for (let n = 0; n < 5; n++) nc.publish("drained", String(n));
  await nc.flush();
  const over = drained.drain();
  nc.publish("drained", "late");
  const seen = [];
  for await (const m of drained) seen.push(m.string());
  await over;
  fact("drained subscription", seen.slice(0, 5));

  const large = new Uint8Array(nc.info.max_payload).map((_, n) => (n * 31) % 256);
  const big = nc.subscribe("large", { max: 1 });
  await nc.flush();
  second.publish("large", large);
  const [whole] = await take(big, 1);
  fact("largest payload", [whole.data.length, Buffer.compare(Buffer.from(whole.data), Buffer.from(large))]);
  fact("one byte more", await refused((async () => second.publish("large", new Uint8Array(nc.info.max_payload + 1)))()));

  const silent = await connect({ noEcho: true });
  let echoed = 0;
  silent.subscribe("echo", { callback: () => echoed++ });
  silent.publish("echo");
  await silent.flush();
  fact("no echo", echoed);
  await silent.close();

  const pedantic = await connect({ pedantic: true, verbose: true });
  await pedantic.flush();
  fact("verbose and pedantic", pedantic.isClosed());
  await pedantic.close();

  const token = await connect({ inboxPrefix: "mine" });
  const inbox = createInbox("mine");
  const own = token.subscribe(inbox, { max: 1 });
  await token.flush();
  nc.publish(inbox, "here");
  fact("own inbox prefix", [(await take(own, 1))[0].string(), (await token.request("double", "z")).string()]);
  await token.drain();
  fact("drained connection", [token.isClosed(), await refused((async () => token.publish("x"))())]);

  const stats = second.stats();
  fact("counts", [stats.outMsgs >= 200, stats.inMsgs >= 200]);
  await second.close();
  await nc.drain();
}
