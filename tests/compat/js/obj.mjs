// @nats-io/obj: objects in chunks, links, watches, sealing.
import { createHash } from "node:crypto";
import { Objm } from "@nats-io/obj";
import { connect, fact as print, only, refused, take } from "./facts.mjs";

const fact = (name, value) => print("obj", name, value);

function stream(data) {
  return new ReadableStream({
    start(controller) {
      for (let at = 0; at < data.length; at += 70000) controller.enqueue(data.subarray(at, at + 70000));
      controller.close();
    },
  });
}

export async function run() {
  const nc = await connect();
  const objm = new Objm(nc);
  const files = await objm.create("files", { description: "of all" });
  const data = new Uint8Array(1_500_000).map((_, n) => (n * 7) % 256);
  const put = await files.put({ name: "photo", description: "large", options: { max_chunk_size: 100000 }, metadata: { a: "1" } }, stream(data));
  fact("put", only(put, "name", "size", "chunks", "digest", "deleted", "revision", "metadata", "description"));
  const read = await files.get("photo");
  const hash = createHash("sha256");
  for await (const chunk of read.data) hash.update(chunk);
  fact("get", [await read.error === null, hash.digest("hex")]);
  await files.putBlob({ name: "empty" }, new Uint8Array(0));
  fact("nothing in it", (await files.getBlob("empty"))?.length);
  fact("not there", [await files.get("none"), await files.info("none")]);
  await files.putBlob({ name: "photo" }, new TextEncoder().encode("small now"));
  fact("replaced", new TextDecoder().decode(await files.getBlob("photo")));
  fact("size after that", only((await files.status()).streamInfo.state, "messages", "num_subjects"));

  fact("renamed", only(await files.update("photo", { name: "picture", description: "renamed" }), "stream", "duplicate"));
  const more = await objm.create("more");
  await more.link("shortcut", await files.info("picture"));
  fact("link", [(await more.info("shortcut")).options.link, new TextDecoder().decode(await more.getBlob("shortcut"))]);
  await more.linkStore("all", files);
  fact("link of a store", (await more.info("all")).options.link);
  fact("list", (await files.list()).map((i) => [i.name, i.size, i.deleted]).sort());

  const watch = await files.watch({ includeHistory: false });
  await files.delete("empty");
  await files.putBlob({ name: "last" }, new Uint8Array(3));
  fact("watch", (await take(watch, 2)).map((i) => [i.name, i.deleted, i.size]));
  fact("deleted", [only(await files.info("empty"), "name", "size", "deleted"), await files.getBlob("empty")]);

  await files.seal();
  fact("sealed", [(await files.status()).sealed, await refused(files.putBlob({ name: "x" }, new Uint8Array(1)))]);
  const stores = [];
  for await (const one of objm.list()) stores.push(one.bucket);
  fact("stores", stores.sort());
  fact("destroyed", [await files.destroy(), await more.destroy()]);
  await nc.close();
}
