"""The streams of one account as new ones are judged beside them: what they add up to, and whose subjects are whose.

Every sum is kept as streams come, change and go, so a question does not cost more where there are more streams.
Configurations come as the objects of the API and are parsed when one is asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from jetstore.model.infos import tier_of
from jetstore.model.stream import StorageType, StreamConfig
from jetstore.model.subject_index import SubjectIndex

Fields = Mapping[str, Any]
"""``StreamConfig.to_json`` of a checked configuration."""


class Reserved:
    """Streams, and bytes that they have set aside (``max_bytes``), by storage."""

    def __init__(self) -> None:
        self.streams = 0
        self._bytes: dict[str, int] = {}

    def add(self, fields: Fields, sign: int) -> None:
        """One stream more (1) or less (-1)."""
        storage = _storage(fields)
        self.streams += sign
        self._bytes[storage] = self._bytes.get(storage, 0) + sign * _max_bytes(fields)

    def bytes(self, storage: StorageType) -> int:
        """Of all these streams with this storage."""
        return self._bytes.get(storage.value, 0)


class Catalogue(Mapping[str, StreamConfig]):
    """Desired configurations by name, in the order in which they came."""

    def __init__(self) -> None:
        self._fields: dict[str, Fields] = {}
        self._parsed: dict[str, StreamConfig] = {}
        self._all = Reserved()
        self._tiers: dict[str, Reserved] = {}
        self._subjects = SubjectIndex()
        self._copies: dict[str, dict[str, None]] = {}
        """Who copies, by the name of what is copied."""
        self._sorted: Sequence[str] | None = None

    @classmethod
    def of(cls, configs: Iterable[StreamConfig]) -> Catalogue:
        """One that has these."""
        made = cls()
        for config in configs:
            made.put(config.name, config.to_json())
        return made

    # -- changes --------------------------------------------------------------------------------------------------

    def put(self, name: str, fields: Fields) -> None:
        """A stream is there, or has another configuration."""
        before = self._fields.get(name)
        if before is fields:
            return
        if before is None:
            self._sorted = None
        else:
            self._count(name, before, -1)
        self._fields[name] = fields
        self._parsed.pop(name, None)
        self._count(name, fields, 1)

    def drop(self, name: str) -> None:
        """A stream is gone."""
        self._count(name, self._fields.pop(name), -1)
        self._parsed.pop(name, None)
        self._sorted = None

    def _count(self, name: str, fields: Fields, sign: int) -> None:
        tier = _tier(fields)
        of_tier = self._tiers.get(tier)
        if of_tier is None:
            of_tier = self._tiers[tier] = Reserved()
        for reserved in (self._all, of_tier):
            reserved.add(fields, sign)
        for subject in fields.get("subjects", ()):
            (self._subjects.add if sign > 0 else self._subjects.remove)(subject, name)
        for origin in _origins(fields):
            copies = self._copies.setdefault(origin, {})
            if sign > 0:
                copies[name] = None
            else:
                copies.pop(name, None)
            if not copies:
                del self._copies[origin]

    def fields(self, name: str) -> Fields | None:
        """What ``put`` was given last; None: there is no such stream."""
        return self._fields.get(name)

    # -- questions ------------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> StreamConfig:
        parsed = self._parsed.get(name)
        if parsed is None:
            parsed = self._parsed[name] = StreamConfig.from_json(dict(self._fields[name]))
        return parsed

    def __contains__(self, name: object) -> bool:
        return name in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def names(self) -> Sequence[str]:
        """Of all, sorted."""
        if self._sorted is None:
            self._sorted = tuple(sorted(self._fields))
        return self._sorted

    def count(self, tier: str = "", *, but: str = "") -> int:
        """How many there are (of one tier), this one left out."""
        fields = self._fields.get(but)
        return self._of(tier).streams - (fields is not None and tier in ("", _tier(fields)))

    def reserved(self, storage: StorageType, tier: str = "", *, but: str = "") -> int:
        """Bytes that they (those of one tier) have set aside in this storage, this one left out."""
        found = self._of(tier).bytes(storage)
        fields = self._fields.get(but)
        if fields is not None and tier in ("", _tier(fields)) and _storage(fields) == storage.value:
            found -= _max_bytes(fields)
        return found

    def _of(self, tier: str) -> Reserved:
        return self._tiers.get(tier, _NONE) if tier else self._all

    def colliding(self, subject: str) -> Iterator[str]:
        """Streams with a subject that some literal subject matches together with this one; each perhaps repeatedly."""
        return self._subjects.colliding(subject)

    def copies_of(self, name: str) -> Collection[str]:
        """Streams whose mirror or source has this name, wherever that is."""
        return self._copies.get(name, {}).keys()


_NONE = Reserved()


def _max_bytes(fields: Fields) -> int:
    return max(int(fields.get("max_bytes", -1)), 0)


def _storage(fields: Fields) -> str:
    return str(fields.get("storage", StorageType.FILE.value))


def _tier(fields: Fields) -> str:
    return tier_of(fields.get("num_replicas", 1))


def _origins(fields: Fields) -> Iterator[str]:
    mirror = fields.get("mirror")
    if mirror is not None:
        yield mirror["name"]
    for source in fields.get("sources", ()):
        yield source["name"]
