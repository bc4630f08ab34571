// @nats-io/kv: revisions, watches, history, markers that expire.
import { Kvm } from "@nats-io/kv";
import { connect, fact as print, only, refused, take } from "./facts.mjs";

const fact = (name, value) => print("kv", name, value);

export async function run() {
  const nc = await connect();
  const kvm = new Kvm(nc);
  const kv = await kvm.create("settings", { history: 5, description: "of all", markerTTL: 3600000 });
  const status = await kv.status();
  fact("status", only(status, "bucket", "history", "values", "replicas", "description", "markerTTL", "ttl"));

  fact("put", [await kv.put("a.b", "1"), await kv.put("a.c", "x")]);
  const entry = await kv.get("a.b");
  fact("get", [entry.key, entry.string(), entry.revision, entry.operation, entry.delta, entry.bucket]);
  fact("get what is not there", await kv.get("none"));
  fact("get a revision", [(await kv.get("a.b", { revision: 1 })).string(), await kv.get("a.b", { revision: 2 })]);
  fact("update", [await kv.update("a.b", "2", 1), await refused(kv.update("a.b", "3", 1))]);
  fact("create", [await kv.create("new", "n"), await refused(kv.create("new", "m"))]);
  fact("bad key", await refused(kv.put("a b", "1")));

  const watch = await kv.watch({ key: "a.*" });
  const changes = [];
  await kv.put("a.d", "4");
  await kv.put("other", "no");
  await kv.delete("a.c");
  await kv.purge("a.b");
  for await (const one of watch) {
    changes.push([one.operation, one.key, one.revision, one.isUpdate]);
    if (changes.length === 5) break;
  }
  fact("watch", changes);
  const updates = await kv.watch({ include: "updates" });
  await kv.put("a.d", "5");
  fact("watch, only updates", (await take(updates, 1)).map((e) => [e.key, e.string()]));
  const histories = await kv.watch({ include: "history", key: "a.d" });
  fact("watch, with history", (await take(histories, 2)).map((e) => e.string()));

  const keys = [];
  for await (const key of await kv.keys()) keys.push(key);
  fact("keys", keys.sort());
  const some = [];
  for await (const key of await kv.keys(["a.*"])) some.push(key);
  fact("keys, filtered", some.sort());
  const history = [];
  for await (const one of await kv.history({ key: "a.>" })) history.push([one.key, one.operation, one.revision]);
  fact("history", history);
  for (let n = 0; n < 9; n++) await kv.put("deep", String(n));
  const deep = [];
  for await (const one of await kv.history({ key: "deep" })) deep.push(one.string());
  fact("history is as deep as it was made", deep);

  fact("delete of a revision", [await refused(kv.delete("deep", { previousSeq: 1 })), await refused(kv.purge("deep", { previousSeq: 1 }))]);
  fact("created after a delete", await kv.create("a.c", "again"));
  fact("created with a ttl", [await kv.create("brief", "gone soon", "1s"), (await kv.get("brief")).string()]);
  fact("purged with a marker's ttl", [await refused(kv.purge("deep", { ttl: "60s" })), (await kv.get("deep")).operation]);
  await kv.purgeDeletes(0);
  fact("markers purged", [await kv.get("deep"), await kv.get("a.b")]);

  const buckets = [];
  for await (const one of kvm.list()) buckets.push(one.bucket);
  fact("buckets", buckets);
  fact("opened", (await (await kvm.open("settings")).get("new")).string());
  fact("destroyed", [await kv.destroy(), await refused((await kvm.open("settings")).status())]);
  await nc.close();
}
