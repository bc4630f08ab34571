"""From a file to options: values, synonyms, and every kind of refusal with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.config import authorization, cluster, jetstream
from server.config.errors import ConfigError, ConfigProblems
from server.config.options import AuthorizationOptions, JetStreamOptions, Options, User, start_problem
from server.config.reader import REFUSED, load_options

SECOND = 1_000_000_000


def load(directory: Path, text: str, *, is_test: bool = False, environment: dict[str, str] | None = None) -> Options:
    path = directory / "x.conf"
    path.write_text(text)
    return load_options(path, environment or {}, is_test=is_test)


def problems(directory: Path, text: str, *, is_test: bool = False) -> list[str]:
    with pytest.raises(ConfigProblems) as caught:
        load(directory, text, is_test=is_test)
    return [str(problem).replace(f"{directory}/", "") for problem in caught.value.problems]


def test_everything_at_once(tmp_path: Path) -> None:
    options = load(
        tmp_path,
        """
        listen: 127.0.0.1:-1
        Server_Name: n1
        http: "localhost:8222"
        http_base_path: /m
        DEBUG: yes, trace: on; logtime: false
        logtime_utc: true
        log_file: "/tmp/l", pidfile: /tmp/p
        ports_file_dir: "/tmp"
        max_payload: 2MB
        max_pending: 100MB
        max_control_line: 8KB
        max_conn: 7
        ping_interval: "20s", ping_max: 3
        write_deadline: "2s"
        PASS: s3cret
        authorization { user: a, password: $PASS, timeout: 1.5 }
        cluster { name: c1 }
        jetstream {
            store_dir: /data, max_mem: 1G, max_file: "10GB", sync_interval: always, strict: off
            limits { max_ack_pending: 500, max_request_batch: 100, duplicate_window: "1m" }
        }
        """,
    )
    expected = Options(
        host="127.0.0.1",
        port=-1,
        server_name="n1",
        cluster_name="c1",
        http_host="localhost",
        http_port=8222,
        http_base_path="/m",
        debug=True,
        trace=True,
        logtime=False,
        logtime_utc=True,
        log_file="/tmp/l",
        pid_file="/tmp/p",
        ports_file_dir="/tmp",
        max_payload_bytes=2 * 1024**2,
        max_pending_bytes=100 * 1024**2,
        max_control_line_bytes=8192,
        max_connections=7,
        ping_interval_ns=20 * SECOND,
        ping_max=3,
        write_deadline_ns=2 * SECOND,
        authorization=AuthorizationOptions(user="a", password="s3cret", timeout_ns=1_500_000_000),
        jetstream=JetStreamOptions(
            enabled=True,
            store_dir="/data",
            max_memory_bytes=10**9,
            max_storage_bytes=10 * 1024**3,
            is_strict=False,
            sync_interval="always",
            max_ack_pending=500,
            max_request_batch=100,
            duplicate_window_ns=60 * SECOND,
        ),
        config_file=str(tmp_path / "x.conf"),
        config_digest=options.config_digest,
    )
    assert options == expected
    assert options.config_digest.startswith("sha256:")
    limits = options.limits()
    assert (limits.max_payload_bytes, limits.max_pending_bytes, limits.max_connections) == (2**21, 100 * 2**20, 7)


@pytest.mark.parametrize(
    ("text", "enabled"),
    [
        ("jetstream: enabled", True),
        ("jetstream: true", True),
        ("jetstream {}", True),
        ("jetstream: disabled", False),
        ("jetstream { enabled: false, store_dir: x }", False),
    ],
)
def test_jetstream_forms(tmp_path: Path, text: str, enabled: bool) -> None:
    assert load(tmp_path, text).jetstream.enabled is enabled


def test_users_array(tmp_path: Path) -> None:
    options = load(tmp_path, "authorization { users: [ {user: a, password: b}, {username: c} ] }")
    assert options.authorization.users == (User("a", "b"), User("c", ""))
    assert options.authorization.is_required


def test_store_dir_at_top_level(tmp_path: Path) -> None:
    assert load(tmp_path, "store_dir: /a\njetstream: true").jetstream == JetStreamOptions(True, "/a")
    (found,) = problems(tmp_path, "store_dir: /a\nJetStream {\n store: /b}")
    assert found == "x.conf:3:2: Duplicate 'store_dir' configuration"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Texts that are nats-server's own.
        ("foo: 1", 'x.conf:1:0: unknown field "foo"'),
        ("authorization { foo: 1}", 'x.conf:1:16: unknown field "foo"'),
        ("jetstream { foo: 1 }", 'x.conf:1:12: unknown field "foo"'),
        ("cluster { foo: 1 }", 'x.conf:1:10: unknown field "foo"'),
        ('TOKEN: "x"', 'x.conf:1:0: unknown field "TOKEN"'),
        ('server_name: "a b"', "x.conf:1:0: server name cannot contain spaces"),
        ('cluster { name: "a b"}', "x.conf:1:10: cluster name cannot contain spaces"),
        (
            'ping_interval: "2x"',
            'x.conf:1:0: error parsing ping_interval: time: unknown unit "x" in duration "2x"',
        ),
        ('listen: "a:b"', 'x.conf:1:0: could not parse port "b"'),
        ("listen: foo", 'x.conf:1:0: could not parse address string "foo"'),
        ("jetstream: foo", "x.conf:1:0: Expected 'enabled' or 'disabled' for string value, got 'foo'"),
        ("authorization { user: a, pass: b, token: c}", "x.conf:1:0: Cannot have a user/pass and token"),
        (
            "authorization {user: a, pass: b, users: [{user: x, pass: y}]}",
            "x.conf:1:0: Can not have a single user/pass and a users array",
        ),
        ("max_control_line: 5GB", "x.conf:1:0: max_control_line value is too big"),
        (
            'authorization { timeout: "x"}',
            "x.conf:1:16: error parsing authorization config, 'timeout' time: invalid duration \"x\"",
        ),
        (
            'jetstream { sync_interval: "x" }',
            'x.conf:1:12: error parsing sync_interval: time: invalid duration "x"',
        ),
        # Our own wording.
        ("port: abc", 'x.conf:1:0: port should be an integer, not a string "abc"'),
        ("port: true", "x.conf:1:0: port should be an integer, not a boolean"),
        ("port: 70000", "x.conf:1:0: port 70000 is out of range"),
        ("debug: 1", "x.conf:1:0: debug should be true or false, not an integer"),
        ("host: 5", "x.conf:1:0: host should be a string, not an integer"),
        ("max_payload: 1.5", "x.conf:1:0: max_payload should be an integer, not a number"),
        ("max_payload: 0", "x.conf:1:0: max_payload should be at least 1"),
        ("listen: [1]", "x.conf:1:0: listen should be a host:port or a port, not an array"),
        ("cluster: 5", "x.conf:1:0: Expected map to define cluster, got int64"),
        ("jetstream: 5", "x.conf:1:0: Expected map, bool or string to define JetStream, got int64"),
        ("authorization { users: 5 }", "x.conf:1:16: Expected users field to be an array, got an integer"),
        ("authorization { users: [{pass: x}] }", "x.conf:1:25: User entry requires a user"),
        ("authorization { users: [{user: x}, {user: x}] }", 'x.conf:1:16: Duplicate user "x" detected'),
        ('write_deadline: "-1s"', "x.conf:1:0: write_deadline should not be negative: -1s"),
    ],
)
def test_refusals(tmp_path: Path, text: str, expected: str) -> None:
    assert problems(tmp_path, text) == [expected]


def test_all_mistakes_are_reported_in_order(tmp_path: Path) -> None:
    found = problems(tmp_path, "\nfoo: 1\n  port: x\njetstream {\n  unique_tag: hub\n}\n")
    assert found == [
        'x.conf:2:1: unknown field "foo"',
        'x.conf:3:3: port should be an integer, not a string "x"',
        'x.conf:5:3: "unique_tag" is not supported by this version of jetstore',
    ]


@pytest.mark.parametrize("key", sorted(REFUSED))
def test_known_but_unsupported_keys_are_refused_by_name(tmp_path: Path, key: str) -> None:
    assert problems(tmp_path, f"{key}: x") == [f'x.conf:1:0: "{key}" is not supported by this version of jetstore']
    load(tmp_path, f"port: 1\n{key}: false")


@pytest.mark.parametrize(
    ("block", "keys"),
    [
        ("jetstream", jetstream.REFUSED),
        ("cluster", cluster.REFUSED),
        ("authorization", authorization.REFUSED),
    ],
)
def test_the_same_inside_blocks(tmp_path: Path, block: str, keys: frozenset[str]) -> None:
    for key in sorted(keys):
        (found,) = problems(tmp_path, f"{block} {{\n {key}: x }}")
        assert found == f'x.conf:2:2: "{key}" is not supported by this version of jetstore'


def test_a_number_for_a_duration_is_seconds_with_a_warning(tmp_path: Path) -> None:
    options = load(tmp_path, "ping_interval: 2m")
    assert options.ping_interval_ns == 2_000_000 * SECOND
    text = 'x.conf:1:0: invalid use of field "ping_interval": ping_interval should be converted to a duration'
    assert [warning.replace(f"{tmp_path}/", "") for warning in options.warnings] == [text]
    assert problems(tmp_path, "ping_interval: 2m", is_test=True) == [text]


def test_empty_file_warns_and_fails_the_test(tmp_path: Path) -> None:
    options = load(tmp_path, "# nothing")
    assert options.port == 4222
    assert options.warnings[0].endswith("x.conf: config has no values or is empty")
    with pytest.raises(ConfigError, match="config has no values or is empty"):
        load(tmp_path, "", is_test=True)
    with pytest.raises(ConfigError, match=r"nope\.conf: no such file or directory"):
        load_options(tmp_path / "nope.conf", {})


def test_problem_in_an_include_names_that_file(tmp_path: Path) -> None:
    (tmp_path / "inc.conf").write_text("\nfoo: 1")
    assert problems(tmp_path, "port: 1\ninclude inc.conf") == ['inc.conf:2:1: unknown field "foo"']


def test_digest_depends_on_content_only(tmp_path: Path) -> None:
    one = load(tmp_path, "port: 4222\ndebug: on")
    two = load(tmp_path, "# comment\n{debug: true, port: 4222}")
    other = load(tmp_path, "port: 4223\ndebug: on")
    assert one.config_digest == two.config_digest != other.config_digest


def test_start_problems() -> None:
    assert start_problem(Options()) == ""
    assert start_problem(Options(max_payload_bytes=11, max_pending_bytes=10)) == (
        "max_payload (11) cannot be higher than max_pending (10)"
    )
    assert "no_auth_user" in start_problem(Options(no_auth_user="zz"))
    assert start_problem(Options(server_name="a b")) == "server name cannot contain spaces"
