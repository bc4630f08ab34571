"""Log lines: form, levels, facts, files."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from server.cli.log import Logging
from server.cli.log import configure_logging as configure
from server.config.options import Options

_sinks: list[Logging] = []


def configure_logging(options: Options) -> Logging:
    _sinks.append(configure(options))
    return _sinks[-1]


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    while _sinks:
        _sinks.pop().close()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_line_form(tmp_path: Path) -> None:
    path = tmp_path / "log"
    configure_logging(Options(log_file=str(path)))
    log = structlog.get_logger("x").bind(stream="S")
    log.info("leader elected", term=3, peer="n 1")
    log.warning("slow")
    log.error("bad")
    log.critical("fatal")
    found = lines(path)
    stamp = rf"\[{os.getpid()}\] " + r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{6} "
    assert re.fullmatch(stamp + r'\[INF\] leader elected stream=S term=3 peer="n 1"', found[0])
    assert [re.search(r"\[([A-Z]{3})\] ", line)[1] for line in found] == ["INF", "WRN", "ERR", "FTL"]  # type: ignore[index]


def test_time_can_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log"
    configure_logging(Options(log_file=str(path), logtime=False))
    structlog.get_logger().info("hello")
    assert lines(path) == [f"[{os.getpid()}] [INF] hello"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (Options(), ["info"]),
        (Options(debug=True), ["info", "debug"]),
        (Options(trace=True), ["info", "traced"]),
        (Options(debug=True, trace=True), ["info", "debug", "traced"]),
    ],
)
def test_debug_and_trace_are_separate(tmp_path: Path, options: Options, expected: list[str]) -> None:
    path = tmp_path / "log"
    configure_logging(replace(options, log_file=str(path), logtime=False))
    log = structlog.get_logger()
    log.info("info")
    log.debug("debug")
    log.debug("traced", trace=True)
    assert [line.rpartition(" ")[2] for line in lines(path)] == expected
    if "traced" in expected:
        assert "[TRC]" in lines(path)[-1]


def test_tracebacks_follow_the_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    configure_logging(Options(log_file=str(path), logtime=False))
    try:
        raise ValueError("broken")
    except ValueError as error:
        structlog.get_logger().error("request failed", exc_info=error)
    found = lines(path)
    assert found[0].endswith("[ERR] request failed")
    assert found[-1] == "ValueError: broken"


def test_standard_logging_ends_in_the_same_place(tmp_path: Path) -> None:
    path = tmp_path / "log"
    configure_logging(Options(log_file=str(path), logtime=False))
    logging.getLogger("asyncio").warning("took %s", "long")
    assert lines(path) == [f"[{os.getpid()}] [WRN] took long"]


def test_reopen_follows_a_rotation(tmp_path: Path) -> None:
    path = tmp_path / "log"
    sink = configure_logging(Options(log_file=str(path), logtime=False))
    log = structlog.get_logger()
    log.info("one")
    path.rename(tmp_path / "log.1")
    log.info("two")
    sink.reopen()
    log.info("three")
    assert [line.rpartition(" ")[2] for line in lines(tmp_path / "log.1")] == ["one", "two"]
    assert [line.rpartition(" ")[2] for line in lines(path)] == ["three"]


def test_what_is_logged_changes_while_it_runs(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    logging_ = configure_logging(Options(log_file=str(one), logtime=False))
    log = structlog.get_logger("x")
    log.info("first")
    log.debug("unseen")
    logging_.apply(Options(log_file=str(two), logtime=False, debug=True))
    log.debug("seen")
    with pytest.raises(FileNotFoundError):
        logging_.apply(Options(log_file=str(tmp_path / "no" / "where")))
    log.info("still there")
    assert [line.split("] ", 2)[-1] for line in lines(one)] == ["first"]
    assert [line.split("] ", 2)[-1] for line in lines(two)] == ["seen", "still there"]


def test_a_full_file_is_set_aside_and_the_oldest_go(tmp_path: Path) -> None:
    path = tmp_path / "log"
    (tmp_path / "log.other").write_text("not mine")
    configure_logging(Options(log_file=str(path), logtime=False, log_file_bytes_max=60, log_files_max=3))
    log = structlog.get_logger("x")
    for number in range(20):
        log.info(f"line {number:02} " + "x" * 10)
    aside = sorted(each for each in tmp_path.glob("log.2*"))
    assert len(aside) == 2
    kept = [line for each in [*aside, path] for line in lines(each)]
    assert [line.split()[3] for line in kept] == [f"{number:02}" for number in range(20 - len(kept), 20)]
    assert all(each.stat().st_size < 100 for each in aside)
    assert (tmp_path / "log.other").exists()
