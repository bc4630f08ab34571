"""The INFO line: what the server says about itself, to everybody and to one client."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

PROTOCOL_VERSION = 1


@dataclass(slots=True)
class ServerInfo:
    """What INFO says about the server. Filled by the composition root; fields may change while it runs."""

    server_id: str
    """56 upper-case base32 characters that start with N."""
    server_name: str
    version: str
    """The nats-server version whose surface this server has: clients switch features on it."""
    jetstore: str
    """This product's own version."""
    go: str
    """Runtime, free text; the field's name is history."""
    host: str
    port: int
    max_payload: int
    jetstream: bool = False
    headers: bool = True
    auth_required: bool = False
    tls_required: bool = False
    tls_verify: bool = False
    tls_available: bool = False
    api_lvl: int = 5
    git_commit: str = ""
    cluster: str = ""
    domain: str = ""
    connect_urls: list[str] = field(default_factory=list)
    """``host:port`` of every server of the cluster, own entry first; empty = not advertised."""
    lame_duck: bool = False


def info_line(
    info: ServerInfo,
    client_id: int,
    client_ip: str,
    *,
    nonce: str = "",
    remote_account: str = "",
    is_system_account: bool = False,
    max_payload: int = 0,
) -> bytes:
    """``INFO {json} CR LF`` for one client, with the blank before CR LF that nats-server writes.

    With ``remote_account`` it is the second INFO, the one that follows the first PONG.
    ``max_payload`` 0: the server's.
    """
    fields: dict[str, Any] = {
        "server_id": info.server_id,
        "server_name": info.server_name,
        "version": info.version,
        "proto": PROTOCOL_VERSION,
    }
    if info.git_commit:
        fields["git_commit"] = info.git_commit
    fields |= {"go": info.go, "host": info.host, "port": info.port, "headers": info.headers}
    if info.auth_required:
        fields["auth_required"] = True
    for name in ("tls_required", "tls_verify", "tls_available"):
        if getattr(info, name):
            fields[name] = True
    fields["max_payload"] = max_payload or info.max_payload
    if info.jetstream:
        fields["jetstream"] = True
    fields |= {"client_id": client_id, "client_ip": client_ip}
    if nonce:
        fields["nonce"] = nonce
    if info.cluster:
        fields["cluster"] = info.cluster
    if info.domain:
        fields["domain"] = info.domain
    if info.connect_urls:
        fields["connect_urls"] = list(info.connect_urls)
    if info.lame_duck:
        fields["ldm"] = True
    if remote_account:
        fields["connect_info"] = True
        fields["remote_account"] = remote_account
        if is_system_account:
            fields["acc_is_sys"] = True
    fields["api_lvl"] = info.api_lvl
    fields["jetstore"] = info.jetstore
    return b"INFO %b \r\n" % json.dumps(fields, separators=(",", ":")).encode()
