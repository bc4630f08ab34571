"""Exports' ``latency``, and those for the account that a token of the subject names, beside nats-server."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from system_script import Json, oracle_binary, running

from server.config.errors import ConfigError
from server.config.reader import load_options

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(oracle_binary() is None, reason="no nats-server at hand"),
]

CONFIGURATION = """
server_name: n1
listen: 127.0.0.1:-1
http: 127.0.0.1:-1
jetstream {{ store_dir: "{directory}/data", max_mem: 1G, max_file: 1G }}
accounts {{
  A {{ jetstream: enabled, users [ {{user: a, password: x}} ], exports [
    {{service: "all", latency: "lat.all"}},
    {{service: "shared", latency: {{sampling: "100%", subject: "lat.shared"}}}},
    {{service: "hurried", threshold: 100ms, latency: {{subject: "lat.hurried", sampling: 100}}}},
    {{service: "patient", latency: {{subject: "lat.patient", sampling: "100"}}}},
    {{service: "traced", latency: {{sampling: headers, subject: "lat.traced"}}}},
    {{service: "wild.*.>", latency: "lat.wild"}},
    {{service: "s.*", latency: "lat.stream"}},
    {{service: "for.*.ask", account_token_position: 2, latency: "lat.for"}},
    {{stream: "news.*.>", account_token_position: 2}} ] }}
  B {{ users [ {{user: b, password: x}} ], exports [ {{service: "chain", latency: "lat.chain"}} ],
       imports [ {{service: {{account: A, subject: "all"}}, to: "chain"}} ] }}
  C {{ users [ {{user: c, password: x}} ], imports [
    {{service: {{account: A, subject: "all"}}}}, {{service: {{account: A, subject: "shared"}}, share: true}},
    {{service: {{account: A, subject: "hurried"}}}}, {{service: {{account: A, subject: "patient"}}}},
    {{service: {{account: A, subject: "traced"}}}},
    {{service: {{account: A, subject: "wild.*.>"}}, to: "mine.*.>"}}, {{service: {{account: A, subject: "s.*"}}}},
    {{service: {{account: A, subject: "for.C.ask"}}, to: "ask"}}, {{service: {{account: B, subject: "chain"}}}},
    {{stream: {{account: A, subject: "news.C.>"}}, to: "mynews.>"}} ] }}
}}"""
B3 = {"X-B3-TraceId": "80f1", "X-B3-SpanId": "e457", "X-B3-ParentSpanId": "05e3"}
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-"
HEADERS: list[dict[str, str]] = [
    {"X": "1"},
    {"Uber-Trace-Id": "479fefe9525eddb:5adb976bfc1f95c1:479fefe9525eddb:1", "Uberctx-A": "b", "uberctx-c": "d"},
    *[{"uber-trace-id": f"1:2:3:{flags}"} for flags in ("0", "2", "3", "f", "01", "10", "g", "x1", "", "001")],
    {"Uber-Trace-Id": "1:2:3", "X-B3-Sampled": "1"},
    {"X-B3-Sampled": "1"},
    {"X-B3-Sampled": "0", **B3},
    {"X-B3-Sampled": "true", **B3},
    {"x-b3-sampled": "2"},
    B3,
    {"b3": "0"},
    {"B3": "80f1-e457-1-05e3"},
    {"B3": "80f1-e457-0-05e3"},
    {"B3": "80f1-e457"},
    {"B3": "80f1-e457-0", "traceparent": PARENT + "01"},
    *[{"traceparent": PARENT + flags, "tracestate": "a=b"} for flags in ("01", "00", "03", "0x", "ff", "+1", "1")],
    {"Traceparent": "01"},
]


async def settled(client: Client) -> None:
    """The server has seen all that the client said: its first PING may go before what waits to be written."""
    for _ in range(2):
        await client.flush()


class Metrics:
    """Everything that is measured, in order; what was not measured shows by what comes after it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.heard: asyncio.Queue[Json] = asyncio.Queue()

    async def listen(self) -> None:
        await self.client.subscribe("lat.>", cb=self._take)
        await settled(self.client)

    async def _take(self, message: Msg) -> None:
        await self.heard.put(shown(message))

    async def next(self) -> Json:
        return await asyncio.wait_for(self.heard.get(), 10)


