"""Message tracing (``Nats-Trace-Dest``, ``msg_trace``): the events that nats-server tells of each message, and ours."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
from contextlib import suppress
from pathlib import Path

import cramjam
import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from system_script import Json, oracle_binary, running

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(oracle_binary() is None, reason="no nats-server at hand"),
]

CONFIGURATION = """
server_name: n1
listen: 127.0.0.1:-1
http: 127.0.0.1:-1
max_payload: 2000
jetstream {{ store_dir: "{directory}/data", max_mem: 1G, max_file: 1G }}
accounts {{
  A {{ jetstream: enabled, msg_trace: "traces.a", mappings {{ "from.*": "to.$1" }}, users [
        {{user: a, password: x}}, {{user: no_echo, password: x}},
        {{user: p, password: x, permissions {{ publish {{ deny: ["deny.>"] }},
                                             subscribe {{ deny: ["half.no"] }} }} }} ],
      exports [ {{stream: "told.>"}}, {{stream: "hidden.>"}}, {{service: "ask.>", allow_trace: true}},
                {{service: "hush.>"}}, {{service: "st.>", allow_trace: true}},
                {{service: "mapped.*", allow_trace: true}} ] }}
  B {{ users [ {{user: b, password: x}} ], msg_trace: {{dest: "traces.b", sampling: "100%"}},
      imports [ {{stream: {{account: A, subject: "told.>"}}, prefix: "seen", allow_trace: true}},
                {{stream: {{account: A, subject: "hidden.>"}}, allow_trace: false}},
                {{service: {{account: A, subject: "ask.>"}}}}, {{service: {{account: A, subject: "hush.>"}}}},
                {{service: {{account: A, subject: "st.>"}}}},
                {{service: {{account: A, subject: "mapped.*"}}, to: "m.*"}} ],
      exports [ {{service: "ask.>", allow_trace: true}} ] }}
  C {{ users [ {{user: c, password: x}} ], imports [ {{service: {{account: B, subject: "ask.>"}}, to: "chain.>"}} ] }}
}}"""
SAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b9c7c989f97918e1-01"
Case = tuple[str, str, dict[str, str], bytes]
"""Who publishes, on what, with which headers besides the destination, which body."""
CASES: list[Case] = [
    ("a", "nobody", {}, b""),
    ("a", "nobody", {"Nats-Trace-Only": "true"}, b""),
    ("a", "one", {"X": "1", "x": "2"}, b"body"),
    ("a", "one", {"Nats-Trace-Only": "1"}, b"body"),
    ("a", "one", {"Nats-Trace-Only": "yes"}, b"body"),
    ("a", "many.x", {}, b""),
    ("a", "many.x", {"Nats-Trace-Only": "on"}, b""),
    ("a", "queued", {}, b""),
    ("a", "queued", {"Nats-Trace-Only": "true"}, b""),
    ("no_echo", "own", {}, b""),
    ("a", "half.no", {}, b""),
    ("a", "half.yes", {}, b""),
    ("p", "deny.it", {}, b""),
    ("p", "deny.it", {"Nats-Trace-Only": "true"}, b""),
    ("p", "one", {"Nats-Trace-Dest": "deny.trace"}, b""),
    ("p", "one", {"Nats-Trace-Dest": "deny.trace", "Nats-Trace-Only": "true"}, b""),
    ("a", "one", {"Nats-Trace-Dest": "wild.*"}, b""),
    ("a", "one", {"Nats-Trace-Dest": "wild.*", "Nats-Trace-Only": "true"}, b""),
    ("a", "one", {"Nats-Trace-Dest": ""}, b""),
    ("a", "one", {"Nats-Trace-Dest": "trace disabled"}, b""),
    ("a", "one", {"Nats-Trace-Origin-Account": "B"}, b""),
    ("a", "one", {"Nats-Trace-Origin-Account": "B", "Nats-Trace-Only": "true"}, b""),
    ("a", "from.x", {}, b""),
    ("a", "from.x", {"Nats-Trace-Only": "true"}, b""),
    ("a", "told.x", {}, b""),
    ("a", "told.x", {"Nats-Trace-Only": "true"}, b""),
    ("a", "hidden.x", {}, b""),
    ("a", "hidden.x", {"Nats-Trace-Only": "true"}, b""),
    ("b", "ask.x", {}, b""),
    ("b", "ask.x", {"Nats-Trace-Only": "true"}, b""),
    ("b", "hush.x", {}, b""),
    ("b", "hush.x", {"Nats-Trace-Only": "true"}, b""),
    ("b", "m.x", {}, b""),
    ("c", "chain.x", {}, b""),
    ("c", "chain.x", {"Nats-Trace-Only": "true"}, b""),
    ("b", "st.other", {}, b"1"),
    ("b", "st.other", {"Nats-Trace-Only": "true"}, b"1"),
    ("a", "one", {"Nats-Trace-Dest": "", "traceparent": SAMPLED}, b""),
    ("a", "one", {"Nats-Trace-Dest": "", "TraceParent": SAMPLED}, b""),
    ("a", "one", {"Nats-Trace-Dest": "", "traceparent": SAMPLED[:-1] + "0"}, b""),
    ("a", "one", {"Nats-Trace-Dest": "", "traceparent": "x"}, b""),
    ("a", "one", {"Nats-Trace-Dest": "", "traceparent": SAMPLED, "Nats-Trace-Only": "true"}, b""),
    ("b", "one", {"Nats-Trace-Dest": "", "traceparent": SAMPLED}, b""),
    ("c", "one", {"Nats-Trace-Dest": "", "traceparent": SAMPLED}, b""),
    ("a", "one", {"traceparent": SAMPLED}, b""),
    ("a", "st.x", {}, b"1"),
    ("a", "st.x", {"Nats-Trace-Only": "true"}, b"1"),
    ("a", "st.x", {"Nats-Msg-Id": "1"}, b"1"),
    ("a", "st.x", {"Nats-Msg-Id": "1"}, b"1"),
    ("a", "st.x", {"Nats-Msg-Id": "1", "Nats-Trace-Only": "true"}, b"1"),
    ("a", "st.x", {"Nats-Expected-Last-Sequence": "77"}, b"1"),
    ("a", "st.x", {"Nats-Expected-Last-Sequence": "77", "Nats-Trace-Only": "true"}, b"1"),
    ("a", "st.x", {"Nats-Expected-Last-Msg-Id": "77", "Nats-Trace-Only": "true"}, b"1"),
    ("a", "st.x", {"Nats-Expected-Stream": "T"}, b"1"),
    ("a", "st.x", {"Nats-Rollup": "sub"}, b"1"),
    ("a", "st.x", {"Nats-TTL": "1h"}, b"1"),
    ("a", "st.x", {"Nats-Batch-Id": "b", "Nats-Batch-Sequence": "1", "Nats-Batch-Commit": "1"}, b"1"),
    ("a", "st.x", {}, b"1" * 200),
    ("a", "st.x", {"Nats-Trace-Only": "true"}, b"1" * 200),
    ("a", "in.x", {}, b"1"),
    ("a", "in.x", {"Nats-Trace-Only": "true"}, b"1"),
    ("a", "in.y", {}, b"1"),
    ("a", "in.y", {"Nats-Trace-Only": "true"}, b"1"),
    ("a", "tr.x", {}, b"1"),
    ("a", "tr.x", {"Nats-Trace-Only": "true"}, b"1"),
    ("a", "na.x", {}, b"1"),
    ("a", "na.x", {"Nats-Expected-Last-Sequence": "77"}, b"1"),
    ("a", "dn.x", {}, b"1"),
    ("a", "dn.x", {}, b"1"),
    ("a", "dn.x", {"Nats-Trace-Only": "true"}, b"1"),
    ("a", "sealed", {}, b"1"),
    ("a", "sealed", {"Nats-Trace-Only": "true"}, b"1"),
    ("a", "both", {}, b"1"),
    ("a", "both", {"Nats-Trace-Only": "true"}, b"1"),
    ("a", "ct.x", {"Nats-Incr": "+2"}, b""),
    ("a", "ct.x", {"Nats-Incr": "+2", "Nats-Trace-Only": "true"}, b""),
    ("a", "$JS.API.INFO", {}, b""),
    ("a", "$JS.API.INFO", {"Nats-Trace-Only": "true"}, b""),
    ("a", "$SYS.REQ.USER.INFO", {}, b""),
    ("a", "one", {"Accept-Encoding": "gzip"}, b"1"),
    ("a", "one", {"Accept-Encoding": "snappy"}, b"1"),
    ("a", "one", {"Accept-Encoding": "br"}, b"1"),
    ("a", "_GR_.x", {}, b"1"),
]
SILENT = [
    *[case for case in CASES if case[2].get("Nats-Trace-Dest") in ("deny.trace", "wild.*", "trace disabled")],
    *[case for case in CASES if "Nats-Trace-Origin-Account" in case[2] or case[2] == {"Nats-Trace-Dest": ""}],
    *[case for case in CASES if case[2].get("traceparent") in ("x", SAMPLED[:-1] + "0")],
    ("c", "one", {"Nats-Trace-Dest": "", "traceparent": SAMPLED}, b""),
]
"""Of these nothing is told."""
STREAMS: list[Json] = [
    {"name": "S", "subjects": ["st.>"], "max_msg_size": 150},
    {"name": "I", "subjects": ["in.*"], "retention": "interest"},
    {"name": "T", "subjects": ["tr.*"], "subject_transform": {"src": "tr.*", "dest": "turned.$1"}},
    {"name": "N", "subjects": ["na.*"], "no_ack": True},
    {"name": "D", "subjects": ["dn.*"], "discard": "new", "max_msgs": 1},
    {"name": "Z", "subjects": ["sealed"]},
    {"name": "BOTH", "subjects": ["both"]},
    {"name": "CT", "subjects": ["ct.*"], "allow_msg_counter": True, "allow_direct": True},
]


def in_order(value: Json) -> str:
    return json.dumps(value, sort_keys=True)


def shown(event: Json, names: dict[int, str]) -> Json:
    """A trace without times and ids."""
    server = event["server"]
    for key in ("id", "time", "seq", "ver", "host", "feature_flags", "flags"):
        server.pop(key, None)
    for each in event["events"]:
        assert each.pop("ts")
        if "cid" in each:
            each["cid"] = names.get(each["cid"], each["cid"])
        if each.get("to", "").startswith("_INBOX."):
            each["to"] = each["subj"] = "inbox"
    event["events"][1:] = sorted(event["events"][1:], key=in_order)  # in the order of the subscriptions, or not
    return event


def inflated(message: Msg) -> bytes:
    """The body, in clear."""
    match (message.headers or {}).get("Content-Encoding"):
        case "gzip":
            return gzip.decompress(message.data)
        case "snappy":
            return bytes(cramjam.snappy.decompress(message.data))
    return message.data


class Told:
    """A server's answers to the cases."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.clients: dict[str, Client] = {}
        self.names: dict[int, str] = {}
        self.heard: list[Json] = []
        self.errors: list[str] = []
        self.trace = asyncio.Event()

    async def connect(self, user: str, label: str, **more: Json) -> Client:
        async def on_error(error: Exception) -> None:
            self.errors.append(f"{label}: {error}")

        url = f"nats://{user}:x@127.0.0.1:{self.port}"
        client = await nats.connect(url, name=label, error_cb=on_error, allow_reconnect=False, **more)
        self.clients[label] = client
        self.names[client.client_id] = label
        return client

    async def listen(self, label: str, subject: str, queue: str = "") -> None:
        """Subscribe; requests are answered with who got them."""

        async def take(message: Msg) -> None:
            if message.subject.startswith("trace"):
                encoding = (message.headers or {}).get("Content-Encoding")
                event = shown(json.loads(inflated(message)), self.names)
                self.heard.append((label, message.subject, encoding, event))
                self.trace.set()
                return
            given = dict(message.headers or {})
            if given.get("Nats-Trace-Dest", "").startswith("_R_."):
                given["Nats-Trace-Dest"] = "_R_."
            info = given.pop("Nats-Request-Info", None)
            self.heard.append((label, message.subject, given, message.data.decode(), info is not None))
            if message.reply:
                await self.clients[label].publish(message.reply, label.encode())

        await self.clients[label].subscribe(subject, queue, cb=take)
        await self.clients[label].flush()

    async def publish(self, case: Case) -> Json:
        """What everybody heard of one message."""
        label, subject, given, body = case
        self.heard, self.errors = [], []
        self.trace.clear()
        client = self.clients[label]
        headers = {"Nats-Trace-Dest": f"trace.{label}"} | given
        if not headers["Nats-Trace-Dest"]:
            del headers["Nats-Trace-Dest"]
        inbox = client.new_inbox()
        answers = await client.subscribe(inbox)
        await client.publish(subject, body, inbox, headers=headers)
        for each in (*self.clients.values(), *self.clients.values()):
            await each.flush()
        if case not in SILENT:
            await asyncio.wait_for(self.trace.wait(), 10)
        try:
            reply: Json = (await answers.next_msg(timeout=0.2)).data.decode()
        except nats.errors.TimeoutError:
            reply = "none"
        except nats.errors.NoRespondersError:
            reply = "503"
        if reply != "none" and subject in ("many.x", "queued", "both"):
            reply = "whoever comes first"
        elif reply.startswith("{"):
            reply = [json.loads(reply).get(key) for key in ("error", "stream", "seq", "type")]
        await answers.unsubscribe()
        return sorted(self.heard, key=in_order), self.errors, reply

    async def publish_too_much(self) -> Json:
        """What is told of a message that ends its connection."""
        self.heard = []
        self.trace.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        header = b"NATS/1.0\r\nNats-Trace-Dest: trace.large\r\n\r\n"
        writer.write(b'CONNECT {"user":"a","pass":"x","verbose":false,"headers":true,"name":"large"}\r\n')
        writer.write(b"HPUB one %d 2001\r\n%b" % (len(header), header + bytes(2001 - len(header)) + b"\r\n"))
        with suppress(ConnectionError):  # what was not read is no reason to end well
            await reader.read()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        await asyncio.wait_for(self.trace.wait(), 10)
        for _, _, _, event in self.heard:
            event["events"][0].pop("cid")
        return self.heard


