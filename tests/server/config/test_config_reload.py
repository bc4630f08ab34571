"""What a reload may change, what it says, and what it refuses."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from server.config.accounts import AccountOptions, AccountsOptions, MappingOptions
from server.config.options import AuthorizationOptions, ClusterOptions, JetStreamOptions, Options, User
from server.config.reload import GO_NAMES, LIVE, ReloadRefused, has_other_users, reload_lines
from server.config.tls import TlsOptions

ALWAYS = ["Reloaded: authorization users", "Reloaded: accounts"]
OLD = Options(config_file="x.conf", server_name="a")


@pytest.mark.parametrize(
    ("new", "before", "after"),
    [
        # All of these are nats-server's own lines.
        ({}, [], []),
        ({"debug": True}, ["Reloaded: debug = true"], []),
        (
            {"trace": True, "trace_verbose": True, "logtime_utc": True},
            ["Reloaded: trace = true", "Reloaded: trace_verbose = true", "Reloaded: logtime_utc = true"],
            [],
        ),
        ({"max_payload_bytes": 2097152}, [], ["Reloaded: max_payload = 2097152"]),
        ({"max_connections": 5}, ["Reloaded: max_connections = 5"], []),
        ({"ping_interval_ns": 5 * 10**9, "ping_max": 5}, [], ["ping_interval = 5s", "ping_max = 5"]),
        ({"write_deadline_ns": 10**9}, [], ["Reloaded: write_deadline = 1s"]),
        ({"client_advertise": "h:1"}, ["Reload: client_advertise = h:1"], []),
        ({"no_fast_producer_stall": True}, [], ["Reloaded: fast producers will not be stalled"]),
        ({"cluster_name": "x"}, [], ["Cluster name updated to x"]),
        ({"traced_bytes_max": 10}, [], ["Reloaded: max_traced_msg_len = 10"]),
        (
            {"authorization": AuthorizationOptions(user="u", password="p", timeout_ns=5 * 10**9)},
            [],
            ["authorization username", "authorization password", "authorization timeout = 5"],
        ),
        ({"authorization": AuthorizationOptions(token="s3cret")}, [], ["Reloaded: authorization token"]),
        ({"config_digest": "other"}, [], []),
    ],
)
def test_what_is_said(new: dict[str, object], before: list[str], after: list[str]) -> None:
    lines = reload_lines(OLD, replace(OLD, **new))  # type: ignore[arg-type]  # fields of the table above
    at = lines.index(ALWAYS[0])
    assert lines[at : at + 2] == ALWAYS
    assert lines[:at] == before
    assert len(lines[at + 2 :]) == len(after)
    assert all(said.endswith(wanted) for said, wanted in zip(lines[at + 2 :], after, strict=True))
    assert "s3cret" not in "".join(lines)


@pytest.mark.parametrize(
    ("new", "text"),
    [
        ({"port": 15009}, "config reload not supported for Port: old=4222, new=15009"),
        ({"server_name": "zz"}, "config reload not supported for ServerName: old=a, new=zz"),
        ({"max_pending_bytes": 10485760}, "config reload not supported for MaxPending: old=67108864, new=10485760"),
        ({"log_file_bytes_max": 1048576}, "config reload not supported for LogSizeLimit: old=0, new=1048576"),
        ({"lame_duck_duration_ns": 40 * 10**9}, "config reload not supported for LameDuckDuration: old=2m0s, new=40s"),
        ({"no_header_support": True}, "config reload not supported for NoHeaderSupport: old=false, new=true"),
        ({"http_base_path": "/x"}, "config reload not supported for HTTPBasePath: old=, new=/x"),
        (
            {"cluster": ClusterOptions(host="127.0.0.1")},
            "config reload not supported for cluster host: old=0.0.0.0, new=127.0.0.1",
        ),
        ({"cluster": ClusterOptions(password="s3cret")}, "config reload not supported for cluster password"),
        ({"jetstream": JetStreamOptions(key="s3cret")}, "config reload not supported for jetstream key"),
        (
            {"jetstream": JetStreamOptions(previous_key="s3cret")},
            "config reload not supported for jetstream previous_key",
        ),
        (
            {"jetstream": JetStreamOptions(enabled=True)},
            "config reload not supported for jetstream enabled: old=false, new=true",
        ),
        ({"no_auth_user": "u"}, "config reload not supported for NoAuthUser: old=, new=u"),
        ({"system_account": "A"}, "config reload not supported for SystemAccount: old=$SYS, new=A"),
        ({"debug": True, "port": 1}, "config reload not supported for Port: old=4222, new=1"),
    ],
)
def test_what_is_refused(new: dict[str, object], text: str) -> None:
    with pytest.raises(ReloadRefused) as caught:
        reload_lines(OLD, replace(OLD, **new))  # type: ignore[arg-type]
    assert str(caught.value) == text


def test_certificates_are_read_again() -> None:
    on = replace(OLD, tls=TlsOptions("c", "k"))
    assert reload_lines(on, on) == [*ALWAYS, "Reloaded: tls = enabled"]
    assert reload_lines(OLD, on) == [*ALWAYS, "Reloaded: tls = enabled"]
    assert reload_lines(on, OLD) == [*ALWAYS, "Reloaded: tls = disabled"]
    with pytest.raises(ReloadRefused, match="AllowNonTLS: old=false, new=true"):
        reload_lines(on, replace(on, allow_non_tls=True))


def test_accounts_change() -> None:
    def options(*accounts: AccountOptions) -> Options:
        return replace(OLD, accounts=AccountsOptions(accounts))

    old = options(AccountOptions("A", users=(User("a", "x"),)), AccountOptions("B"))
    for other in (
        options(AccountOptions("B", users=(User("b", "y"),)), AccountOptions("A")),
        options(AccountOptions("A")),
        options(AccountOptions("A", max_connections=5), AccountOptions("B")),
        replace(old, mappings=(MappingOptions("a", (("b", 100),)),)),
    ):
        assert reload_lines(old, other) == ALWAYS
        assert has_other_users(old, other)
    assert not has_other_users(old, replace(old, debug=True))


def test_the_name_of_a_cluster_that_is_one_stays() -> None:
    old = replace(OLD, cluster_name="a", cluster=ClusterOptions(port=1))
    with pytest.raises(ReloadRefused, match="cluster_name: old=a, new=b"):
        reload_lines(old, replace(old, cluster_name="b"))


def test_the_tables_name_options() -> None:
    names = {each.name for each in fields(Options)}
    assert set(LIVE) <= names
    assert set(GO_NAMES) <= names - set(LIVE)
