"""The same on jetstore and nats-server: the scenarios of ``oracle_*.py``, line by line."""

from __future__ import annotations

from collections.abc import Iterator

import oracle_acks
import oracle_pull
import oracle_push
import oracle_removals
import pytest
from delivery_oracle import MARKS, SCENARIOS, Scenario, both_servers, check_same

pytestmark = MARKS
TOLD_IN = (oracle_acks, oracle_pull, oracle_push, oracle_removals)


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[int]]:
    with both_servers(tmp_path_factory.mktemp("both")) as found:
        yield found


@pytest.mark.parametrize("run", SCENARIOS, ids=lambda run: f"{run.__module__}.{run.__name__}")
def test_same_as_nats_server(run: Scenario, ports: list[int]) -> None:
    check_same(run, ports)
