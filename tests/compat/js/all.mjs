// Run as: node all.mjs URL AREA…. One line of JSON per fact: [area, name, value]. Ends with 0 when every area came to its end.
import { fact } from "./facts.mjs";

function timeout(milliseconds, promise) {
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error("no end in half a minute")), milliseconds).unref());
  return Promise.race([promise, late]);
}

let failed = 0;
for (const area of process.argv.slice(3)) {
  try {
    const { run } = await import(`./${area}.mjs`);
    await timeout(30_000, run());
    fact(area, "ended", true);
  } catch (error) {
    failed = 1;
    fact(area, "ended", error.stack);
  }
}
process.exit(failed);
