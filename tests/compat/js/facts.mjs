// What every script here stands on: a connection over TCP or WebSocket, and facts, printed for the Python test to compare.
import { connect as tcp } from "@nats-io/transport-node";
import { wsconnect } from "@nats-io/nats-core";
import { WebSocket } from "ws";

// Node has a WebSocket of its own from version 22 on.
globalThis.WebSocket ??= WebSocket;

export const url = process.argv[2];

export function connect(options = {}) {
  const open = url.startsWith("ws:") ? wsconnect : tcp;
  return open({ servers: url, reconnect: false, ...options });
}

export function fact(area, name, value) {
  console.log(JSON.stringify([area, name, value ?? null]));
}

// What a refused call says, without what differs from run to run.
export async function refused(promise) {
  try {
    await promise;
  } catch (error) {
    const { code, name, message } = error;
    return { name, message: message.replaceAll(/_INBOX[.\w]+/g, "_INBOX"), code: error.api?.()?.err_code ?? code ?? null };
  }
  return "accepted";
}

export async function take(iterator, count) {
  const taken = [];
  if (count === 0) return taken;
  for await (const one of iterator) {
    taken.push(one);
    if (taken.length === count) break;
  }
  return taken;
}

export function only(object, ...keys) {
  return Object.fromEntries(keys.map((key) => [key, object[key] ?? null]));
}
