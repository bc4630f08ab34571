"""One name for a stream of any account: how the metadata, and every table of a node, tell streams apart.

A stream of the global account has its plain name, as it had when there was only one account; any other stream has
``ACCOUNT > NAME``. Names of streams have no spaces, so nothing is ambiguous.
"""

from __future__ import annotations

from typing import Final

GLOBAL_ACCOUNT: Final = "$G"
_BETWEEN: Final = " > "


def stream_key(account: str, name: str) -> str:
    """The key of an account's stream."""
    return name if account == GLOBAL_ACCOUNT else f"{account}{_BETWEEN}{name}"


def account_of(key: str) -> str:
    """Whose stream it is."""
    return key.rpartition(_BETWEEN)[0] or GLOBAL_ACCOUNT


def name_of(key: str) -> str:
    """The stream's name in its account."""
    return key.rpartition(_BETWEEN)[2]


def shown_key(key: str) -> str:
    """Account and name, as health problems name a stream."""
    return f"{account_of(key)}{_BETWEEN}{name_of(key)}"
