"""Pages: field names and types as nats-server's (recorded in ``tests/golden/monitor``), parameters, texts."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from monitor_fakes import JetStream, make_source
from prometheus_client.parser import text_string_to_metric_families

from jetstore.errors import Corruption
from jetstore.model.api_errors import api_error
from jetstore.model.levels import API_LEVEL
from server.monitor.monitor import Monitor
from server.monitor.process import ProcessUsage
from server.monitor.query import uptime_text

GOLDEN = Path(__file__).parents[2] / "golden" / "monitor"
SECOND = 1_000_000_000

NOT_SHOWN = {
    # Fields of nats-server's that have nothing to say here.
    "varz": {"git_commit", "feature_flags"},
    "connz": set[str](),
    "subsz": set[str](),
    "jsz": set[str](),
}
OURS = {"varz": {"jetstore"}, "connz": set[str](), "subsz": set[str](), "jsz": set[str]()}


def ask(target: str, jetstream: JetStream | None = None, **source: Any) -> tuple[int, bytes]:
    response = asyncio.run(Monitor(make_source(jetstream, **source)).answer(target))
    return response.status, response.body


def page(target: str, jetstream: JetStream | None = None, **source: Any) -> Any:
    status, body = ask(target, jetstream, **source)
    assert status == 200, body
    return json.loads(body)


def kind(value: object) -> str:
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


@pytest.mark.parametrize(
    ("name", "target"),
    [("varz", "/varz"), ("connz", "/connz"), ("subsz", "/subsz"), ("jsz", "/jsz?consumers=1&config=1")],
)
def test_fields_and_types_are_nats_servers(name: str, target: str) -> None:
    theirs = json.loads((GOLDEN / f"{name}.json").read_text())
    ours = page(target, JetStream())
    assert set(theirs) - NOT_SHOWN[name] == set(ours) - OURS[name]
    for field in set(theirs) & set(ours):
        assert kind(theirs[field]) == kind(ours[field]), field
    if name == "connz":
        assert set(theirs["connections"][0]) == set(ours["connections"][0])
    if name == "jsz":
        their_account, our_account = theirs["account_details"][0], ours["account_details"][0]
        assert set(their_account) == set(our_account)
        their_stream, our_stream = their_account["stream_detail"][0], our_account["stream_detail"][0]
        assert set(their_stream) == set(our_stream)
        assert set(their_stream["state"]) == set(our_stream["state"])
        assert set(their_stream["consumer_detail"][0]) - {"push_bound"} == set(our_stream["consumer_detail"][0])


def test_varz_values() -> None:
    shown = page("/varz", JetStream())
    assert shown["uptime"] == "1h2m5s"
    assert (shown["connections"], shown["total_connections"], shown["subscriptions"]) == (2, 9, 11)
    assert (shown["in_msgs"], shown["out_bytes"], shown["slow_consumers"]) == (10, 200, 1)
    assert shown["slow_consumer_stats"] == {"clients": 1, "routes": 0, "gateways": 0, "leafs": 0}
    assert shown["jetstream"]["stats"]["storage"] == 134
    assert shown["jetstream"]["stats"]["api"] == {"level": API_LEVEL, "total": 11, "errors": 2}
    assert shown["cluster"] == {"name": "c1"}
    assert page("/varz")["jetstream"] == {}


def test_connz_sorting_paging_and_filters() -> None:
    def cids(query: str) -> list[int]:
        return [connection["cid"] for connection in page(f"/connz?{query}")["connections"]]

    assert cids("") == [1, 2]
    assert cids("sort=msgs_from") == [2, 1]
    assert cids("sort=msgs_to") == [1, 2]
    assert cids("sort=subs") == [1, 2]
    assert cids("state=closed") == [3]
    assert cids("state=all") == cids("state=ANY") == [1, 2, 3]
    assert cids("offset=1") == [2]
    assert cids("limit=1") == [1]
    assert cids("offset=-4&limit=-1") == [1, 2]
    assert cids("cid=3") == [3]
    assert cids("cid=99") == []
    assert cids("auth=1&user=u") == [2]
    assert cids("auth=1&acc=$G&state=all") == [1, 3]
    shown = page("/connz?limit=1")
    assert (shown["total"], shown["num_connections"], shown["limit"]) == (2, 1, 1)


def test_connz_details() -> None:
    one, two = page("/connz?subs=1&auth=true")["connections"]
    assert one["subscriptions_list"] == ["a.*", "b"]
    assert "account" not in one
    assert (two["account"], two["authorized_user"]) == ("A", "u")
    assert "rtt" not in two
    assert one["rtt"] == "1.5ms"
    one, _ = page("/connz?subs=detail")["connections"]
    assert one["subscriptions_list_detail"][1] == {
        "subject": "b",
        "qgroup": "q",
        "sid": "2",
        "msgs": 0,
        "cid": 1,
    }
    (closed,) = page("/connz?state=closed")["connections"]
    assert closed["reason"] == "Client Closed"
    assert closed["stop"].endswith("Z")


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("/connz?sort=zzz", "invalid sorting option: zzz"),
        ("/connz?sort=stop", "sort by stop only valid on closed connections"),
        ("/connz?state=foo", "Error decoding state for foo"),
        ("/connz?limit=abc", "Error decoding int for 'limit': strconv.Atoi: parsing \"abc\": invalid syntax"),
        ("/connz?cid=abc", "Error decoding uint64 for 'cid': strconv.ParseUint: parsing \"abc\": invalid syntax"),
        ("/connz?subs=yes", "Error decoding boolean for 'subs': strconv.ParseBool: parsing \"yes\": invalid syntax"),
        ("/connz?sort=reason&state=any", "sort by reason only valid on closed connections"),
        ("/subsz?test=a.*", "invalid test subject, must be valid publish subject: a.*"),
        ("/accountz?acc=X", "Account X does not exist"),
        ("/jsz?streams=zz", "Error decoding boolean for 'streams': strconv.ParseBool: parsing \"zz\": invalid syntax"),
        ("/subsz?offset=x", "Error decoding int for 'offset': strconv.Atoi: parsing \"x\": invalid syntax"),
        (
            "/healthz?js-enabled-only=zz",
            "Error decoding boolean for 'js-enabled-only': strconv.ParseBool: parsing \"zz\": invalid syntax",
        ),
    ],
)
def test_bad_parameters(target: str, text: str) -> None:
    assert ask(target) == (400, text.encode())


def test_jsz_levels() -> None:
    jetstream = JetStream()
    plain = page("/jsz", jetstream)
    assert (plain["messages"], plain["bytes"], plain["streams"], plain["total"]) == (6, 134, 2, 1)
    assert "account_details" not in plain
    assert "stream_detail" not in page("/jsz?accounts=1", jetstream)["account_details"][0]
    assert page("/jsz?acc=$G", jetstream)["account_details"][0]["reserved_storage"] == 2**64 - 1
    assert "account_details" not in page("/jsz?acc=nope", jetstream)
    streams = page("/jsz?streams=1", jetstream)["account_details"][0]["stream_detail"]
    assert [stream["name"] for stream in streams] == ["S", "T"]
    with_consumers = page("/jsz?consumers=1&raft=1", jetstream)
    assert (with_consumers["streams_leader"], with_consumers["consumers_leader"]) == (2, 1)
    details = with_consumers["account_details"][0]["stream_detail"]
    assert ["consumer_detail" in stream for stream in details] == [True, False]
    assert "config" not in streams[0]
    assert "consumer_detail" not in streams[0]
    detail = page("/jsz?consumers=1", jetstream)["account_details"][0]["stream_detail"][0]["consumer_detail"][0]
    assert detail["num_pending"] == 7
    assert "config" not in detail
    jetstream.deleted.add("T")
    streams = page("/jsz?streams=1", jetstream)["account_details"][0]["stream_detail"]
    assert [stream["name"] for stream in streams] == ["S"]


@pytest.mark.parametrize(
    "trouble",
    [api_error("JSClusterNotAvailErr"), Corruption("sequences 1-4 unreadable", file="1.seg", offset=28)],
    ids=["faulty", "unreadable"],
)
def test_a_damaged_stream_does_not_take_the_pages_away(trouble: Exception) -> None:
    jetstream = JetStream()
    jetstream.damaged["S"] = trouble
    shown = page("/jsz?consumers=1", jetstream)
    assert shown["messages"] == 3
    assert [stream["name"] for stream in shown["account_details"][0]["stream_detail"]] == ["T"]
    status, body = ask("/metrics", jetstream)
    assert status == 200
    assert b'stream="T"' in body
    assert b'stream="S"' not in body


def test_jsz_without_jetstream() -> None:
    shown = page("/jsz")
    assert shown["disabled"] is True
    assert shown["streams"] == 0


@pytest.mark.parametrize(
    ("query", "status", "body"),
    [
        ("", 200, {"status": "ok"}),
        ("js-enabled-only=true", 200, {"status": "ok"}),
        ("account=$G&stream=S&consumer=d", 200, {"status": "ok"}),
        (
            "stream=S",
            400,
            {"status": "error", "error": '"account" must not be empty when checking stream health'},
        ),
        (
            "account=$G&consumer=d",
            400,
            {"status": "error", "error": '"stream" must not be empty when checking consumer health'},
        ),
        ("account=nope", 404, {"status": "unavailable", "error": 'JetStream account "nope" not found'}),
        (
            "account=$G&stream=N",
            404,
            {"status": "unavailable", "error": 'JetStream stream "N" not found on account "$G"'},
        ),
        (
            "account=$G&stream=S&consumer=N",
            404,
            {"status": "unavailable", "error": 'JetStream consumer "N" not found for stream "S" on account "$G"'},
        ),
        (
            "details=true&account=nope",
            404,
            {
                "status": "error",
                "errors": [{"type": "ACCOUNT", "account": "nope", "error": 'JetStream account "nope" not found'}],
            },
        ),
    ],
)
def test_healthz(query: str, status: int, body: dict[str, object]) -> None:
    got_status, got = ask(f"/healthz?{query}", JetStream())
    assert (got_status, json.loads(got)) == (status, body)


def test_healthz_when_something_is_wrong() -> None:
    status, body = ask("/healthz", JetStream(), health_problem="disk failed")
    assert (status, body) == (503, b'{"status":"unavailable","error":"disk failed"}')
    for query in ("", "js-enabled-only=1", "account=$G&stream=S"):
        assert ask(f"/healthz?{query}")[0] == 200, "without JetStream nothing of it is missing"


@pytest.mark.parametrize(
    ("problem", "unhealthy_where"),
    [
        ("disk failed", {"", "js-enabled-only=1", "js-enabled=1", "js-server-only=1", "js-meta-only=1"}),
        ("no meta leader", {"", "js-server-only=1", "js-meta-only=1"}),
        ("stream S is late", {"", "account=$G", "account=$G&stream=S", "account=$G&stream=S&consumer=d"}),
    ],
)
def test_healthz_asked_about_a_part(problem: str, unhealthy_where: set[str]) -> None:
    queries = ["", "js-enabled-only=1", "js-enabled=1", "js-server-only=1", "js-meta-only=1"]
    if "stream" in problem:
        queries += ["account=$G", "account=$G&stream=S", "account=$G&stream=T", "account=$G&stream=S&consumer=d"]
    found = {query for query in queries if ask(f"/healthz?{query}", JetStream(), health_problem=problem)[0] == 503}
    assert found == unhealthy_where


def test_subsz_list() -> None:
    assert page("/subsz")["total"] == 0
    shown = page("/subscriptionsz?subs=1")
    assert (shown["total"], shown["num_subscriptions"], shown["num_cache"]) == (2, 11, 6)
    assert [entry["subject"] for entry in shown["subscriptions_list"]] == ["a.*", "b"]
    assert [entry["subject"] for entry in page("/subsz?subs=1&test=a.x")["subscriptions_list"]] == ["a.*"]
    assert len(page("/subsz?subs=1&offset=1&limit=1")["subscriptions_list"]) == 1
    shown = page("/subsz?subs=1&acc=A")
    assert (shown["total"], shown["num_subscriptions"], shown["num_inserts"], shown["max_fanout"]) == (0, 2, 6, 3)
    assert "subscriptions_list" not in shown
    assert page("/subsz?acc=NO")["num_subscriptions"] == 0


def test_accountz() -> None:
    shown = page("/accountz")
    assert (shown["system_account"], shown["accounts"]) == ("$SYS", ["$G", "A", "$SYS"])
    detail = page("/accountz?acc=A")["account_detail"]
    assert (detail["client_connections"], detail["subscriptions"], detail["jetstream_enabled"]) == (1, 2, False)
    assert page("/accountz?acc=$G", JetStream())["account_detail"]["jetstream_enabled"]
    assert page("/accountz?acc=$SYS")["account_detail"]["is_system"]


def test_accstatz() -> None:
    shown = {each["acc"]: each for each in page("/accstatz")["account_statz"]}
    assert list(shown) == ["$G", "A"]
    assert (shown["$G"]["received"]["msgs"], shown["$G"]["sent"]["msgs"]) == (15, 21), "closed ones and open ones"
    assert (shown["A"]["conns"], shown["A"]["num_subscriptions"], shown["A"]["slow_consumers"]) == (1, 2, 1)
    assert [each["acc"] for each in page("/accstatz?unused=1")["account_statz"]] == ["$G", "A", "$SYS"]


def test_metrics_parse_and_carry_the_values() -> None:
    status, body = ask("/metrics", JetStream())
    assert status == 200
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }
    assert samples["jetstore_connections", ()] == 2
    assert samples["jetstore_received_messages_total", ()] == 10
    assert samples["jetstore_healthy", ()] == 1
    assert samples["jetstore_jetstream_api_errors_total", ()] == 2
    assert samples["jetstore_stream_messages", (("account", "$G"), ("stream", "S"))] == 3
    assert samples["jetstore_consumer_num_pending", (("account", "$G"), ("consumer", "d"), ("stream", "S"))] == 7
    assert b"jetstore_stream_" not in ask("/metrics")[1]


def test_index_and_unknown_paths() -> None:
    status, body = ask("/", server_name="<b>")
    assert status == 200
    assert b"&lt;b&gt;" in body
    assert b"<b>" not in body
    assert ask("/nope") == (404, b"404 page not found\n")
    assert ask("/varz/") == (404, b"404 page not found\n")


def test_base_path() -> None:
    assert ask("/varz", http_base_path="/m")[0] == 404
    assert ask("/mvarz", http_base_path="/m")[0] == 404
    assert ask("/m/varz", http_base_path="/m")[0] == 200
    assert b'href="/m/varz"' in ask("/m", http_base_path="/m/")[1]


def test_requests_are_counted_by_path() -> None:
    async def scenario() -> None:
        monitor = Monitor(make_source())
        for target in ("/varz", "/connz?limit=x", "/connz", "/nope"):
            await monitor.answer(target)
        shown = json.loads((await monitor.answer("/varz")).body)
        assert shown["http_req_stats"] == {"/connz": 2, "/varz": 2}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59, "59s"), (61, "1m1s"), (3725, "1h2m5s"), (90061, "1d1h1m1s"), (366 * 86400 + 5, "1y1d0h0m5s")],
)
def test_uptime_text(seconds: int, text: str) -> None:
    assert uptime_text(seconds * SECOND) == text


def test_usage_is_sampled_once_a_second() -> None:
    now = cpu = 0.0
    usage = ProcessUsage(lambda: now, lambda: cpu, lambda: 5)
    now, cpu = 2.0, 1.0
    assert usage.sample().cpu_percent == 50.0
    now, cpu = 2.5, 1.4
    assert usage.sample().cpu_percent == 50.0
    now, cpu = 3.0, 2.0
    assert usage.sample().cpu_percent == 100.0
