"""Tests of links look at what is logged: as if nobody had silenced the log before them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def logs_everything() -> Iterator[None]:
    """The default configuration of the log for one test, then whatever was set before."""
    before = structlog.get_config()
    structlog.reset_defaults()
    yield
    structlog.configure(**before)