def shown(message: Msg) -> Json:
    """The subject and the measurement, in order, without what differs from run to run."""
    body = json.loads(message.data)
    assert len(body["id"]) == 22
    for name in ("timestamp", "start"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", body[name]), body
    took = [body[name] for name in ("service", "system", "total")]
    if body["status"] == 200:
        rtt = [body[name]["rtt"] for name in ("requestor", "responder")]
        assert min(*took, *rtt) >= 0
        assert took[2] >= rtt[0] + took[0] + took[1]
        took = []
    return message.subject, [(name, _shown(name, body[name])) for name in body], took, dict(message.headers or {})


def _shown(name: str, told: Json) -> Json:
    if name in ("id", "timestamp", "start", "service", "system", "total", "rtt"):
        return None
    return [(each, _shown(each, told[each])) for each in told] if isinstance(told, dict) else told


Step = Callable[[Client, Client, Client, Metrics], Awaitable[list[Json]]]


async def answered(a: Client, b: Client, c: Client, metrics: Metrics) -> list[Json]:
    found = []
    for subject in ("all", "shared", "mine.x.y.z", "ask"):
        await c.request(subject, b"?", timeout=10)
        found.append(await metrics.next())
    return found


async def chained(a: Client, b: Client, c: Client, metrics: Metrics) -> list[Json]:
    """Each exporter hears what it exports."""
    theirs = Metrics(b)
    await theirs.listen()
    await c.request("chain", b"?", timeout=10)
    return [await metrics.next(), await theirs.next()]


async def without_reply(a: Client, b: Client, c: Client, metrics: Metrics) -> list[Json]:
    await c.publish("all", b"?")
    await c.publish("shared", b"?", headers={"B3": "1"})
    await c.publish("traced", b"?", headers={"B3": "1", "X": "y"})
    return [await metrics.next() for _ in range(3)]


async def nobody_serves(a: Client, b: Client, c: Client, metrics: Metrics) -> list[Json]:
    with pytest.raises(nats.errors.NoRespondersError):
        await c.request("hurried", b"?", timeout=10)
    return [await metrics.next()]


async def late(a: Client, b: Client, c: Client, metrics: Metrics) -> list[Json]:
    silent = await a.subscribe("hurried")
    await settled(a)
    inbox = await c.subscribe("in.late")
    await c.publish("hurried", b"?", reply="in.late")
    found = [await metrics.next()]
    await a.publish((await silent.next_msg(10)).reply, b"too late")
    await settled(a)
    await settled(c)
    assert inbox.pending_msgs == 0
    await silent.unsubscribe()
    await settled(a)
    return found


async def requestor_gone(a: Client, b: Client, c: Client, metrics: Metrics) -> list[Json]:
    """It unsubscribes, or another still listens, or it leaves."""
    found = []
    silent = await a.subscribe("patient")
    await settled(a)
    asker = await nats.connect(f"nats://c:x@127.0.0.1:{c.connected_url.port}", name="asker")
    inbox, other = await asker.subscribe("in.gone"), await c.subscribe("in.*")
    await settled(c)
    await asker.publish("patient", b"?", reply="in.gone")
    await silent.next_msg(10)
    await inbox.unsubscribe()
    await settled(asker)
    await other.unsubscribe()
    found.append(await metrics.next())
    await asker.subscribe("in.gone")
    await asker.publish("patient", b"?", reply="in.gone", headers={"B3": "1"})
    await silent.next_msg(10)
    await asker.close()
    found.append(await metrics.next())
    await silent.unsubscribe()
    await settled(a)
    return found


async def traced(a: Client, b: Client, c: Client, metrics: Metrics) -> list[Json]:
    """Behind each request another, which is measured in any case."""
    found: list[Json] = []
    for headers in HEADERS:
        await c.request("traced", b"?", timeout=10, headers=headers)
        await c.request("all", b"?", timeout=10, headers=headers)
        while not found or found[-1] != "next":
            subject, *measured = await metrics.next()
            found.append("next" if subject == "lat.all" else (headers, subject, measured))
        found[-1] = (headers, "end")
    return found


async def engine_answers(a: Client, b: Client, c: Client, metrics: Metrics) -> list[Json]:
    await a.request("$JS.API.STREAM.CREATE.S", json.dumps({"name": "S", "subjects": ["s.*"]}).encode())
    await c.request("s.1", b"?", timeout=10)
    await c.request("all", b"?", timeout=10)
    return [await metrics.next()]


async def one_answer_counts(a: Client, b: Client, c: Client, metrics: Metrics) -> list[Json]:
    await c.request("mine.twice.x", b"?", timeout=10)
    await c.request("all", b"?", timeout=10)
    return [await metrics.next() for _ in range(2)]


async def news(a: Client, b: Client, c: Client, metrics: Metrics) -> list[Json]:
    heard = await c.subscribe("mynews.>")
    await settled(c)
    for account in "BC":
        await a.publish(f"news.{account}.x", account.encode())
    message = await heard.next_msg(10)
    return [(message.subject, message.data, heard.pending_msgs)]


def account_page(http: int, account: str) -> Json:
    """What monitoring shows of an account."""
    with urllib.request.urlopen(f"http://127.0.0.1:{http}/accountz?acc={account}") as page:
        return json.loads(page.read())["account_detail"]


def accounts_page(http: int) -> list[Json]:
    """What is exported, and what is imported; the order is nobody's."""
    shared = [account_page(http, account)[kind] for account, kind in (("A", "exports"), ("C", "imports"))]
    return [sorted(([*each.items()] for each in given), key=str) for given in shared]


STEPS: dict[str, Step] = {
    step.__name__: step
    for step in (
        *(answered, chained, without_reply, nobody_serves, late, requestor_gone, traced, engine_answers),
        *(one_answer_counts, news),
    )
}


async def told(directory: Path, *command: str) -> dict[str, Json]:
    found: dict[str, Json] = {}
    async with running(directory, CONFIGURATION.format(directory=directory), *command) as (port, http):
        a, b, c, s = [await nats.connect(f"nats://{user}:x@127.0.0.1:{port}", name=f"client-{user}") for user in "abca"]

        async def answer(message: Msg) -> None:
            if message.reply:
                await s.publish(message.reply, b"!")
            if "twice" in message.subject:
                await s.publish(message.reply, b"!")

        for subject in ("all", "shared", "traced", "wild.*.>", "for.*.ask"):
            await s.subscribe(subject, cb=answer)
        await settled(s)
        metrics = Metrics(a)
        await metrics.listen()
        for name, step in STEPS.items():
            found[name] = await step(a, b, c, metrics)
        assert metrics.heard.empty()
        found["page"] = await asyncio.to_thread(accounts_page, http)
        for client in (a, b, c, s):
            await client.close()
    return found


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Json], dict[str, Json]]:
    binary, directory = oracle_binary(), tmp_path_factory.mktemp("latency")
    assert binary is not None

    for name in ("theirs", "ours"):
        (directory / name).mkdir()

    async def main() -> tuple[dict[str, Json], dict[str, Json]]:
        theirs, ours = await asyncio.gather(
            told(directory / "theirs", binary),
            told(directory / "ours", sys.executable, "-m", "server.cli.main", "serve"),
        )
        return theirs, ours

    return asyncio.run(main())


