"""Keys of the top level that belong to no block."""

from __future__ import annotations

from typing import Final

from jetstore.model.times import format_duration, parse_duration
from server.config.routes import client_advertised
from server.config.tree import Entry, go_kind_of
from server.config.values import (
    INT32_MAX,
    INT64_MAX,
    SECOND,
    Fields,
    Mistake,
    Reader,
    ReadValue,
    Table,
    address,
    as_integer,
    as_text,
    boolean,
    duration,
    integer,
    name_without_spaces,
    port,
    text,
)

LAME_DUCK_DURATION_MIN_NS: Final = 30 * SECOND
SUB_TOKENS_MAX: Final = 255
CLOSED_CLIENTS_MAX: Final = 1_000_000


def at_most(option: str, high: int) -> ReadValue:
    """A limit: an integer, of which those below zero mean zero: none."""

    def read(_reader: Reader, name: str, entry: Entry) -> Fields:
        value = as_integer(name, entry)
        if value > high:
            raise Mistake(f"{name} value is too big")
        return {option: max(value, 0)}

    return read


def _tracing(option: str) -> ReadValue:
    """A kind of trace, which switches tracing itself on or off as well."""

    def read(reader: Reader, name: str, entry: Entry) -> Fields:
        fields = boolean(option)(reader, name, entry)
        return {**fields, "trace": fields[option]}

    return read


def _client_advertise(_reader: Reader, name: str, entry: Entry) -> Fields:
    try:
        return {"client_advertise": client_advertised(as_text(name, entry))}
    except ValueError as error:
        raise Mistake(str(error)) from None


def _max_connections(_reader: Reader, name: str, entry: Entry) -> Fields:
    """0 means the default, less means any number."""
    value = as_integer(name, entry)
    if value > INT32_MAX:
        raise Mistake(f"{name} value is too big")
    return {"max_connections": value if value > 0 else INT32_MAX} if value else {}


def _max_sub_tokens(_reader: Reader, name: str, entry: Entry) -> Fields:
    value = as_integer(name, entry)
    if value > SUB_TOKENS_MAX:
        raise Mistake(f"{name} value is too big")
    if value <= 0:
        raise Mistake(f"{name} value can not be negative")
    return {"max_sub_tokens": value}


def _lame_duck_ns(name: str, entry: Entry) -> int:
    """A duration in quotes: here a number of seconds was never allowed."""
    try:
        return parse_duration(as_text(name, entry))
    except ValueError as error:
        raise Mistake(f"error parsing {name}: {error}") from None


def _lame_duck_duration(_reader: Reader, name: str, entry: Entry) -> Fields:
    duration_ns = _lame_duck_ns(name, entry)
    if duration_ns < LAME_DUCK_DURATION_MIN_NS:
        raise Mistake(f"invalid lame_duck_duration of {format_duration(duration_ns)}, minimum is 30 seconds")
    return {"lame_duck_duration_ns": duration_ns}


def _lame_duck_grace(_reader: Reader, name: str, entry: Entry) -> Fields:
    duration_ns = _lame_duck_ns(name, entry)
    if duration_ns < 0:
        raise Mistake("invalid lame_duck_grace_period, needs to be positive")
    return {"lame_duck_grace_ns": duration_ns}


def _write_timeout(_reader: Reader, name: str, entry: Entry) -> Fields:
    value = as_text(name, entry)
    if value not in ("default", "close", "retry"):
        raise Mistake("write_timeout must be 'default', 'close' or 'retry'")
    if value == "retry":
        raise Mistake('"write_timeout: retry" is not supported by this version of jetstore: slow clients are closed')
    return {}


def _server_tags(_reader: Reader, name: str, entry: Entry) -> Fields:
    given = entry.value
    if not isinstance(given, str | list):
        raise Mistake(f"error parsing tags: unsupported type {go_kind_of(given)}")
    tags = [given] if isinstance(given, str) else [each.value for each in given]
    for tag in tags:
        if not isinstance(tag, str):
            raise Mistake(f"error parsing tags: unsupported type {go_kind_of(tag)} where string is expected")
    return {"server_tags": tuple(dict.fromkeys(str(tag).strip().lower() for tag in tags))}


def _server_metadata(_reader: Reader, name: str, entry: Entry) -> Fields:
    found = entry.value
    if not isinstance(found, dict):
        raise Mistake(f"error parsing metadata: unsupported type {go_kind_of(found)}")
    return {"server_metadata": tuple(sorted((key, as_text(f"{name} {key}", each)) for key, each in found.items()))}


TOP_LEVEL: Final[Table] = {
    "listen": address("host", "port"),
    "host": text("host"),
    "net": text("host"),
    "port": port("port"),
    "server_name": name_without_spaces("server_name", "server"),
    "server_tags": _server_tags,
    "server_metadata": _server_metadata,
    "http": address("http_host", "http_port"),
    "http_port": port("http_port"),
    "monitor_port": port("http_port"),
    "https": address("http_host", "https_port"),
    "https_port": port("https_port"),
    "http_base_path": text("http_base_path"),
    "client_advertise": _client_advertise,
    "debug": boolean("debug"),
    "trace": boolean("trace"),
    "trace_verbose": _tracing("trace_verbose"),
    "trace_headers": _tracing("trace_headers"),
    "max_traced_msg_len": at_most("traced_bytes_max", INT32_MAX),
    "logtime": boolean("logtime"),
    "logtime_utc": boolean("logtime_utc"),
    "log_file": text("log_file"),
    "logfile": text("log_file"),
    "logfile_size_limit": at_most("log_file_bytes_max", INT64_MAX),
    "log_size_limit": at_most("log_file_bytes_max", INT64_MAX),
    "logfile_max_num": at_most("log_files_max", INT32_MAX),
    "log_max_num": at_most("log_files_max", INT32_MAX),
    "syslog": boolean("syslog"),
    "remote_syslog": text("remote_syslog"),
    "pid_file": text("pid_file"),
    "pidfile": text("pid_file"),
    "ports_file_dir": text("ports_file_dir"),
    "max_control_line": integer("max_control_line_bytes", 1, INT32_MAX),
    "max_payload": integer("max_payload_bytes", 1, INT32_MAX),
    "max_pending": integer("max_pending_bytes", 1, INT64_MAX),
    "max_connections": _max_connections,
    "max_conn": _max_connections,
    "max_subscriptions": at_most("max_subscriptions", INT64_MAX),
    "max_subs": at_most("max_subscriptions", INT64_MAX),
    "max_sub_tokens": _max_sub_tokens,
    "max_subscription_tokens": _max_sub_tokens,
    "max_closed_clients": integer("max_closed_clients", 0, CLOSED_CLIENTS_MAX),
    "no_header_support": boolean("no_header_support"),
    "no_fast_producer_stall": boolean("no_fast_producer_stall"),
    "lame_duck_duration": _lame_duck_duration,
    "lame_duck_grace_period": _lame_duck_grace,
    "ping_interval": duration("ping_interval_ns"),
    "ping_max": integer("ping_max", 0, INT32_MAX),
    "write_deadline": duration("write_deadline_ns"),
    "write_timeout": _write_timeout,
    "store_dir": text("store_dir"),
    "storedir": text("store_dir"),
}
