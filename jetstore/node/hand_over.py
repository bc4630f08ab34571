"""Leadership goes to others before a node stops, so that nobody waits for its checkpoints or for an election."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

HAND_OVER_S = 1.0
"""How long a clean stop waits for others to take over; whoever has not by then elects somebody when the links close."""
LOOK_S = 0.005


class Leading(Protocol):
    """What it needs of a core."""

    @property
    def is_leader(self) -> bool: ...


class Led(Protocol):
    """A group (``jetstore.node.group.Group``)."""

    @property
    def core(self) -> Leading: ...
    def hand_over(self) -> None:
        """Ask the follower with most of the log to take over, if there is one."""


async def hand_over(groups: Sequence[Led], loop: asyncio.AbstractEventLoop) -> int:
    """How many of these groups this node still leads after others were asked to; returns when it is none."""
    led = [group for group in groups if group.core.is_leader]
    for group in led:
        group.hand_over()
    deadline = loop.time() + HAND_OVER_S
    # A core tells nobody that it resigned, and this is once in a life.
    while (led := [group for group in led if group.core.is_leader]) and loop.time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(LOOK_S)
    return len(led)
