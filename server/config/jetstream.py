"""The ``jetstream`` block."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from jetstore.model.server_limits import ServerLimits
from jetstore.model.times import parse_duration
from jetstore.store.keys import Cipher, Encryption
from server.config.tree import Entry, go_kind_of, plain
from server.config.values import (
    INT32_MAX,
    INT64_MAX,
    Fields,
    Mistake,
    Reader,
    ReadValue,
    Table,
    as_text,
    boolean,
    duration,
    integer,
    text,
    wrong_type,
)


@dataclass(frozen=True, slots=True)
class JetStreamOptions:
    """The ``jetstream`` block."""

    enabled: bool = False
    store_dir: str = ""
    """Parent of the store; "" = ``default_store_dir``."""
    domain: str = ""
    """A second name of the API: ``$JS.<domain>.API``; "" = none."""
    max_memory_bytes: int = -1
    """Room for memory streams; -1 = three quarters of the machine's memory."""
    max_storage_bytes: int = -1
    """Room for file streams; -1 = three quarters of the disk's free space."""
    is_strict: bool = True
    """Unknown fields in API requests are errors."""
    key: str = field(default="", repr=False)
    """The secret under which the store is encrypted; "" = it is not."""
    cipher: Cipher | None = None
    """None = as the store has it, in a new one "chacha"."""
    previous_key: str = field(default="", repr=False)
    """The secret before this one, while the store still has its keys under it; "" = none."""
    sync_interval: str = ""
    """As written; changes nothing, since every acknowledgement is durable; said once in the log."""
    max_ack_pending: int = 0
    max_request_batch: int = 0
    duplicate_window_ns: int = 0

    @property
    def encryption(self) -> Encryption | None:
        """What opens and seals the store; None = nothing."""
        return Encryption(self.key, self.cipher, self.previous_key) if self.key else None

    def server_limits(self, max_memory_bytes: int, max_storage_bytes: int, replicas_max: int = 1) -> ServerLimits:
        """What configurations of streams and consumers are checked against (with the room as resolved)."""
        return ServerLimits(
            replicas_max=replicas_max,
            max_memory_bytes=max_memory_bytes,
            max_storage_bytes=max_storage_bytes,
            duplicate_window_ns=self.duplicate_window_ns,
            max_ack_pending=self.max_ack_pending,
            max_request_batch=self.max_request_batch,
        )


def _jetstream(reader: Reader, _name: str, entry: Entry) -> Fields:
    value = entry.value
    if isinstance(value, bool):
        return {"jetstream": JetStreamOptions(enabled=value)}
    if isinstance(value, str):
        if value.lower() not in ("enabled", "enable", "disabled", "disable"):
            raise Mistake(f"Expected 'enabled' or 'disabled' for string value, got '{value}'")
        return {"jetstream": JetStreamOptions(enabled=value.lower().startswith("enable"))}
    if not isinstance(value, dict):
        raise Mistake(f"Expected map, bool or string to define JetStream, got {go_kind_of(value)}")
    fields = reader.block(value, _JETSTREAM, REFUSED)
    if "key" not in fields and ("cipher" in fields or "previous_key" in fields):
        raise Mistake("cipher and prev_key need a key: without one nothing is encrypted")
    return {"jetstream": JetStreamOptions(**{"enabled": True, **fields})}


def _secret(option: str) -> ReadValue:
    def read(_reader: Reader, name: str, entry: Entry) -> Fields:
        secret = as_text(name, entry)
        if not secret:
            raise Mistake(f"{name} is empty: nothing would be encrypted")
        return {option: secret}

    return read


def _cipher(_reader: Reader, name: str, entry: Entry) -> Fields:
    given = as_text(name, entry)
    cipher = _CIPHERS.get(given.lower())
    if cipher is None:
        raise Mistake(f'Unknown cipher type: "{given}"')
    return {"cipher": cipher}


def _strict(_reader: Reader, _name: str, entry: Entry) -> Fields:
    if not isinstance(entry.value, bool):
        raise Mistake(f"Expected 'true' or 'false' for bool value, got '{plain(entry.value)}'")
    return {"is_strict": entry.value}


def _limits(reader: Reader, _name: str, entry: Entry) -> Fields:
    if not isinstance(entry.value, dict):
        raise Mistake(f"Expected a map to define JetStreamLimits, got {go_kind_of(entry.value)}")
    return reader.block(entry.value, _LIMITS, _LIMITS_REFUSED)


def _sync_interval(reader: Reader, name: str, entry: Entry) -> Fields:
    value = entry.value
    if isinstance(value, str) and value.lower() == "always":
        return {"sync_interval": "always"}
    if isinstance(value, int) and not isinstance(value, bool):
        reader.warn(entry, f'invalid use of field "{name}": {name} should be converted to a duration')
        return {"sync_interval": f"{value}s"}
    if not isinstance(value, str):
        raise wrong_type(name, entry, "a duration or always")
    try:
        parse_duration(value)
    except ValueError as error:
        raise Mistake(f"error parsing sync_interval: {error}") from None
    return {"sync_interval": value}


_CIPHERS: Final[dict[str, Cipher]] = {"chacha": "chacha", "chachapoly": "chacha", "aes": "aes"}
_LIMITS: Final[Table] = {
    "max_ack_pending": integer("max_ack_pending", -1, INT32_MAX),
    "max_request_batch": integer("max_request_batch", -1, INT32_MAX),
    "duplicate_window": duration("duplicate_window_ns"),
}
_LIMITS_REFUSED: Final = frozenset({"max_ha_assets", "batch"})
_MAX_MEMORY: Final = integer("max_memory_bytes", -1, INT64_MAX, sizes_as_text=True)
_MAX_STORAGE: Final = integer("max_storage_bytes", -1, INT64_MAX, sizes_as_text=True)
_JETSTREAM: Final[Table] = {
    "enabled": boolean("enabled"),
    "enable": boolean("enabled"),
    "store_dir": text("store_dir"),
    "storedir": text("store_dir"),
    "store": text("store_dir"),
    "domain": text("domain"),
    "key": _secret("key"),
    "ek": _secret("key"),
    "encryption_key": _secret("key"),
    "cipher": _cipher,
    "prev_key": _secret("previous_key"),
    "prev_ek": _secret("previous_key"),
    "prev_encryption_key": _secret("previous_key"),
    "max_mem": _MAX_MEMORY,
    "max_memory_store": _MAX_MEMORY,
    "max_mem_store": _MAX_MEMORY,
    "max_file": _MAX_STORAGE,
    "max_file_store": _MAX_STORAGE,
    "sync": _sync_interval,
    "sync_interval": _sync_interval,
    "strict": _strict,
    "limits": _limits,
}
REFUSED: Final = frozenset(
    (
        *("unique_tag", "max_outstanding_catchup", "max_buffered_size", "max_buffered_msgs"),
        *("request_queue_limit", "info_queue_limit", "meta_compact", "meta_compact_size", "meta_compact_sync"),
        *("max_concurrent_io", "extension_hint", "tpm"),
    )
)
TOP_LEVEL: Final[Table] = {"jetstream": _jetstream}
