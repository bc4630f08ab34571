"""Permissions: subsets of patterns, allow and deny, queues; and credentials."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.auth.authenticator import ANONYMOUS, Authenticator, AuthRefused, PasswordUser, User
from server.auth.permissions import Permissions, is_subset
from server.protocol.connect import ConnectOptions
from server.route.sublist import pattern_matches

token = st.sampled_from([b"a", b"b", b"*"])
patterns = st.builds(
    lambda tokens, rest: b".".join([*tokens, b">"] if rest or not tokens else tokens),
    st.lists(token, max_size=3),
    st.booleans(),
)
subjects = [b".".join(s) for n in range(1, 6) for s in product([b"a", b"b", b"c"], repeat=n)]


@given(patterns, patterns)
def test_subset_is_what_it_says(one: bytes, two: bytes) -> None:
    """Over all subjects of up to five tokens, more than any of these patterns can tell apart."""
    in_one, in_two = pattern_matches(one), pattern_matches(two)
    both = [subject for subject in subjects if in_one(subject) and in_two(subject)]
    assert is_subset(one, two) == (len(both) == sum(map(in_one, subjects)))


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
