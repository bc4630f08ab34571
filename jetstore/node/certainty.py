"""What may be said to clients, and when: a refusal is definite, and so is what was done.

``10008`` and every other error of the API mean that the request changes nothing and never will. So a refusal that comes
of a group's state needs a leader that is sure to be one, and a request that was carried out is answered with what it
did, or, where that cannot be shown, not at all.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

from jetstore.errors import ApiError, LedElsewhere, NotNow, OutcomeUnknown
from jetstore.model.api_errors import api_error
from jetstore.node.group import Group

UNAVAILABLE = 10008


async def confirm_leading(group: Group) -> None:
    """Return once this member is known to lead. Raises 10008."""
    try:
        await group.confirm()
    except NotNow:
        raise api_error("JSClusterNotAvailErr") from None


@asynccontextmanager
async def certain(group: Group) -> AsyncGenerator[None, None]:
    """A refusal is given only once it is sure that the group whose state it comes of was led here then; else 10008.

    Who leads it now may have changed what the refusal says, and told somebody.
    """
    try:
        yield
    except ApiError as refusal:
        if refusal.err_code != UNAVAILABLE:
            await confirm_leading(group)
        raise


@contextmanager
def decided(what: str) -> Generator[None]:
    """It was done: an error from here on would say that it was not. Raises OutcomeUnknown in its place."""
    try:
        yield
    except LedElsewhere:
        raise
    except (ApiError, NotNow) as error:
        raise OutcomeUnknown(f"{what}, and cannot be shown: {error}") from None
