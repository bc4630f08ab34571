"""Keys of the top level that belong to no block."""

from __future__ import annotations

from typing import Final

from server.config.values import (
    INT32_MAX,
    INT64_MAX,
    Table,
    address,
    boolean,
    duration,
    integer,
    name_without_spaces,
    port,
    text,
)

TOP_LEVEL: Final[Table] = {
    "listen": address("host", "port"),
    "host": text("host"),
    "net": text("host"),
    "port": port("port"),
    "server_name": name_without_spaces("server_name", "server"),
    "http": address("http_host", "http_port"),
    "http_port": port("http_port"),
    "monitor_port": port("http_port"),
    "http_base_path": text("http_base_path"),
    "debug": boolean("debug"),
    "trace": boolean("trace"),
    "logtime": boolean("logtime"),
    "logtime_utc": boolean("logtime_utc"),
    "log_file": text("log_file"),
    "logfile": text("log_file"),
    "pid_file": text("pid_file"),
    "pidfile": text("pid_file"),
    "ports_file_dir": text("ports_file_dir"),
    "max_control_line": integer("max_control_line_bytes", 1, INT32_MAX),
    "max_payload": integer("max_payload_bytes", 1, INT32_MAX),
    "max_pending": integer("max_pending_bytes", 1, INT64_MAX),
    "max_connections": integer("max_connections", 1, INT32_MAX),
    "max_conn": integer("max_connections", 1, INT32_MAX),
    "ping_interval": duration("ping_interval_ns"),
    "ping_max": integer("ping_max", 0, INT32_MAX),
    "write_deadline": duration("write_deadline_ns"),
    "store_dir": text("store_dir"),
    "storedir": text("store_dir"),
}
