"""Fixtures that start real servers: each on a free port of the loopback interface, on a store of its own."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from deep import IS_DEEP
from hypothesis import HealthCheck, settings

from jepsen.real.process import JETSTORE, NATS_SERVER, NATS_SERVER_ALWAYS, ServerProcess, find_nats_server

StartServer = Callable[..., ServerProcess]
DEEP_TIMEOUT_S = 7_200

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("untimed")
"""No test is about how long something takes; machines may be slow."""

SERVERS = [
    pytest.param(JETSTORE, marks=pytest.mark.real),
    pytest.param(NATS_SERVER, marks=[pytest.mark.real, pytest.mark.oracle]),
]
"""For tests of what both servers must do."""


def require(server: str) -> None:
    """Skip the running test when this server cannot run here."""
    if server in (NATS_SERVER, NATS_SERVER_ALWAYS) and find_nats_server() is None:
        pytest.skip("no nats-server binary on PATH")
    if server == JETSTORE and importlib.util.find_spec("server.app") is None:
        pytest.skip("this tree has no server.app")


@pytest.fixture(scope="session")
def require_server() -> Callable[[str], None]:
    """``require_server(name)`` skips the test, with the reason, when that server cannot run here."""
    return require


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """``start_server(name, **fields of ServerProcess)`` → a ready server; killed at the end of the test."""
    started: list[ServerProcess] = []

    def start(server: str, **fields: object) -> ServerProcess:
        require(server)
        process = ServerProcess(server, tmp_path / f"store{len(started)}", **fields)  # type: ignore[arg-type]
        started.append(process)
        process.start()
        return process

    yield start
    for process in started:
        process.kill()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs long on purpose has the time for it; what another program did in its own time may be asked once more.

    A nats-server does some things milliseconds after it answered. A comparison that differs is made again; only what
    differs twice is a difference. The summary lists each test that needed it (``RERUN``).
    """
    for item in items:
        if item.get_closest_marker("oracle") is not None:
            item.add_marker(pytest.mark.flaky(reruns=1))
    if IS_DEEP:
        for item in items:
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(DEEP_TIMEOUT_S))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many cases the tests that enumerate went through (``record_property("cases", …)``)."""
    counted = [
        (report.nodeid, int(str(value)))
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        for name, value in report.user_properties
        if name == "cases"
    ]
    for nodeid, cases in counted:
        terminalreporter.write_line(f"{cases:>9,} cases: {nodeid}")
    if counted:
        terminalreporter.write_line(f"{sum(cases for _, cases in counted):>9,} cases enumerated")


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, start_server: StartServer) -> ServerProcess:
    """A ready server on an empty store, once jetstore and once nats-server."""
    return start_server(request.param)
