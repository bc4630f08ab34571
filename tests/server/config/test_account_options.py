"""Accounts in the configuration file: what is read, and what nats-server says about mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from jetstore.model.infos import AccountLimits
from server.config.accounts import Export, Import, MappingOptions
from server.config.errors import ConfigProblems
from server.config.options import Options, start_problem
from server.config.reader import load_options


def load(directory: Path, text: str) -> Options:
    path = directory / "x.conf"
    path.write_text(text)
    return load_options(path, {})


def test_accounts(tmp_path: Path) -> None:
    given = load(
        tmp_path,
        """
        system_account: S
        mappings { a: b }
        accounts {
          S: { users: [{user: root, password: x}] }
          A: {
            users: [{user: a, password: x}]
            default_permissions: { publish: p }
            jetstream: { max_mem: 1K, max_file: "1GB", streams: 3, max_stream_bytes: true }
            exports: [ { stream: "s.>" }, { service: q, accounts: [B], response: stream, threshold: "5s" } ]
            limits: { max_conn: 5, max_subs: 6, max_pay: 7 }
            mappings: { "x.*": [ { destination: "y.$1", weight: "60%" }, { dest: z, weight: 20 } ] }
          }
          B: { jetstream: disabled, imports: [ { stream: {account: A, subject: "s.1"}, prefix: "p" },
                          { service: {account: A, subject: q}, to: w } ] }
        }""",
    )
    assert start_problem(given) == ""
    a, b = given.accounts.by_name["A"], given.accounts.by_name["B"]
    assert given.mappings == (MappingOptions("a", (("b", 100),)),)
    assert [(user.user, user.account) for user in given.accounts.users] == [("root", "S"), ("a", "A")]
    assert a.users[0].permissions is not None
    assert a.jetstream == AccountLimits(max_memory=1000, max_storage=1 << 30, max_streams=3, max_bytes_required=True)
    assert a.exports == (Export("s.>", False), Export("q", True, ("B",), False, 5_000_000_000))
    assert (a.max_connections, a.max_subscriptions, a.max_payload_bytes) == (5, 6, 7)
    assert a.mappings == (MappingOptions("x.*", (("y.$1", 60), ("z", 20))),)
    assert b.imports == (Import("A", "s.1", False, "p.s.1"), Import("A", "q", True, "w"))
    assert b.jetstream is None
    assert given.jetstream_account == ("A", a.jetstream)
    assert [each.name for each in load(tmp_path, "accounts [A, B]").accounts.accounts] == ["A", "B"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("accounts { A: {users: [{user: a}]}, B: {users: [{user: a}]} }", 'Duplicate user "a" detected'),
        ("accounts { $G: { users: [] } }", '"$G" is a Reserved Account'),
        ("accounts [A, A]", "Duplicate Account Entry: A"),
        ("accounts { A: {foo: 1} }", 'unknown field "foo"'),
        ("accounts { A: 5 }", "Expected map entries for accounts"),
        (
            "accounts { A: {imports: [{stream: {account: B, subject: x}}]} }",
            '"B" account not defined for stream import',
        ),
        (
            "accounts { A: {imports: [{service: {account: B, subject: x}}]}, B: {exports: [{service: y}]} }",
            'Error adding service import "x": service import not authorized',
        ),
        (
            "accounts { A: {imports: [{stream: {account: B, subject: x}}]},"
            " B: {exports: [{stream: x, accounts: [C]}]} }",
            'Error adding stream import "x": stream import not authorized',
        ),
        (
            "accounts { A: {imports: [{service: {account: B, subject: x}}], exports: [{service: z}]},"
            " B: {exports: [{service: x}], imports: [{service: {account: A, subject: z}, to: x}]} }",
            "import forms a cycle",
        ),
        ("accounts { A: {imports: [{service: {subject: x}}]} }", "Expect an account name and a subject"),
        ("accounts { A: {exports: [{service: x, response_type: foo}]} }", 'Unknown response type: "foo"'),
        (
            "accounts { A: {exports: [{stream: y, response_type: singleton}]} }",
            "Detected response directive on non-service",
        ),
        (
            "accounts { A: {exports: [{service: y, threshold: foo}]} }",
            'Expected response threshold to be a parseable time duration, got "foo"',
        ),
        (
            "accounts { A: {exports: [{service: y, latency: 'y'}]} }",
            'Error adding service latency sampling for "y" on subject "y": invalid publish subject',
        ),
        ("accounts { A: {msg_trace: 'a.*'} }", 'Trace destination "a.*" is not valid'),
        (
            "accounts { A: {msg_trace: {dest: a, sampling: 120}} }",
            "Trace destination sampling value 120 is invalid, needs to be [1..100]",
        ),
        (
            "accounts { A: {msg_trace: {dest: a, sampling: 'x%'}} }",
            'Invalid trace destination sampling value "x%"',
        ),
        (
            "accounts { A: {msg_trace: {dest: a, sampling: true}} }",
            '"sampling" should be an integer or a percentage, not a bool',
        ),
        ("accounts { A: {msg_trace: {sampling: 10}} }", "Trace destination sampling without a destination"),
        (
            "accounts { A: {exports: [{stream: x, allow_trace: true}]} }",
            "Detected allow_trace directive on non-service",
        ),
        (
            "accounts { A: {exports: [{service: x}]},"
            " B: {imports: [{service: {account: A, subject: x}, allow_trace: true}]} }",
            "Detected allow_trace directive on a non-stream",
        ),
        (
            'mappings: {"a.*": "b.$2"}',
            'Error adding mapping for "a.*" to "b.$2" : invalid mapping destination: wildcard index out of range in'
            " $2: [2]",
        ),
        ("mappings: {x: [{destination: y, weight: 120}]}", "Invalid weight 120 for mapping destination"),
        (
            "mappings: {x: [{destination: y, weight: 60}, {destination: z, weight: 60}]}",
            'Error adding mapping for "x" : total weight needs to be <= 100',
        ),
        ("mappings: {x: [{destination: y, cluster: z}]}", '"cluster" is not supported by this version of jetstore'),
        (
            "accounts { A: {limits: {max_leafnodes: 1}} }",
            '"max_leafnodes" is not supported by this version of jetstore',
        ),
    ],
)
def test_mistakes(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigProblems) as caught:
        load(tmp_path, text)
    (found,) = caught.value.problems
    assert problem in str(found)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("authorization {token: x}\naccounts {A {users [{user: a}]}}", "Can not have a token and accounts"),
        ("system_account: X", "error resolving system account: account missing"),
        ("accounts {$SYS {jetstream: true}}", "Not allowed to enable JetStream on the system account"),
        (
            "cluster {port: -1}\naccounts {A {jetstream: true}\nB {jetstream: {}}}",
            "JetStream in several accounts (A, B) of a cluster",
        ),
        ("authorization {users [{user: a}]}\naccounts {A {users [{user: a}]}}", 'Duplicate user "a" detected'),
        ("jetstream {domain: a.b}", "invalid domain name: may not contain ., * or >"),
        ('jetstream {domain: "a b"}', 'invalid domain name: derived "$JS.a b.API.>" is not a valid subject'),
        ("no_auth_user: zz\naccounts {A {users [{user: a}]}}", 'no_auth_user: "zz" not present'),
    ],
)
def test_what_does_not_make_sense_together(tmp_path: Path, text: str, problem: str) -> None:
    assert problem in start_problem(load(tmp_path, text))
