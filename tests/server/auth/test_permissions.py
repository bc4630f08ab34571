"""Permissions: allow and deny, queues; and credentials."""

from __future__ import annotations

import pytest

from server.auth.authenticator import ANONYMOUS, Authenticator, AuthRefused, PasswordUser, User
from server.auth.permissions import Permissions
from server.protocol.connect import ConnectOptions


def test_deny_wins_and_an_allow_list_denies_the_rest() -> None:
    permissions = Permissions(publish_allow=["a.>"], publish_deny=["a.b"])
    assert permissions.may_publish(b"a.c")
    assert not permissions.may_publish(b"a.b")
    assert not permissions.may_publish(b"x")
    assert Permissions(publish_deny=["a"]).may_publish(b"b")
    assert not Permissions(publish_allow=[]).may_publish(b"b")


def test_subscriptions_must_lie_within() -> None:
    permissions = Permissions(subscribe_allow=["foo.>"], subscribe_deny=["foo.secret.*"])
    assert permissions.may_subscribe(b"foo.*", b"")
    assert permissions.may_subscribe(b"foo.>", b""), "wider than a deny entry is accepted and filtered"
    assert not permissions.may_subscribe(b"foo.secret.x", b"")
    assert not permissions.may_subscribe(b">", b"")
    assert permissions.filters_deliveries
    assert not permissions.may_receive(b"foo.secret.x")
    assert permissions.may_receive(b"foo.x")


def test_queue_permissions() -> None:
    permissions = Permissions(subscribe_allow=["foo grp", "bar", "baz v*", "qux *.prod"], subscribe_deny=["bar v1"])
    assert permissions.may_subscribe(b"foo", b"grp")
    assert not permissions.may_subscribe(b"foo", b"")
    assert not permissions.may_subscribe(b"foo", b"other")
    assert permissions.may_subscribe(b"bar", b"")
    assert permissions.may_subscribe(b"bar", b"any")
    assert not permissions.may_subscribe(b"bar", b"v1")
    assert not permissions.may_subscribe(b"baz", b"v1"), "v* is a literal queue name"
    assert permissions.may_subscribe(b"qux", b"eu.prod")


def test_subjects_need_not_be_utf_8() -> None:
    permissions = Permissions(publish_allow=["ü.*"])
    assert permissions.may_publish("ü".encode() + b".\xff")
    assert not permissions.may_publish(b"\xff.a")


def test_remembered_decisions_are_bounded() -> None:
    permissions = Permissions(publish_allow=["a.>"])
    for i in range(10_000):
        assert permissions.may_publish(b"a.%d" % i)
    assert len(permissions._may_publish) <= 4096


JOE = User("joe")


def connect(**fields: str) -> ConnectOptions:
    return ConnectOptions(**fields)  # type: ignore[arg-type]


def test_without_anything_configured_everybody_is_let_in() -> None:
    nobody = Authenticator()
    assert not nobody.is_required
    assert nobody.authenticate(connect(user="x", password="y")) is ANONYMOUS


def test_token() -> None:
    locked = Authenticator(token="geheim")
    assert locked.is_required
    assert locked.fallback is None
    user = locked.authenticate(connect(auth_token="geheim"))
    assert user is not None
    assert user.shown_name == "[REDACTED]"
    for wrong in (connect(), connect(auth_token="x"), connect(user="geheim"), connect(auth_token="geheimer")):
        assert locked.authenticate(wrong) is None


def test_users() -> None:
    locked = Authenticator(users=[PasswordUser(JOE, "ü"), PasswordUser(User("ann"), "")])
    assert locked.authenticate(connect(user="joe", password="ü")) is JOE
    assert locked.authenticate(connect(user="ann")) is not None
    for wrong in (connect(), connect(user="joe"), connect(user="joe", password="u"), connect(user="eve", password="ü")):
        assert locked.authenticate(wrong) is None


def test_no_auth_user() -> None:
    entries = [PasswordUser(JOE, "x")]
    soft = Authenticator(users=entries, no_auth_user="joe")
    assert not soft.is_required
    assert soft.fallback is JOE
    assert soft.authenticate(connect()) is JOE
    assert soft.authenticate(connect(user="joe", password="wrong")) is None
    with pytest.raises(AuthRefused, match="not present"):
        Authenticator(users=entries, no_auth_user="zz")


def test_bcrypt_is_refused_clearly() -> None:
    with pytest.raises(AuthRefused, match="bcrypt"):
        Authenticator(token="$2a$11$abcdefghijklmnopqrstuv")
