"""Users, keys and permissions in the configuration file: what is read, and what nats-server says about mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.config.errors import ConfigProblems
from server.config.options import Options
from server.config.permissions import PermissionOptions, SubjectRules
from server.config.reader import load_options

KEY = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"


def load(directory: Path, text: str) -> Options:
    path = directory / "x.conf"
    path.write_text(text)
    return load_options(path, {})


def test_permissions(tmp_path: Path) -> None:
    given = load(
        tmp_path,
        """
        ADMIN = { publish: ">", subscribe: ">" }
        no_auth_user: plain
        authorization {
          default_permissions: { sub: "d" }
          users: [
            { user: admin, password: $2a$11$abc, permissions: $ADMIN }
            { user: plain }
            { nkey: KEY, permission: { pub: { deny: a }, sub: ["b q", c], allow_responses: { max: -1, expires: "5s" } }
              allowed_connection_types: [standard, WebSocket] }
            { user: free, permissions: { publish: [], allow_responses: false } }
          ]
        }""".replace("KEY", KEY),
    )
    admin, plain, key, free = given.authorization.users
    assert (given.no_auth_user, admin.password) == ("plain", "$2a$11$abc")
    assert admin.permissions == PermissionOptions(SubjectRules((">",)), SubjectRules((">",)))
    assert plain.permissions == PermissionOptions(subscribe=SubjectRules(("d",)))
    assert key.key == KEY
    assert key.permissions == PermissionOptions(
        SubjectRules(deny=("a",)), SubjectRules(("b q", "c")), True, -1, 5_000_000_000
    )
    assert key.connection_types == ("STANDARD", "WEBSOCKET")
    assert free.permissions == PermissionOptions()


USER = "authorization { users: [ {user: a, password: x, %s} ] }"


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        # nats-server's texts; where it points into an entry of an array we point at its beginning.
        ("authorization { users: [ {password: x} ] }", ["1:26: User entry requires a user"]),
        (
            "authorization { users: [ {user: a, nkey: " + KEY + "} ] }",
            ["1:26: Nkey users do not take usernames or passwords"],
        ),
        ("authorization { users: [ {nkey: UDXU4RCSJ} ] }", ["1:26: Not a valid public nkey for a user"]),
        (
            USER % 'permissions: {foo: 1, publish: "a..b"}',
            ['1:62: Unknown field "foo" parsing permissions', '1:70: subject "a..b" is not a valid subject'],
        ),
        (
            USER % 'permissions: {publish: {allo: "a"}}',
            ["1:72: Unknown field name \"allo\" parsing subject permissions, only 'allow' or 'deny' are permitted"],
        ),
        (USER % 'permissions: {subscribe: ["a b c"]}', ['1:75: subject "a b c" is not a valid subject']),
        (
            USER % "permissions: {allow_responses: {min: 1}}",
            ['1:80: Unknown field "min" parsing permissions'],
        ),
        (
            USER % "permissions: {allow_responses: 5}",
            ["1:62: error parsing response permissions, expected a boolean or a map"],
        ),
        (USER % "permissions: 5", ["1:48: Expected permissions to be a map/struct, got 5"]),
        (USER % "allowed_connection_types: [STANDARD, foo]", ['1:48: invalid connection types ["FOO"]']),
        (USER % "foo: 1", ['1:48: unknown field "foo"']),
        (USER % "proxy_required: true", ['1:48: "proxy_required" is not supported by this version of jetstore']),
    ],
)
def test_mistakes(tmp_path: Path, text: str, problems: list[str]) -> None:
    with pytest.raises(ConfigProblems) as caught:
        load(tmp_path, text)
    assert [str(problem).partition(":")[2] for problem in caught.value.problems] == problems
