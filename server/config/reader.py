"""A configuration tree → ``Options``, with every mistake collected.

Each block has a table: key (in any letter case, synonyms as own rows) → (option, how to read the value). A row that
is in no table is either known to nats-server (refused by name) or an unknown field; a key that a variable used is
neither. A feature that we do not have may be switched off explicitly (``false``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from jetstore.model.times import format_duration, parse_duration
from server.config import unsupported
from server.config.errors import ConfigError, ConfigProblems, Problem
from server.config.options import (
    SECOND,
    AuthorizationOptions,
    ClusterOptions,
    JetStreamOptions,
    Options,
    User,
    is_bcrypt,
)
from server.config.parser import parse_file, scalar
from server.config.routes import advertised, parse_route
from server.config.tree import Entry, Node, kind_of, plain

EMPTY: Final = "config has no values or is empty"
_INT32_MAX: Final = 2**31 - 1
_INT64_MAX: Final = 2**63 - 1

Fields = dict[str, Any]  # Any: an option's value
ReadValue = Callable[["_Reader", str, Entry], Fields]


class _Mistake(Exception):
    """What is wrong with the value at hand."""


def load_options(path: Path, environment: Mapping[str, str], *, is_test: bool = False) -> Options:
    """The options a file sets. ``ConfigError`` with the text for standard error otherwise.

    ``is_test``: an empty file and whatever would only be a warning are errors.
    """
    tree = parse_file(path, environment)
    reader = _Reader(str(path))
    fields = reader.block(tree, _TOP_LEVEL, unsupported.TOP_LEVEL)
    if not tree:
        if is_test:
            raise ConfigError(f"{path}: {EMPTY}\n")
        reader.warnings.append(f"{path}: {EMPTY}")
    problems = [*reader.problems, *(reader.soft_problems if is_test else ())]
    if problems:
        raise ConfigProblems(sorted(problems, key=lambda problem: (problem.file != str(path), problem.line)))
    reader.warnings.extend(str(problem) for problem in reader.soft_problems)
    digest = hashlib.sha256(json.dumps(plain(tree), sort_keys=True, default=str).encode()).hexdigest()
    if "store_dir" in fields:
        jetstream = fields.get("jetstream", JetStreamOptions())
        store_dir = fields.pop("store_dir")
        fields["jetstream"] = replace(jetstream, store_dir=jetstream.store_dir or store_dir)
    return Options(**fields, config_file=str(path), config_digest=f"sha256:{digest}", warnings=tuple(reader.warnings))


class _Reader:
    """Collects problems while blocks are read."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.soft_problems: list[Problem] = []
        """Warnings when starting, errors when testing."""
        self.warnings: list[str] = []

    def complain(self, entry: Entry, text: str) -> None:
        self.problems.append(Problem(entry.file, entry.line, entry.column, text))

    def block(
        self, block: dict[str, Entry], table: Mapping[str, ReadValue], refused: frozenset[str] = frozenset()
    ) -> Fields:
        """Fields set by a block's known keys, in order; the last of several wins."""
        fields: Fields = {}
        for key, entry in block.items():
            name = key.lower()
            read = table.get(name)
            if read is not None:
                try:
                    fields.update(read(self, name, entry))
                except _Mistake as mistake:
                    self.complain(entry, str(mistake))
            elif name in refused:
                if entry.value is not False:
                    self.complain(entry, unsupported.refusal(key))
            elif not entry.is_used:
                self.complain(entry, f'unknown field "{key}"')
        return fields


# -- values -------------------------------------------------------------------------------------------------------


def _wrong_type(name: str, entry: Entry, wanted: str) -> _Mistake:
    shown = f' "{entry.value}"' if isinstance(entry.value, str) else ""
    return _Mistake(f"{name} should be {wanted}, not {kind_of(entry.value)}{shown}")


def _as_map(name: str, entry: Entry) -> dict[str, Entry]:
    if not isinstance(entry.value, dict):
        raise _Mistake(f"Expected map to define {name}, got {kind_of(entry.value)}")
    return entry.value


def _text(option: str) -> ReadValue:
    def read(_reader: _Reader, name: str, entry: Entry) -> Fields:
        if not isinstance(entry.value, str):
            raise _wrong_type(name, entry, "a string")
        return {option: entry.value}

    return read


