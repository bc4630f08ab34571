// @nats-io/services: endpoints, groups, errors, discovery, statistics.
import { Svcm } from "@nats-io/services";
import { connect, fact as print, only, take } from "./facts.mjs";

const fact = (name, value) => print("services", name, value);

export async function run() {
  const nc = await connect();
  const client = await connect();
  const service = await new Svcm(nc).add({ name: "sums", version: "1.2.3", description: "adds", metadata: { team: "a" } });
  const group = service.addGroup("math");
  group.addEndpoint("add", (error, m) => {
    const numbers = m.json();
    if (!Array.isArray(numbers)) m.respondError(400, "not a list");
    else m.respond(JSON.stringify(numbers.reduce((a, b) => a + b, 0)));
  });
  service.addEndpoint("echo", { handler: (error, m) => m.respond(m.data), metadata: { kind: "plain" } });
  await nc.flush();

  fact("answer", (await client.request("math.add", JSON.stringify([1, 2, 3]))).json());
  const failed = await client.request("math.add", JSON.stringify("no list"));
  fact("error", [failed.headers.get("Nats-Service-Error-Code"), failed.headers.get("Nats-Service-Error")]);
  fact("echo", (await client.request("echo", "hello")).string());

  const discovery = new Svcm(client).client({ strategy: "count", maxMessages: 1, maxWait: 20000 });
  const [ping] = await take(await discovery.ping("sums"), 1);
  fact("ping", only(ping, "name", "version", "type", "metadata"));
  const [info] = await take(await discovery.info("sums", ping.id), 1);
  fact("info", [info.description, info.endpoints.map((e) => only(e, "name", "subject", "queue_group", "metadata"))]);
  const [stats] = await take(await discovery.stats("sums"), 1);
  fact("stats", stats.endpoints.map((e) => only(e, "name", "num_requests", "num_errors")));

  const second = await new Svcm(client).add({ name: "sums", version: "1.2.3" });
  await client.flush();
  const both = new Svcm(client).client({ strategy: "count", maxMessages: 2, maxWait: 20000 });
  fact("two instances", new Set((await take(await both.ping(), 2)).map((p) => p.id)).size);
  await second.stop();
  service.reset();
  fact("reset", (await service.stats()).endpoints.map((e) => e.num_requests));
  await service.stop();
  fact("stopped", service.isStopped);
  await client.close();
  await nc.close();
}
