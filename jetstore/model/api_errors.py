"""``api_error(constant, **fields)``: the JetStream error of that name, from ``api_errors.toml``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jetstore.errors import ApiError


@dataclass(frozen=True, slots=True)
class ErrorEntry:
    """One row of the table; ``description`` may hold ``{name}`` fields."""

    code: int
    err_code: int
    description: str


@cache
def error_table() -> dict[str, ErrorEntry]:
    """Every error by nats-server's constant."""
    text = Path(__file__).with_name("api_errors.toml").read_text(encoding="utf-8")
    return {constant: ErrorEntry(**entry) for constant, entry in tomllib.loads(text).items()}


def api_error(constant: str, **fields: object) -> ApiError:
    """The error to raise; ``fields`` fill the text. ``KeyError`` for an unknown constant or a missing field."""
    entry = error_table()[constant]
    return ApiError(entry.code, entry.err_code, entry.description.format(**fields) if fields else entry.description)


def error_json(error: ApiError) -> dict[str, Any]:
    """The ``error`` object of an answer."""
    return {"code": error.code, "err_code": error.err_code, "description": error.description}
