"""Measured requests: chosen by chance, counted, and told of once."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from route_fakes import FakeSink
from test_imports import Two

from server.route import imports
from server.route.imports import AnswerRule, ServiceImport
from server.route.latency import Latencies, LatencyRule

Json = Any  # Any: JSON values


class Timer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Measured(Two):
    """An exporter whose service is measured, an importer, and who hears of it."""

    def __init__(self, sampling: int = 100, requests_max: int = 10, wait_s: float = 5.0) -> None:
        super().__init__()
        self.timers: list[Timer] = []
        self.heard = FakeSink("heard")
        self.latencies = Latencies(lambda: int(self.now_s * 1e9), Random(1), self._call_later, requests_max)
        self.exporter.latencies = self.latencies
        rule = LatencyRule(b"lat", sampling)
        self.importer.import_service(ServiceImport(self.exporter, "ask", "", AnswerRule(wait_s=wait_s), latency=rule))
        self.exporter.subscribe_client(self.service, b"ask", b"", b"1")
        self.importer.subscribe_client(self.client, b"inbox.>", b"", b"7")
        self.exporter.subscribe_client(self.heard, b"lat", b"", b"9")

    def _call_later(self, _delay_s: float, callback: Callable[[], None]) -> Timer:
        self.timers.append(Timer(callback))
        return self.timers[-1]

    def told(self) -> list[Json]:
        return [json.loads(line) for line in self.heard.take().split(b"\r\n") if line.startswith(b"{")]

    def run_soon(self) -> None:
        soon, self.soon[:] = list(self.soon), []
        for callback in soon:
            assert callable(callback)
            callback()


def test_an_answer_ends_the_measurement() -> None:
    two = Measured()
    reply = two.ask()
    two.now_s += 2
    assert two.told() == []
    assert two.latencies.in_flight == 1
    two.answer(reply)
    (told,) = two.told()
    assert (told["status"], told["service"], told["system"], told["total"]) == (200, 2_000_000_000, 0, 2_000_000_000)
    assert two.latencies.in_flight == 0
    assert [timer.is_cancelled for timer in two.timers] == [True]
    two.importer.drop_client(two.client)
    two.run_soon()
    assert two.told() == []


def test_so_many_percent_are_measured() -> None:
    two = Measured(sampling=20, requests_max=1000)
    for _ in range(500):
        two.ask()
    assert 70 < two.latencies.in_flight < 130


def test_beyond_the_bound_requests_go_on_and_are_not_measured() -> None:
    two = Measured(requests_max=2)
    replies = [two.ask() for _ in range(3)]
    assert two.latencies.in_flight == 2
    assert all(two.answer(reply) for reply in replies)
    assert len(two.told()) == 2
    two.answer(two.ask())
    assert len(two.told()) == 1


def test_what_is_forgotten_for_lack_of_room_counts_as_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "REPLIES_MAX", 2)
    two = Measured()
    for _ in range(3):
        two.ask()
    assert [told["status"] for told in two.told()] == [504]
    assert two.latencies.in_flight == len(two.exporter.replies) == 2


def test_time_runs_out_once() -> None:
    """By the timer, or by an answer that comes before it."""
    two = Measured()
    two.ask()
    reply = two.ask()
    two.timers[0].callback()
    two.now_s += 6
    assert two.answer(reply) == b""
    assert [told["status"] for told in two.told()] == [504, 504]
    assert two.timers[1].is_cancelled
    assert len(two.exporter.replies) == two.latencies.in_flight == 0


def test_a_requestor_that_leaves_is_told_of_and_forgotten() -> None:
    two = Measured()
    two.ask()
    two.importer.drop_client(two.client)
    two.run_soon()
    assert [told["status"] for told in two.told()] == [408]
    assert len(two.exporter.replies) == two.latencies.in_flight == 0


def test_answers_of_nobody_known_are_not_measured() -> None:
    """The engine's, and those that come from other nodes."""
    two = Measured()
    reply = two.ask()
    two.exporter.publish([reply], (), [b"!"])
    assert two.client.take()
    assert two.told() == []
    assert two.latencies.in_flight == 0
