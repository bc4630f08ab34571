"""How much the streams of an account, and of the whole node, may hold: decided before a run is proposed.

What is stored is added up rarely: half of what is free is given out at a time, and counted down by the sizes of runs,
so adding up comes often only where little is free. What waits or is under way counts as stored, and nothing that was
acknowledged is touched. Sizes are those that stream states show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from jetstore.errors import ApiError
from jetstore.meta.stream_key import GLOBAL_ACCOUNT, account_of
from jetstore.model.api_errors import api_error
from jetstore.model.infos import AccountLimits
from jetstore.model.stream import StorageType

if TYPE_CHECKING:
    from jetstore.node.stream_group import StreamGroup

log = structlog.get_logger(__name__)
_NOTHING = AccountLimits(max_memory=0, max_storage=0)
"""Where the account has tiers, and none for streams with one replica, as all are without a cluster."""


@dataclass(frozen=True, slots=True)
class RoomLimits:
    """Bounds in bytes of what streams hold; negative = none."""

    accounts: Mapping[str, AccountLimits] = field(default_factory=dict)
    only: str = ""
    """The one account with JetStream, which streams with plain keys belong to as well; "": there are several."""
    max_memory_bytes: int = -1
    """Of all accounts together."""
    max_storage_bytes: int = -1


class Allowance:
    """One bound and what is left of it."""

    def __init__(self, max_bytes: int, used: Callable[[], int], *, is_passed_first: bool = False) -> None:
        """``is_passed_first``: refuses only once more than the bound is held, so what comes last may go beyond it."""
        self._max_bytes = max_bytes
        self._used = used
        self._is_passed_first = is_passed_first
        self._left = 0
        """Given out, and not counted again before it is spent."""

    def take(self, size: int) -> bool:
        """Whether so many bytes more may be stored; then they count."""
        if size <= self._left:
            self._left -= size
            return True
        free = self.free()
        if not self.fits(free, 0, size):
            return False
        self._left = max(free - size, 0) // 2
        return True

    def free(self) -> int:
        """Bytes that are free now, negative where more is held than may be; nothing is given out any more."""
        self._left = 0
        return self._max_bytes - self._used()

    def fits(self, free: int, taken: int, size: int) -> bool:
        """Whether ``size`` bytes find room where ``taken`` of ``free`` are gone."""
        return taken <= free if self._is_passed_first else taken + size <= free


class Room:
    """What bounds one stream. Refusals: 10023 where the node holds too much, 10002 where its account does."""

    def __init__(self, bounds: Sequence[tuple[Allowance, str]], shown: str) -> None:
        """``bounds`` with the names of their errors, in the order in which they are asked."""
        self._bounds = bounds
        self._shown = shown
        self._was_full = False

    def take(self, size: int) -> ApiError | None:
        """Why so many bytes more may not be stored, or None: then they count."""
        for allowance, error in self._bounds:
            if not allowance.take(size):
                return self._full(error)
        self._was_full = False
        return None

    def judge(self, sizes: Sequence[int]) -> list[ApiError | None]:
        """The same for each message of a run that does not fit as a whole, in its order; 0: stores nothing."""
        found: list[ApiError | None] = []
        free = [allowance.free() for allowance, _ in self._bounds]
        taken = 0
        for size in sizes:
            refusal = None
            for (allowance, error), left in zip(self._bounds, free, strict=True):
                if size and refusal is None and not allowance.fits(left, taken, size):
                    refusal = self._full(error)
            taken += size if refusal is None else 0
            found.append(refusal)
        return found

    def _full(self, error: str) -> ApiError:
        if not self._was_full:
            self._was_full = True
            log.warning("no room for publishes", stream=self._shown, reason=api_error(error).description)
        return api_error(error)


class Rooms:
    """All bounds of a node."""

    def __init__(self, limits: RoomLimits, streams: Callable[[], Iterable[StreamGroup]]) -> None:
        self._limits = limits
        self._streams = streams
        self._allowances: dict[tuple[str, bool], Allowance] = {}
        """By account ("": all together) and whether in memory."""

    def of(self, key: str, *, in_memory: bool) -> Room | None:
        """What bounds the stream with this key; None: nothing does."""
        limits, owner = self._limits, self._owner(key)
        account = limits.accounts.get(owner, AccountLimits()).of(1) or _NOTHING
        of_node = limits.max_memory_bytes if in_memory else limits.max_storage_bytes
        of_account = account.max_memory if in_memory else account.max_storage
        bounds = []
        if of_node >= 0:
            bounds.append((self._allowance("", of_node, in_memory), "JSInsufficientResourcesErr"))
        if of_account >= 0:
            bounds.append((self._allowance(owner, of_account, in_memory), "JSAccountResourcesExceededErr"))
        return Room(bounds, key) if bounds else None

    def change(self, limits: RoomLimits, in_memory: Callable[[str], bool]) -> None:
        """Other bounds from now on, for streams that are there, too; ``in_memory`` tells by key where they are."""
        self._limits = limits
        self._allowances.clear()
        for group in self._streams():
            group.ingest.room = self.of(group.key, in_memory=in_memory(group.key))

    def _owner(self, key: str) -> str:
        account = account_of(key)
        return self._limits.only if self._limits.only and account == GLOBAL_ACCOUNT else account

    def _allowance(self, owner: str, max_bytes: int, in_memory: bool) -> Allowance:
        found = self._allowances.get((owner, in_memory))
        if found is None:
            found = Allowance(max_bytes, lambda: self._held(owner, in_memory), is_passed_first=not owner)
            self._allowances[owner, in_memory] = found
        return found

    def _held(self, owner: str, in_memory: bool) -> int:
        """Bytes stored and under way."""
        return sum(
            group.stream.bytes + group.ingest.coming_bytes
            for group in self._streams()
            if owner in ("", self._owner(group.key)) and _is_in(group, in_memory)
        )


def _is_in(group: StreamGroup, in_memory: bool) -> bool:
    """Whether its messages count there; before its configuration is applied it has none."""
    config = group.stream.config
    return config is not None and (config.storage is StorageType.MEMORY) is in_memory
