"""Files as people have them for nats-server load unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.config.options import Options, start_problem
from server.config.reader import load_options

SINGLE = """
# a developer's machine
port: 4222
monitor_port: 8222
server_name: dev
log_file: "nats.log"
debug: false
trace: false
jetstream {
    store_dir: "./data"
}
"""
SECURED = """
listen: 0.0.0.0:4222
http_port: 8222

tls {
    cert_file: "server.pem"
    key_file: "server.key"
    ca_file: "ca.pem"
    verify: true
    timeout: 2
}

authorization {
    timeout: 3
    ADMIN = { publish = ">", subscribe = ">" }
    READER = { publish = "_INBOX.>", subscribe = ["events.>", "_INBOX.>"] }
    users = [
        { user: admin, password: $ADMIN_PASSWORD, permissions: $ADMIN }
        { user: reader, password: "$2a$11$1i9gKTHwYfCY0MCqZCjqFeJ2p3wVnGhT9tBBRMd0ZMlSl0l1y5Hhy", permissions: $READER }
    ]
}

max_payload: 4MB
max_connections: 1000
ping_interval: "30s"
write_deadline: "5s"
lame_duck_duration: "1m"
"""
ACCOUNTS = """
jetstream: enabled
accounts: {
    APP: {
        jetstream: enabled
        users: [ { user: app, password: app } ]
        exports: [ { service: "app.time" } ]
    }
    OTHER: {
        users: [ { user: other, password: other } ]
        imports: [ { service: { account: APP, subject: "app.time" }, to: "time" } ]
    }
    $SYS: { users: [ { user: sys, password: sys } ] }
}
system_account: "$SYS"
"""
CLUSTERED = """
server_name: n1-cluster
listen: 4222
jetstream { store_dir: /nats/storage, max_mem: 1G, max_file: 10GB }
cluster {
  name: C1
  listen: 0.0.0.0:6222
  authorization { user: route, password: secret, timeout: 0.5 }
  routes: [
    nats://route:secret@127.0.0.1:6222
    nats://route:secret@127.0.0.1:6223
    nats-route://route:secret@127.0.0.1:6224
  ]
}
"""
JSON = """
{
  "port": 4222,
  "http_port": 8222,
  "authorization": { "token": "s3cret" },
  "jetstream": { "store_dir": "/data", "max_memory_store": 1073741824, "max_file_store": 10737418240 },
  "websocket": { "port": 8080, "no_tls": true }
}
"""


def load(directory: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Options:
    monkeypatch.chdir(directory)
    for name in ("server.pem", "server.key", "ca.pem"):
        Path(name).write_text("")
    Path("nats.conf").write_text(text)
    options = load_options(Path("nats.conf"), {"ADMIN_PASSWORD": '"1e5"'}, is_test=True)
    assert start_problem(options) == ""
    assert options.warnings == ()
    return options


def test_a_single_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = load(tmp_path, monkeypatch, SINGLE)
    assert (options.port, options.http_port, options.server_name) == (4222, 8222, "dev")
    assert (options.log_file, options.jetstream.enabled, options.jetstream.store_dir) == ("nats.log", True, "./data")


def test_a_secured_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = load(tmp_path, monkeypatch, SECURED)
    assert options.tls is not None
    assert (options.tls.verify, options.authorization.timeout_ns) == (True, 3_000_000_000)
    admin, reader = options.authorization.users
    assert (admin.user, admin.password, reader.password[:4]) == ("admin", "1e5", "$2a$")
    assert reader.permissions is not None
    assert reader.permissions.subscribe.allow == ("events.>", "_INBOX.>")
    assert (options.max_payload_bytes, options.lame_duck_duration_ns) == (4 << 20, 60_000_000_000)


def test_accounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = load(tmp_path, monkeypatch, ACCOUNTS)
    assert [account.name for account in options.accounts.accounts] == ["APP", "OTHER", "$SYS"]
    assert options.jetstream_account[0] == "APP"
    assert options.system_name == "$SYS"


def test_a_node_of_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = load(tmp_path, monkeypatch, CLUSTERED)
    assert (options.cluster_name, options.cluster.port, options.cluster.user) == ("C1", 6222, "route")
    assert [route.port for route in options.cluster.routes] == [6222, 6223, 6224]
    assert options.jetstream.max_storage_bytes == 10 << 30


def test_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = load(tmp_path, monkeypatch, JSON)
    assert (options.authorization.token, options.websocket.port) == ("s3cret", 8080)
    assert options.jetstream.max_memory_bytes == 1 << 30
