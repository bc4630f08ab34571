"""Which node a request is passed on to, and what comes of it where nobody can be reached."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from jetstore.errors import ApiError
from jetstore.model.api_errors import api_error
from jetstore.node.link.ports import LinkLost, NodeLinks, NotConnected, RequestRefused
from jetstore.node.ports import Inbound
from jetstore.node.whereabouts import HOPS_MAX, Whereabouts
from server.jsapi.elsewhere import ABOUT_STREAMS, METHOD, Elsewhere
from server.jsapi.table import SYSTEM_TABLE, TABLE


class Where:
    """The metadata is led by ``m``, streams as told."""

    def __init__(self, **streams: str) -> None:
        self.meta = "m"
        self.streams = streams

    def of_meta(self) -> str:
        return self.meta

    def of_stream(self, name: str) -> str:
        return self.streams.get(name, self.meta)


class Links:
    def __init__(self) -> None:
        self.handler: Callable[[str, bytes], Coroutine[Any, Any, bytes]] | None = None
        self.asked: list[tuple[str, Any]] = []
        self.answer: Any = None

    def register(self, method: str, handler: Any, *, concurrent_max: int) -> None:
        assert method == METHOD
        self.handler = handler

    async def request(self, node_id: str, method: str, payload: bytes) -> bytes:
        self.asked.append((node_id, json.loads(payload)))
        if isinstance(self.answer, Exception):
            raise self.answer
        return json.dumps(self.answer).encode()


class Bench:
    def __init__(self, **streams: str) -> None:
        self.where, self.links = Where(**streams), Links()
        self.sent: list[tuple[str, list[bytes], int]] = []
        self.reachable = True
        self.elsewhere = Elsewhere(cast(Whereabouts, self.where), cast(NodeLinks, self.links), self.leading)

    async def leading(self, asked: dict[str, Any]) -> Any:
        if asked["stream"] == "gone":
            raise api_error("JSStreamNotFoundErr")
        return {"led": asked["stream"]}

    def send(self, node_id: str, batch: Inbound, hops: int) -> bool:
        if self.reachable:
            self.sent.append((node_id, [bytes(payload) for payload in batch.payloads], hops))
        return self.reachable

    def pass_on(self, *subjects: str, hops: int = 0) -> list[bytes]:
        """What is left here; payloads are numbers."""
        count = len(subjects)
        payloads = [b"%d" % at for at in range(count)]
        batch = Inbound([s.encode() for s in subjects], [b""] * count, (), payloads, "$G", None)
        left = self.elsewhere.pass_on(batch, hops, self.send)
        return list(left.payloads) if left is not None else []


@pytest.mark.parametrize("endpoint", TABLE, ids=lambda endpoint: endpoint.words)
def test_every_endpoint_has_a_place(endpoint: Any) -> None:
    names = ["S", "C", "G"][: endpoint.names_min]
    subject = ".".join(["$JS.API", endpoint.words, *names]).encode()
    place = Bench(S="s").elsewhere.place(subject)
    assert place == ("m" if endpoint.words in ABOUT_STREAMS else "s")


def test_the_system_account_asks_who_leads_the_metadata() -> None:
    for endpoint in SYSTEM_TABLE:
        subject = ".".join(("$JS.API", endpoint.words, *("A",) * endpoint.names_max))
        assert Bench().elsewhere.place(subject.encode(), is_system=True) == "m"
    for refused in (b"$JS.API.INFO", b"$JS.API.STREAM.INFO.S"):
        assert Bench().elsewhere.place(refused, is_system=True) == "", "refused where it is asked"
    assert Bench().elsewhere.place(b"$JS.API.NOTHING.x") == ""


def test_names_of_the_table_are_those_that_are_for_the_metadata() -> None:
    assert {endpoint.words for endpoint in TABLE} >= ABOUT_STREAMS


def test_a_run_goes_where_each_request_belongs_in_order() -> None:
    bench = Bench(S="s", HERE="")
    subjects = ["S", "HERE", "S", "X", "HERE", "S"]
    assert bench.pass_on(*(f"$JS.API.DIRECT.GET.{name}" for name in subjects)) == [b"1", b"4"]
    assert bench.sent == [("s", [b"0", b"2", b"5"], 1), ("m", [b"3"], 1)]


def test_what_cannot_be_sent_or_has_come_too_far_is_answered_here() -> None:
    bench = Bench(S="s")
    assert bench.pass_on("$JS.API.STREAM.INFO.S", hops=HOPS_MAX - 1) == []
    assert bench.sent == [("s", [b"0"], HOPS_MAX)]
    assert bench.pass_on("$JS.API.STREAM.INFO.S", hops=HOPS_MAX) == [b"0"]
    bench.reachable = False
    assert bench.pass_on("$JS.API.STREAM.INFO.S", "$JS.API.STREAM.NAMES") == [b"0", b"1"]


def test_infos_of_streams_that_others_lead() -> None:
    bench = Bench(S="s", HERE="")

    async def ask(answer: Any, name: str = "S") -> Any:
        bench.links.answer = answer
        return await bench.elsewhere.stream_info(name, is_dynamic=True, version=3)

    assert asyncio.run(ask({"config": {}})) == {"config": {}}
    assert bench.links.asked == [("s", {"stream": "S", "is_dynamic": True, "version": 3, "hops": 1})]
    for answer, name, code in (
        (RequestRefused(10059, ""), "S", 10059),
        (RequestRefused(10008, ""), "S", 10008),
        (LinkLost(""), "S", 10008),
        (NotConnected(""), "S", 10008),
        ({}, "HERE", 10008),
    ):
        with pytest.raises(ApiError) as refused:
            asyncio.run(ask(answer, name))
        assert refused.value.err_code == code


def test_questions_of_others_are_answered_or_passed_on_but_not_for_ever() -> None:
    bench = Bench(S="s", HERE="", gone="")
    bench.links.answer = {"from": "s"}
    assert bench.links.handler is not None

    def ask(name: str, hops: int) -> Any:
        assert bench.links.handler is not None
        asked = {"stream": name, "is_dynamic": False, "version": 0, "hops": hops}
        return json.loads(asyncio.run(bench.links.handler("x", json.dumps(asked).encode())))

    assert ask("HERE", 1) == {"led": "HERE"}
    assert ask("S", 1) == {"from": "s"}
    assert bench.links.asked[0][1]["hops"] == 2
    for name, hops, code in (("S", HOPS_MAX, 10008), ("gone", 1, 10059)):
        with pytest.raises(RequestRefused) as refused:
            ask(name, hops)
        assert refused.value.code == code
