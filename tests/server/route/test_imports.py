"""Between accounts: answers find their way back, deliveries and interest reach through, tables are bounded."""

from __future__ import annotations

from random import Random

import pytest
from route_fakes import FakeSink
from test_router import Recorder

from jetstore.model.transforms import TransformError
from server.route import imports
from server.route.delivery import Columns
from server.route.imports import AnswerRule, ReplyTable, ServiceImport, StreamImport
from server.route.mappings import Mapping, Mappings
from server.route.router import Router


class Two:
    """An exporter and an importer, with time that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.soon: list[object] = []
        self.exporter = Router("A", Random(1), self.soon.append, lambda: self.now_s)
        self.importer = Router("B", Random(2), self.soon.append, lambda: self.now_s)
        self.service, self.client = FakeSink("service"), FakeSink("client")

    def serve(self, answers: AnswerRule, subject: str = "ask", local: str = "") -> None:
        self.importer.import_service(ServiceImport(self.exporter, subject, local, answers))
        self.exporter.subscribe_client(self.service, subject.encode(), b"", b"1")
        self.importer.subscribe_client(self.client, b"inbox.>", b"", b"7")

    def ask(self, subject: bytes = b"ask") -> bytes:
        """The reply subject that the service sees."""
        self.importer.publish_from(self.client, [subject], [b"inbox.1"], (), [b"?"])
        line = self.service.take().split(b"\r\n")[0].split()
        assert line[:3] == [b"MSG", b"ask", b"1"]
        return line[3]

    def answer(self, reply: bytes, payload: bytes = b"!") -> bytes:
        self.exporter.publish_from(self.service, [reply], [b""], (), [payload])
        return self.client.take()


def test_one_answer_comes_back_on_the_original_reply() -> None:
    two = Two()
    two.serve(AnswerRule())
    reply = two.ask()
    assert reply.startswith(b"_R_.")
    assert two.answer(reply) == b"MSG inbox.1 7 1\r\n!\r\n"
    assert two.answer(reply) == b""
    assert len(two.exporter.replies) == 0
    assert two.answer(b"_R_.nonsense") == b""


def test_a_stream_of_answers_ends_when_none_has_come_for_long() -> None:
    two = Two()
    two.serve(AnswerRule(is_single=False, wait_s=10.0))
    reply = two.ask()
    for _ in range(3):
        two.now_s += 9.0
        assert two.answer(reply)
    two.now_s += 11.0
    assert two.answer(reply) == b""


def test_an_answer_may_come_too_late() -> None:
    two = Two()
    two.serve(AnswerRule(wait_s=10.0))
    reply = two.ask()
    two.now_s += 11.0
    assert two.answer(reply) == b""


def test_a_request_that_nobody_took_is_forgotten_and_said_so() -> None:
    two = Two()
    two.importer.import_service(ServiceImport(two.exporter, "ask", "", AnswerRule()))
    two.client.no_responders = True
    two.importer.subscribe_client(two.client, b"inbox.>", b"", b"7")
    two.importer.publish_from(two.client, [b"ask"], [b"inbox.1"], (), [b"?"])
    assert b"503" in two.client.take()
    assert len(two.exporter.replies) == 0


def test_the_engine_answers_requests_from_other_accounts() -> None:
    two = Two()
    two.serve(AnswerRule(is_single=False))
    handler = Recorder()
    two.exporter.subscribe(b"ask", handler)
    reply = two.ask()
    (batch,) = handler.batches
    assert (batch.account, batch.client, batch.replies) == ("A", two.client, [reply])
    assert two.exporter.has_interest(reply)
    assert two.exporter.deliver(reply, [b"stored"], [b"ack"], (), [b"m"]) == 1
    assert two.client.take() == b"MSG stored 7 ack 1\r\nm\r\n"
    two.client.pending = 77
    assert two.exporter.pending_bytes(reply) == 77
    two.importer.drop_client(two.client)
    assert not two.exporter.has_interest(reply)
    assert not two.exporter.has_interest(b"_R_.other")
    assert two.exporter.deliver(reply, [b"stored"], [b""], (), [b"m"]) == 0


def test_pub_acks_find_their_way() -> None:
    two = Two()
    two.serve(AnswerRule())
    reply = two.ask()
    two.exporter.pub_acks(b"S", [reply], [5])
    two.exporter.flush_acks()
    assert two.client.take() == b'MSG inbox.1 7 24\r\n{"stream":"S","seq":5}\r\n'.replace(b" 24", b" 22")


def test_waiting_requests_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "REPLIES_MAX", 10)
    two = Two()
    table = ReplyTable(Random(1), lambda: two.now_s)
    first = table.expect(two.importer, b"r", AnswerRule())
    last = [table.expect(two.importer, b"r", AnswerRule()) for _ in range(20)][-1]
    assert len(table) == 10
    assert table.resolve(first) is None
    assert table.resolve(last) == (two.importer, b"r")


def test_services_that_lead_in_a_circle_come_to_an_end() -> None:
    two = Two()
    two.importer.import_service(ServiceImport(two.exporter, "a", "", AnswerRule()))
    two.exporter.import_service(ServiceImport(two.importer, "a", "", AnswerRule()))
    two.client.no_responders = True
    two.importer.subscribe_client(two.client, b"r", b"", b"1")
    two.importer.publish_from(two.client, [b"a"], [b"r"], (), [b""])
    assert b"503" in two.client.take()


def test_shadows_go_with_their_subscription() -> None:
    two = Two()
    two.importer.stream_imports.append(StreamImport(two.exporter, "news.>", "copy.news.>"))
    subscription = two.importer.subscribe_client(two.client, b"copy.>", b"", b"1")
    assert len(two.exporter.sublist) == 1
    two.importer.limit(subscription, 2)
    for _ in range(3):
        two.exporter.publish_from(two.service, [b"news.a"], [b""], (), [b"x"])
    assert two.client.take() == b"MSG copy.news.a 1 1\r\nx\r\n" * 2, "deliveries of both accounts count"
    assert len(two.exporter.sublist) == len(two.importer.sublist) == 0
    two.importer.subscribe_client(two.client, b"other.>", b"", b"2")
    assert len(two.exporter.sublist) == 0


def test_a_run_of_messages_reaches_a_shadow_with_its_own_subjects() -> None:
    two = Two()
    two.importer.stream_imports.append(StreamImport(two.exporter, "raw.*.*", "swap.$2.$1"))
    two.importer.subscribe_client(two.client, b"*.x.>", b"", b"1")
    subjects = [b"raw.1.x", b"raw.2.y", b"raw.3.x"]
    two.exporter.publish_from(two.service, subjects, [b"", b"", b""], (), [b"1", b"2", b"3"])
    assert two.client.take() == b"MSG swap.x.1 1 1\r\n1\r\nMSG swap.x.3 1 1\r\n3\r\n"


def test_weights_of_a_mapping() -> None:
    def shares(source: str, destinations: list[tuple[str, int]]) -> dict[bytes, int]:
        mappings = Mappings([(source, Mapping(source, destinations, Random(5)))])
        columns = Columns([source.encode()] * 1000, (), (), [b""] * 1000)
        found = mappings.apply(columns).subjects
        return {subject: list(found).count(subject) for subject in found}

    rest = shares("x", [("y", 50)])
    assert set(rest) == {b"x", b"y"}
    assert sum(rest.values()) == 1000
    assert 400 < rest[b"y"] < 600
    lost = shares("x", [("x", 30), ("y", 20)])
    assert 400 < sum(lost.values()) < 600
    assert shares("x", [("y", 100)]) == {b"y": 1000}


def test_the_mapping_of_the_very_subject_comes_first() -> None:
    rng = Random(1)
    mappings = Mappings([("a.*", Mapping("a.*", [("p.$1", 100)], rng)), ("a.b", Mapping("a.b", [("e", 100)], rng))])
    columns = mappings.apply(Columns([b"a.b", b"a.c", b"z"], (), (), [b"1", b"2", b"3"]))
    assert columns.subjects == [b"e", b"p.c", b"z"]
    with pytest.raises(TransformError):
        Mapping("a.*", [("b.$2", 100)], rng)


def test_requests_of_another_account_are_mapped_where_they_come_to() -> None:
    two, rng = Two(), Random(1)
    two.exporter.mappings = Mappings(
        [("ask", Mapping("ask", [("heard", 100)], rng)), ("gone", Mapping("gone", [("gone", 0)], rng))]
    )
    two.client.no_responders = True
    two.importer.subscribe_client(two.client, b"inbox.>", b"", b"7")
    two.exporter.subscribe_client(two.service, b">", b"", b"1")
    for local, subject in (("far.ask", "ask"), ("far.gone", "gone"), ("far.else", "else")):
        two.importer.import_service(ServiceImport(two.exporter, subject, local, AnswerRule()))
    two.importer.publish_from(two.client, [b"far.ask", b"far.gone", b"far.else"], [b"inbox.1"] * 3, (), [b"?"] * 3)
    said = [line.split()[1] for line in two.service.take().splitlines() if line.startswith(b"MSG")]
    assert said == [b"heard", b"else"]
    assert b"Nats-Subject: far.gone" in two.client.take()
    assert two.importer.destination(b"far.ask") == (two.exporter, b"heard")
    assert two.importer.destination(b"far.gone") == (two.importer, b"far.gone")
    assert two.importer.destination(b"far.else") == (two.exporter, b"else")


def test_where_requests_go_is_told_without_sending_one() -> None:
    two = Two()
    third = Router("C", Random(3), two.soon.append, lambda: two.now_s)
    two.importer.import_service(ServiceImport(two.exporter, "$JS.API.X.*", "a.X.*", AnswerRule()))
    third.import_service(ServiceImport(two.importer, "a.X.1", "far.X", AnswerRule()))
    assert two.importer.destination(b"a.X.9") == (two.exporter, b"$JS.API.X.9")
    assert third.destination(b"far.X") == (two.exporter, b"$JS.API.X.1")
    assert two.importer.destination(b"a.Y.9") == (two.importer, b"a.Y.9")
    two.exporter.import_service(ServiceImport(two.importer, "round", "round", AnswerRule()))
    two.importer.import_service(ServiceImport(two.exporter, "round", "round", AnswerRule()))
    assert two.importer.destination(b"round") is None


def test_what_is_heard_of_another_account_is_told_subject_by_subject() -> None:
    two = Two()
    two.importer.stream_imports += [
        StreamImport(two.exporter, "d.>", ""),
        StreamImport(two.exporter, "e.>", "moved.>"),
        StreamImport(two.exporter, "f.*.x", "f.$1.x"),
    ]
    heard = {
        subject
        for subject in (b"d.1", b"d", b"e.1", b"moved.1", b"f.1.x", b"g")
        if two.importer.hears(subject, two.exporter)
    }
    assert heard == {b"d.1", b"f.1.x"}
    assert two.importer.hears(b"g", two.importer)
    assert not two.exporter.hears(b"d.1", two.importer)
