"""``--rewrite``: golden scripts are written as they come out now."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write the output of golden scripts instead of comparing")
