"""The ``cluster`` block and its flags: what they set, and what is refused with its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from server.cli.flags import apply_flags, parse_flags
from server.config.errors import ConfigError, ConfigProblems
from server.config.options import ClusterOptions, JetStreamOptions, Options, start_problem
from server.config.reader import load_options
from server.config.routes import RouteOptions

REQUIRES_ROUTES = "JetStream cluster requires configured routes or solicited leafnode for the system account"


def load(directory: Path, text: str) -> Options:
    path = directory / "x.conf"
    path.write_text(text)
    return load_options(path, {})


def flags(line: str, base: Options | None = None) -> Options:
    return apply_flags(base or Options(), parse_flags(line.split()))


def test_the_block(tmp_path: Path) -> None:
    options = load(
        tmp_path,
        """
        cluster {
            name: c1, listen: "127.0.0.1:6222"
            routes: ["nats-route://u:p%40s@h2:6222", "nats://[::1]:6223/"]
            authorization { user: u, password: "p@s", timeout: 3 }
            cluster_advertise: "me.example:6222"
        }
        """,
    )
    assert options.cluster_name == "c1"
    assert options.cluster == ClusterOptions(
        host="127.0.0.1",
        port=6222,
        routes=(RouteOptions("h2", 6222, "u", "p@s"), RouteOptions("::1", 6223)),
        advertise="me.example:6222",
        user="u",
        password="p@s",
        timeout_ns=3_000_000_000,
    )
    assert options.limits().link_hello_timeout_s == 3.0


def test_host_and_port_apart(tmp_path: Path) -> None:
    assert load(tmp_path, "cluster { host: h, port: -1 }").cluster == ClusterOptions(host="h", port=-1)
    assert load(tmp_path, "cluster { listen: 6222 }").cluster == ClusterOptions(port=6222)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Texts that are nats-server's own.
        ("authorization { token: x }", "1:10: Cluster authorization does not support tokens"),
        ("authorization { users: [] }", "1:10: Cluster authorization does not allow multiple users"),
        ('listen: "x:abc"', '1:10: could not parse port "abc"'),
        ('routes: ["127.0.0.1:7333"]', '1:20: error parsing route url ["127.0.0.1:7333"]'),
        # nats-server retries this one for ever.
        ('routes: ["nats-route://h"]', "1:20: address h: missing port in address"),
        # Our own wording.
        ("authorization { permissions: {} }", '1:26: "permissions" is not supported by this version of jetstore'),
        ('routes: "nats://h:1"', '1:10: routes should be an array of URLs, not a string "nats://h:1"'),
        ("routes: [7333]", "1:19: a route should be a URL, not an integer"),
        ('routes: ["nats://h:70000"]', "1:20: port 70000 is out of range"),
        ('routes: ["nats://:5"]', '1:20: error parsing route url ["nats://:5"]: it needs a host and a port'),
        ('routes: ["tls://h:5"]', "1:20: TLS between nodes is not supported by this version of jetstore: tls://h:5"),
        (
            'routes: ["http://h:5"]',
            '1:20: error parsing route url ["http://h:5"]: the scheme is none of nats-route, nats',
        ),
        ('routes: ["nats://u@h:5"]', "1:20: expected cluster password to be set"),
        ("advertise: h", "1:10: address h: missing port in address"),
        ('advertise: ":5"', "1:10: an advertised address should be host:port, not :5"),
    ],
)
def test_refusals_in_the_block(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigProblems) as caught:
        load(tmp_path, f"cluster {{ {text} }}")
    (problem,) = caught.value.problems
    assert str(problem) == f"{tmp_path}/x.conf:{expected}"


def test_flags() -> None:
    made = flags("--cluster nats://u:p@h:6222 --routes nats://a:1,nats-route://x:y@b:2 --cluster_advertise e:9")
    assert made.cluster == ClusterOptions(
        host="h",
        port=6222,
        routes=(RouteOptions("a", 1), RouteOptions("b", 2, "x", "y")),
        advertise="e:9",
        user="u",
        password="p",
    )
    assert flags("--cluster 127.0.0.1:-1").cluster == ClusterOptions(host="127.0.0.1", port=-1)
    assert flags("--cluster_listen nats://127.0.0.1:5").cluster == ClusterOptions(host="127.0.0.1", port=5)


def test_flags_win_over_the_block() -> None:
    base = Options(cluster=ClusterOptions("h", 1, (RouteOptions("a", 1),), "e:1", "u", "p", 5))
    assert flags("", base) == base
    assert flags("--routes nats://b:2", base).cluster == replace(base.cluster, routes=(RouteOptions("b", 2),))
    assert flags("--cluster nats://i:2", base).cluster == replace(base.cluster, host="i", port=2)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("--cluster h", "address h: missing port in address"),
        ("--cluster nats://u@h:1", "expected cluster password to be set"),
        ("--cluster http://h:1", 'error parsing cluster address ["http://h:1"]'),
        ("--cluster h:0", 'error parsing cluster address ["h:0"]: it needs a port'),
        ("--routes x", 'error parsing route url ["x"]'),
        ("--cluster_advertise x", "address x: missing port in address"),
    ],
)
def test_refused_flags(line: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        flags(line)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("-js --cluster_name X", ""),
        ("-js --cluster_name X --cluster h:1", "jetstream cluster requires `server_name` to be set"),
        ("-js -n A --cluster h:1", "jetstream cluster requires `cluster.name` to be set"),
        ("-js -n A --cluster_name X --cluster h:1", REQUIRES_ROUTES),
        ("-js -n A --cluster_name X --cluster h:1 --routes nats://h:1", REQUIRES_ROUTES),
        ("-js -n A --cluster_name X --cluster h:1 --cluster_advertise e:9 --routes nats://e:9", REQUIRES_ROUTES),
        ("-js -n A --cluster_name X --cluster h:1 --routes nats://h:1,nats://h:2", ""),
        ("--routes nats://h:1", "solicited routes require cluster capabilities, e.g. --cluster"),
        (
            "-n A --cluster_name X --cluster h:1 --routes nats://h:2",
            "a cluster without JetStream is not supported by this version of jetstore: add -js",
        ),
    ],
)
def test_what_a_cluster_needs(line: str, problem: str) -> None:
    assert start_problem(flags(line)) == problem


def test_own_address_and_repeated_ones_are_no_other_nodes() -> None:
    options = flags("--cluster h:1 --routes nats://h:1,nats://h:2,nats://h:2,nats://h:3")
    assert [route.port for route in options.cluster.others] == [2, 3]
    assert JetStreamOptions().server_limits(0, 0, len(options.cluster.others) + 1).replicas_max == 3