async def told(directory: Path, *command: str) -> list[Json]:
    found: list[Json] = []
    async with running(directory, CONFIGURATION.format(directory=directory), *command) as (port, _):
        server = Told(port)
        a = await server.connect("a", "a")
        for user in ("b", "c", "p"):
            await server.connect(user, user)
        await server.connect("no_echo", "no_echo", no_echo=True)
        await server.connect("a", "other")
        for label in ("a", "b", "c"):
            await server.listen(label, "trace.*")
            await server.listen(label, "traces.*")
            await server.listen(label, "one")
        await server.listen("p", "half.*")
        await server.listen("no_echo", "own")
        for label, queue in (("other", ""), ("a", ""), ("a", "q")):
            await server.listen(label, "many.*", queue)
        await server.listen("other", "many.>")
        await server.listen("other", "queued", "q1")
        await server.listen("a", "queued", "q2")
        await server.listen("other", "to.*")
        await server.listen("b", "seen.told.*")
        await server.listen("b", "hidden.x", "q")
        for subject in ("ask.*", "hush.*", "mapped.x", "both"):
            await server.listen("other", subject)
        for config in STREAMS:
            answer = await a.request(f"$JS.API.STREAM.CREATE.{config['name']}", json.dumps(config).encode())
            assert "error" not in json.loads(answer.data), answer.data
        sealed = json.dumps(STREAMS[5] | {"sealed": True}).encode()
        assert "error" not in json.loads((await a.request("$JS.API.STREAM.UPDATE.Z", sealed)).data)
        consumer = {
            "stream_name": "I",
            "config": {"durable_name": "c", "ack_policy": "explicit", "filter_subject": "in.x"},
        }
        await a.request("$JS.API.CONSUMER.CREATE.I.c.in.x", json.dumps(consumer).encode())
        found += [(case[:3], *await server.publish(case)) for case in CASES]
        for seq in range(1, 14):
            stored = await a.request("$JS.API.STREAM.MSG.GET.S", json.dumps({"seq": seq}).encode())
            found.append(json.loads(stored.data).get("message", {}).get("hdrs"))
        found.append(await server.publish_too_much())
        for client in server.clients.values():
            await client.close()
    return found


def test_the_same_traces(tmp_path: Path) -> None:
    for name in ("theirs", "ours"):
        (tmp_path / name).mkdir()

    async def both() -> tuple[list[Json], list[Json]]:
        binary = oracle_binary()
        assert binary is not None
        return await asyncio.gather(
            told(tmp_path / "theirs", binary),
            told(tmp_path / "ours", sys.executable, "-m", "server.cli.main", "serve"),
        )

    theirs, ours = asyncio.run(both())
    for there, here in zip(theirs, ours, strict=True):
        assert here == there