@pytest.mark.parametrize("step", [*STEPS, "page"])
def test_the_same_is_measured(both: tuple[dict[str, Json], dict[str, Json]], step: str) -> None:
    theirs, ours = both
    assert ours[step] == theirs[step]


EXPORTS = [
    '{service: "x", latency: {subject: "y", sampling: 101}}',
    '{service: "x", latency: {subject: "y", sampling: 0}}',
    '{service: "x", latency: {subject: "y", sampling: "0%"}}',
    '{service: "x", latency: {subject: "y", sampling: "many"}}',
    '{service: "x", latency: {subject: "y", sampling: true}}',
    '{service: "x", latency: {subject: "y", sampling: " Headers "}}',
    '{service: "x", latency: {subject: "y", sampling: 1}}',
    '{service: "x", latency: {sampling: 1}}',
    '{service: "x", latency: {subject: 1}}',
    '{service: "x", latency: 1}',
    '{service: "x", latency: "y.*"}',
    '{service: "x", latency: "x"}',
    '{service: "x.>", latency: "x.y"}',
    '{service: "x", latency: "y", response: stream}',
    '{service: "x", latency: "y", response: single}',
    '{stream: "x", latency: "y"}',
    '{service: "x.*", account_token_position: 1}',
    '{service: "x.*", account_token_position: 3}',
    '{stream: "x.*", account_token_position: 1}',
    '{stream: "x.>", account_token_position: 2}',
    '{stream: "x.*", account_token_position: 2}',
    '{stream: "x.*", account_token_position: 0}',
]
IMPORTS = [
    ('{service: "x.*", account_token_position: 2}', '{service: {account: A, subject: "x.B"}}'),
    ('{service: "x.*", account_token_position: 2}', '{service: {account: A, subject: "x.A"}}'),
    ('{service: "x.*", account_token_position: 2}', '{service: {account: A, subject: "x.*"}}'),
    ('{service: "x.*.>", account_token_position: 2}', '{service: {account: A, subject: "x.B.>"}}'),
    ('{stream: "x.*", account_token_position: 2}', '{stream: {account: A, subject: "x.B"}}'),
    ('{stream: "x.*", account_token_position: 2}', '{stream: {account: A, subject: "x.C"}}'),
    ('{stream: "x.*", account_token_position: 2}', '{stream: {account: A, subject: "x.*"}}'),
]


def complaint(text: str) -> str:
    """What is wrong, without where; "" if nothing is. Go's own words about types and numbers are of no interest."""
    said = text.strip().splitlines()[-1] if text.strip() else ""
    said = re.sub(r"^.*?\.conf(:\d+:\d+)?:? *", "", said)
    return re.sub(r"(, got |sample: ).*", r"\1...", said) if "is valid" not in said else ""


@pytest.mark.parametrize(("export", "wanted"), [*((each, "") for each in EXPORTS), *IMPORTS])
def test_the_same_is_refused(tmp_path: Path, export: str, wanted: str) -> None:
    path = tmp_path / "x.conf"
    path.write_text(f"accounts {{ A {{ exports [ {export} ] }}\n B {{ imports [ {wanted} ] }} }}\n")
    binary = oracle_binary()
    assert binary is not None
    there = subprocess.run([binary, "-t", "-c", path], capture_output=True, text=True, check=False)
    try:
        load_options(path, {})
        here = ""
    except ConfigError as error:
        here = str(error)
    assert (complaint(here) != "") == (there.returncode != 0), there.stderr
    assert complaint(here) == complaint(there.stderr)
