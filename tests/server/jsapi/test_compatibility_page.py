"""The page that says item by item what JetStream here does, against the code that does it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from jetstore.errors import ApiError
from jetstore.model.consumer import ConsumerConfig
from jetstore.model.consumer_checks import checked_consumer
from jetstore.model.stream import StreamConfig
from jetstore.model.stream_checks import checked_stream
from server.jsapi.table import SYSTEM_TABLE, TABLE

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "compatibility-jetstream.md").read_text()
STATES = {"works", "deviates", "refused", "missing"}
REFUSED_STREAM: dict[str, Any] = {}
REFUSED_CONSUMER: dict[str, Any] = {"sourcing": True}
NOT_SUPPORTED = "not supported by this version of jetstore"


def section(name: str) -> dict[str, str]:
    """Item → state of one table."""
    text = PAGE.split(f"\n## {name}\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {row[0]: row[1] for row in rows[2:]}


@pytest.mark.parametrize("name", re.findall(r"\n## (.*)\n", PAGE))
def test_every_item_has_a_state(name: str) -> None:
    found = section(name)
    assert found
    assert set(found.values()) <= STATES


def test_every_endpoint_is_named() -> None:
    found = section("Endpoints")
    answered = {endpoint.words for endpoint in (*TABLE, *SYSTEM_TABLE)} | {"CONSUMER.MSG.NEXT", "DIRECT.GET"}
    assert {words for words, state in found.items() if state != "missing"} == answered


def test_every_field_is_named() -> None:
    assert list(section("Stream configuration")) == list(StreamConfig.model_fields)
    assert list(section("Consumer configuration")) == list(ConsumerConfig.model_fields)


def test_what_is_called_refused_is() -> None:
    streams, consumers = section("Stream configuration"), section("Consumer configuration")
    assert {name for name, state in streams.items() if state == "refused"} == set(REFUSED_STREAM)
    assert {name for name, state in consumers.items() if state == "refused"} == set(REFUSED_CONSUMER)
    for name, value in REFUSED_STREAM.items():
        with pytest.raises(ApiError, match=NOT_SUPPORTED):
            checked_stream(StreamConfig(**{"name": "S", name: value}))
    for name, value in REFUSED_CONSUMER.items():
        with pytest.raises(ApiError, match=NOT_SUPPORTED):
            checked_consumer(ConsumerConfig(**{"name": "c", name: value}), checked_stream(StreamConfig(name="S")))


def test_every_header_that_works_is_known_to_the_code() -> None:
    rooms = ("stream", "node")
    code = "".join(path.read_text() for room in rooms for path in sorted((ROOT / "jetstore" / room).glob("*.py")))
    for name, state in section("Publish headers").items():
        assert (f'"{name}"' in code) is (state != "missing"), name


def test_every_advisory_that_works_is_told_somewhere() -> None:
    paths = [*(ROOT / "jetstore" / "node").rglob("*.py"), *(ROOT / "server" / "jsapi").glob("*.py")]
    paths.append(ROOT / "server" / "app.py")
    code = "".join(path.read_text() for path in sorted(paths))
    for name, state in section("Advisories").items():
        kind = name.rpartition(".")[2]
        told = f'"{kind}"' in code or f"METRIC.CONSUMER.{kind}" in code or f'ADVISORY.{kind}"' in code
        told = told or f'"{name}"' in code
        if state == "works":
            assert told, name