def _secret(option: str) -> ReadValue:
    def read(_reader: _Reader, name: str, entry: Entry) -> Fields:
        if not isinstance(entry.value, str):
            raise _wrong_type(name, entry, "a string")
        if is_bcrypt(entry.value):
            raise _Mistake(unsupported.refusal(f"{name} as a bcrypt hash"))
        return {option: entry.value}

    return read


def _name(option: str, what: str) -> ReadValue:
    def read(_reader: _Reader, name: str, entry: Entry) -> Fields:
        if not isinstance(entry.value, str):
            raise _wrong_type(name, entry, "a string")
        if any(character.isspace() for character in entry.value):
            raise _Mistake(f"{what} name cannot contain spaces")
        return {option: entry.value}

    return read


def _boolean(option: str) -> ReadValue:
    def read(_reader: _Reader, name: str, entry: Entry) -> Fields:
        if not isinstance(entry.value, bool):
            raise _wrong_type(name, entry, "true or false")
        return {option: entry.value}

    return read


def _strict(_reader: _Reader, _name: str, entry: Entry) -> Fields:
    if not isinstance(entry.value, bool):
        raise _Mistake(f"Expected 'true' or 'false' for bool value, got {kind_of(entry.value)}")
    return {"is_strict": entry.value}


def _integer(option: str, low: int, high: int, *, sizes_as_text: bool = False) -> ReadValue:
    def read(_reader: _Reader, name: str, entry: Entry) -> Fields:
        value: Node = entry.value
        if sizes_as_text and isinstance(value, str):
            value = scalar(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong_type(name, entry, "an integer")
        if value > high:
            raise _Mistake(f"{name} value is too big")
        if value < low:
            raise _Mistake(f"{name} should be at least {low}")
        return {option: value}

    return read


def _duration(option: str) -> ReadValue:
    def read(reader: _Reader, name: str, entry: Entry) -> Fields:
        value = entry.value
        if isinstance(value, int) and not isinstance(value, bool):
            reader.soft_problems.append(
                Problem(
                    entry.file,
                    entry.line,
                    entry.column,
                    f'invalid use of field "{name}": {name} should be converted to a duration',
                )
            )
            return {option: value * SECOND}
        if not isinstance(value, str):
            raise _wrong_type(name, entry, "a duration")
        try:
            duration_ns = parse_duration(value)
        except ValueError as error:
            raise _Mistake(f"error parsing {name}: {error}") from None
        if duration_ns < 0:
            raise _Mistake(f"{name} should not be negative: {format_duration(duration_ns)}")
        return {option: duration_ns}

    return read


def _seconds(option: str) -> ReadValue:
    """A duration, or a number of seconds."""

    def read(_reader: _Reader, name: str, entry: Entry) -> Fields:
        value = entry.value
        if isinstance(value, str):
            try:
                return {option: parse_duration(value)}
            except ValueError as error:
                raise _Mistake(f"error parsing authorization config, '{name}' {error}") from None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong_type(name, entry, "a duration or seconds")
        return {option: int(value * SECOND)}

    return read


def _port(value: int) -> int:
    if not -1 <= value <= 65_535:
        raise _Mistake(f"port {value} is out of range")
    return value


def _address(host: str, port: str) -> ReadValue:
    """``host:port`` or just a port."""

    def read(_reader: _Reader, name: str, entry: Entry) -> Fields:
        value = entry.value
        if isinstance(value, int) and not isinstance(value, bool):
            return {port: _port(value)}
        if not isinstance(value, str):
            raise _wrong_type(name, entry, "a host:port or a port")
        address, colon, number = value.rpartition(":")
        if not colon:
            raise _Mistake(f'could not parse address string "{value}"')
        if not number.removeprefix("-").isdigit():
            raise _Mistake(f'could not parse port "{number}"')
        return {host: address.removeprefix("[").removesuffix("]"), port: _port(int(number))}

    return read


def _port_option(option: str) -> ReadValue:
    def read(_reader: _Reader, name: str, entry: Entry) -> Fields:
        if isinstance(entry.value, bool) or not isinstance(entry.value, int):
            raise _wrong_type(name, entry, "an integer")
        return {option: _port(entry.value)}

    return read


# -- blocks -------------------------------------------------------------------------------------------------------


def _user(reader: _Reader, entry: Entry) -> User | None:
    if not isinstance(entry.value, dict):
        reader.complain(entry, f"Expected user entry to be a map, got {kind_of(entry.value)}")
        return None
    fields = reader.block(entry.value, _USER, unsupported.USER)
    if "user" not in fields:
        reader.complain(entry, "User entry requires a user")
        return None
    return User(fields["user"], fields.get("password", ""))


def _users(reader: _Reader, _name: str, entry: Entry) -> Fields:
    if not isinstance(entry.value, list):
        raise _Mistake(f"Expected users field to be an array, got {kind_of(entry.value)}")
    users = [user for item in entry.value if (user := _user(reader, item)) is not None]
    seen: set[str] = set()
    for user in users:
        if user.user in seen:
            raise _Mistake(f'Duplicate user "{user.user}" detected')
        seen.add(user.user)
    return {"users": tuple(users)}


def _authorization(reader: _Reader, name: str, entry: Entry) -> Fields:
    fields = reader.block(_as_map(name, entry), _AUTHORIZATION, unsupported.AUTHORIZATION)
    has_user = "user" in fields or "password" in fields
    if has_user and "token" in fields:
        raise _Mistake("Cannot have a user/pass and token")
    if has_user and "users" in fields:
        raise _Mistake("Can not have a single user/pass and a users array")
    if "token" in fields and "users" in fields:
        raise _Mistake("Can not have a token and a users array")
    return {"authorization": AuthorizationOptions(**fields)}


def _jetstream(reader: _Reader, _name: str, entry: Entry) -> Fields:
    value = entry.value
    if isinstance(value, bool):
        return {"jetstream": JetStreamOptions(enabled=value)}
    if isinstance(value, str):
        if value.lower() not in ("enabled", "enable", "disabled", "disable"):
            raise _Mistake(f"Expected 'enabled' or 'disabled' for string value, got '{value}'")
        return {"jetstream": JetStreamOptions(enabled=value.lower().startswith("enable"))}
    if not isinstance(value, dict):
        raise _Mistake(f"Expected map, bool or string to define JetStream, got {kind_of(value)}")
    fields = reader.block(value, _JETSTREAM, unsupported.JETSTREAM)
    return {"jetstream": JetStreamOptions(**{"enabled": True, **fields})}


def _jetstream_limits(reader: _Reader, name: str, entry: Entry) -> Fields:
    return reader.block(_as_map(name, entry), _JETSTREAM_LIMITS, unsupported.JETSTREAM_LIMITS)


def _sync_interval(_reader: _Reader, name: str, entry: Entry) -> Fields:
    value = entry.value
    if isinstance(value, str) and value.lower() == "always":
        return {"sync_interval": "always"}
    if isinstance(value, int) and not isinstance(value, bool):
        return {"sync_interval": f"{value}s"}
    if not isinstance(value, str):
        raise _wrong_type(name, entry, "a duration or always")
    try:
        parse_duration(value)
    except ValueError as error:
        raise _Mistake(f"error parsing sync_interval: {error}") from None
    return {"sync_interval": value}


def _cluster(reader: _Reader, name: str, entry: Entry) -> Fields:
    fields = reader.block(_as_map(name, entry), _CLUSTER, unsupported.CLUSTER)
    named = {key: fields.pop(key) for key in ("cluster_name",) if key in fields}
    return {**named, "cluster": ClusterOptions(**fields)}


def _cluster_authorization(reader: _Reader, name: str, entry: Entry) -> Fields:
    block = _as_map(name, entry)
    keys = {key.lower() for key in block}
    if "token" in keys:
        raise _Mistake("Cluster authorization does not support tokens")
    if "users" in keys:
        raise _Mistake("Cluster authorization does not allow multiple users")
    return reader.block(block, _CLUSTER_AUTHORIZATION, unsupported.CLUSTER_AUTHORIZATION)


def _routes(reader: _Reader, name: str, entry: Entry) -> Fields:
    if not isinstance(entry.value, list):
        raise _wrong_type(name, entry, "an array of URLs")
    routes = []
    for item in entry.value:
        if not isinstance(item.value, str):
            reader.complain(item, f"a route should be a URL, not {kind_of(item.value)}")
            continue
        try:
            routes.append(parse_route(item.value))
        except ValueError as error:
            reader.complain(item, str(error))
    return {"routes": tuple(routes)}


def _advertise(_reader: _Reader, name: str, entry: Entry) -> Fields:
    if not isinstance(entry.value, str):
        raise _wrong_type(name, entry, "a host:port")
    try:
        return {"advertise": advertised(entry.value)}
    except ValueError as error:
        raise _Mistake(str(error)) from None


_USER: Final[Mapping[str, ReadValue]] = {
    "user": _text("user"),
    "username": _text("user"),
    "pass": _secret("password"),
    "password": _secret("password"),
}
_AUTHORIZATION: Final[Mapping[str, ReadValue]] = {
    **_USER,
    "token": _secret("token"),
    "timeout": _seconds("timeout_ns"),
    "users": _users,
}
_JETSTREAM_LIMITS: Final[Mapping[str, ReadValue]] = {
    "max_ack_pending": _integer("max_ack_pending", -1, _INT32_MAX),
    "max_request_batch": _integer("max_request_batch", -1, _INT32_MAX),
    "duplicate_window": _duration("duplicate_window_ns"),
}
_MAX_MEMORY: Final = _integer("max_memory_bytes", -1, _INT64_MAX, sizes_as_text=True)
_MAX_STORAGE: Final = _integer("max_storage_bytes", -1, _INT64_MAX, sizes_as_text=True)
_JETSTREAM: Final[Mapping[str, ReadValue]] = {
    "enabled": _boolean("enabled"),
    "enable": _boolean("enabled"),
    "store_dir": _text("store_dir"),
    "storedir": _text("store_dir"),
    "store": _text("store_dir"),
    "max_mem": _MAX_MEMORY,
    "max_memory_store": _MAX_MEMORY,
    "max_mem_store": _MAX_MEMORY,
    "max_file": _MAX_STORAGE,
    "max_file_store": _MAX_STORAGE,
    "sync": _sync_interval,
    "sync_interval": _sync_interval,
    "strict": _strict,
    "limits": _jetstream_limits,
}
_CLUSTER_AUTHORIZATION: Final[Mapping[str, ReadValue]] = {**_USER, "timeout": _seconds("timeout_ns")}
_CLUSTER: Final[Mapping[str, ReadValue]] = {
    "name": _name("cluster_name", "cluster"),
    "listen": _address("host", "port"),
    "host": _text("host"),
    "net": _text("host"),
    "port": _port_option("port"),
    "routes": _routes,
    "authorization": _cluster_authorization,
    "advertise": _advertise,
    "cluster_advertise": _advertise,
}
_TOP_LEVEL: Final[Mapping[str, ReadValue]] = {
    "listen": _address("host", "port"),
    "host": _text("host"),
    "net": _text("host"),
    "port": _port_option("port"),
    "server_name": _name("server_name", "server"),
    "http": _address("http_host", "http_port"),
    "http_port": _port_option("http_port"),
    "monitor_port": _port_option("http_port"),
    "http_base_path": _text("http_base_path"),
    "debug": _boolean("debug"),
    "trace": _boolean("trace"),
    "logtime": _boolean("logtime"),
    "logtime_utc": _boolean("logtime_utc"),
    "log_file": _text("log_file"),
    "logfile": _text("log_file"),
    "pid_file": _text("pid_file"),
    "pidfile": _text("pid_file"),
    "ports_file_dir": _text("ports_file_dir"),
    "max_control_line": _integer("max_control_line_bytes", 1, _INT32_MAX),
    "max_payload": _integer("max_payload_bytes", 1, _INT32_MAX),
    "max_pending": _integer("max_pending_bytes", 1, _INT64_MAX),
    "max_connections": _integer("max_connections", 1, _INT32_MAX),
    "max_conn": _integer("max_connections", 1, _INT32_MAX),
    "ping_interval": _duration("ping_interval_ns"),
    "ping_max": _integer("ping_max", 0, _INT32_MAX),
    "write_deadline": _duration("write_deadline_ns"),
    "authorization": _authorization,
    "jetstream": _jetstream,
    "cluster": _cluster,
    "store_dir": _text("store_dir"),
    "storedir": _text("store_dir"),
}
