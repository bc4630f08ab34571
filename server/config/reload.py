"""What a reload would change, and whether it may: all or nothing.

An option that is in none of the tables cannot change while the server runs. Whoever makes one live adds it to ``LIVE``
(or to ``_AUTHORIZATION``) and carries it out in ``server/operation.py``.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Final

from jetstore.model.times import format_duration
from server.config.errors import ConfigError
from server.config.options import Options


class ReloadRefused(ConfigError):
    """A change that needs a restart."""


LIVE: Final = {
    "debug": "Reloaded: debug = {}",
    "trace": "Reloaded: trace = {}",
    "trace_verbose": "Reloaded: trace_verbose = {}",
    "trace_headers": "Reloaded: trace_headers = {}",
    "logtime": "Reloaded: logtime = {}",
    "logtime_utc": "Reloaded: logtime_utc = {}",
    "log_file": "Reloaded: log_file = {}",
    "client_advertise": "Reload: client_advertise = {}",
    "max_connections": "Reloaded: max_connections = {}",
    "pid_file": "Reloaded: pid_file = {}",
    "ports_file_dir": "Reloaded: ports_file_dir = {}",
    "ping_interval_ns": "Reloaded: ping_interval = {}",
    "ping_max": "Reloaded: ping_max = {}",
    "write_deadline_ns": "Reloaded: write_deadline = {}",
    "max_control_line_bytes": "Reloaded: max_control_line = {}",
    "max_payload_bytes": "Reloaded: max_payload = {}",
    "traced_bytes_max": "Reloaded: max_traced_msg_len = {}",
    "no_fast_producer_stall": "Reloaded: fast producers will {}be stalled",
    "cluster_name": "Cluster name updated to {}",
    "server_tags": "Reloaded: tags",
    "server_metadata": "Reloaded: metadata",
    "syslog": "Reloaded: syslog = {}",
    "remote_syslog": "Reloaded: remote_syslog = {}",
}
"""Option → what is logged when it changed."""
_AUTHORIZATION: Final = frozenset({"authorization", "accounts", "mappings"})
"""Who may connect, and what accounts are: compared and applied as one (``server/account_reload.py``)."""
_BEFORE_AUTHORIZATION: Final = frozenset(list(LIVE)[:9])
"""nats-server says these first."""
_TLS: Final = "tls"
"""Read again at every reload, with its files."""
_SAYS_NOTHING: Final = frozenset({"config_file", "config_digest", "warnings"})
GO_NAMES: Final = {
    "host": "Host",
    "port": "Port",
    "server_name": "ServerName",
    "http_host": "HTTPHost",
    "http_port": "HTTPPort",
    "https_port": "HTTPSPort",
    "http_base_path": "HTTPBasePath",
    "max_pending_bytes": "MaxPending",
    "max_subscriptions": "MaxSubs",
    "max_sub_tokens": "MaxSubTokens",
    "max_closed_clients": "MaxClosedClients",
    "no_header_support": "NoHeaderSupport",
    "log_file_bytes_max": "LogSizeLimit",
    "log_files_max": "LogMaxFiles",
    "lame_duck_duration_ns": "LameDuckDuration",
    "lame_duck_grace_ns": "LameDuckGracePeriod",
    "allow_non_tls": "AllowNonTLS",
    "no_auth_user": "NoAuthUser",
    "system_account": "SystemAccount",
}
"""How nats-server's messages name what cannot change."""


def shown(option: str, value: object) -> str:
    """A value as messages show it."""
    if isinstance(value, bool):
        return str(value).lower()
    return format_duration(value) if option.endswith("_ns") and isinstance(value, int) else str(value)


def reload_lines(old: Options, new: Options) -> list[str]:
    """What to log when the new options are in force. Raises ``ReloadRefused`` if one of them cannot be."""
    first: list[str] = []
    last: list[str] = []
    for option in (each.name for each in fields(Options)):
        before, after = getattr(old, option), getattr(new, option)
        if option == _TLS:
            if before is not None or after is not None:
                last.append(f"Reloaded: tls = {'disabled' if after is None else 'enabled'}")
            continue
        if before == after or option in _SAYS_NOTHING or option in _AUTHORIZATION:
            continue
        if option not in LIVE or (option == "cluster_name" and old.cluster.port):
            if option == "system_account":
                before, after = old.system_name, new.system_name
            raise _refusal(option, before, after)
        value = shown(option, after)
        if option == "no_fast_producer_stall":
            value = "not " if after else ""
        (first if option in _BEFORE_AUTHORIZATION else last).append(LIVE[option].format(value))
    return [*first, "Reloaded: authorization users", "Reloaded: accounts", *_authorization(old, new), *last]


def has_other_users(old: Options, new: Options) -> bool:
    """Whether somebody else may connect, or accounts are not what they were."""
    return any(getattr(old, option) != getattr(new, option) for option in (*_AUTHORIZATION, _TLS))


def _authorization(old: Options, new: Options) -> list[str]:
    before, after = old.authorization, new.authorization
    lines = [
        f"Reloaded: authorization {what}"
        for what, option in (("username", "user"), ("password", "password"), ("token", "token"))
        if getattr(before, option) != getattr(after, option)
    ]
    if before.timeout_ns != after.timeout_ns:
        lines.append(f"Reloaded: authorization timeout = {after.timeout_ns / 1e9:g}")
    return lines


def _refusal(option: str, before: object, after: object) -> ReloadRefused:
    """The refusal of one option; of a block's first that differs. Secrets are not shown."""
    parts = fields(before) if hasattr(before, "__dataclass_fields__") else ()  # type: ignore[arg-type]
    for each in parts:
        part = each.name
        if getattr(before, part) != getattr(after, part, None):
            values = (
                ""
                if not each.repr or "password" in part or "routes" in part
                else _values(part, getattr(before, part), getattr(after, part, None))
            )
            return ReloadRefused(f"config reload not supported for {option} {part}{values}")
    return ReloadRefused(
        f"config reload not supported for {GO_NAMES.get(option, option)}{_values(option, before, after)}"
    )


def _values(option: str, before: object, after: object) -> str:
    if not all(isinstance(value, str | int | float | bool) for value in (before, after)):
        return ""
    return f": old={shown(option, before)}, new={shown(option, after)}"
