"""Permissions: allow and deny, queues; and credentials."""

from __future__ import annotations

import base64
import binascii

import bcrypt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from server.auth.authenticator import ANONYMOUS, Authenticator, AuthRefused, PasswordUser, SlowCheck, User
from server.auth.permissions import Permissions, ResponseRule, Responses
from server.config import nkey
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
    assert isinstance(user, User)
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
    assert (soft.is_shown, soft.is_told) == (False, True)
    assert soft.authenticate(connect()) is JOE
    assert soft.authenticate(connect(user="joe", password="wrong")) is None
    with pytest.raises(AuthRefused, match="not present"):
        Authenticator(users=entries, no_auth_user="zz")


def test_no_auth_user_must_exist_beside_others() -> None:
    with pytest.raises(AuthRefused):
        Authenticator(no_auth_user="zz")


def test_bcrypt_is_compared_elsewhere() -> None:
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    locked = Authenticator(users=[PasswordUser(JOE, hashed)])
    right = locked.authenticate(connect(user="joe", password="secret"))
    assert isinstance(right, SlowCheck)
    assert right.run() is JOE
    wrong = locked.authenticate(connect(user="joe", password=hashed))
    assert isinstance(wrong, SlowCheck)
    assert wrong.run() is None
    assert SlowCheck(JOE, "$2a$04$nonsense", "x").run() is None
    assert SlowCheck(JOE, hashed, "nul\0" * 40).run() is None
    token = Authenticator(token=hashed).authenticate(connect(auth_token="secret"))
    assert isinstance(token, SlowCheck)
    assert token.run() is not None


def public_text(key: Ed25519PrivateKey, kind: int = nkey.USER) -> str:
    raw = bytes([kind]) + key.public_key().public_bytes_raw()
    return base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).decode().rstrip("=")


def test_users_with_keys() -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = public_text(key)
    assert len(public) == 56
    assert public[0] == "U"
    locked = Authenticator(nkeys=[User(public, account="A")])
    assert locked.is_required
    assert locked.needs_nonce
    signature = key.sign(b"nonce")
    for text in (base64.urlsafe_b64encode(signature).decode().rstrip("="), base64.b64encode(signature).decode()):
        user = locked.authenticate(connect(nkey=public, sig=text), "nonce")
        assert isinstance(user, User)
        assert user.account == "A"
        assert locked.authenticate(connect(nkey=public, sig=text), "other") is None
        assert locked.authenticate(connect(nkey=public, sig=text), "") is None
    other = public_text(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    for wrong in (connect(nkey=public), connect(nkey=public, sig="é"), connect(nkey=other, sig=text), connect()):
        assert locked.authenticate(wrong, "nonce") is None
    assert nkey.public_key(public_text(key, nkey.ACCOUNT), nkey.USER) is None
    assert nkey.public_key(public[:-1] + ("A" if public[-1] != "A" else "B"), nkey.USER) is None
    assert nkey.public_key("ü" * 56, nkey.USER) is None


def test_connection_types() -> None:
    locked = Authenticator(users=[PasswordUser(User("web", connection_types=("WEBSOCKET",)), "x")])
    assert locked.authenticate(connect(user="web", password="x")) is None
    assert locked.authenticate(connect(user="web", password="x"), connection_type="WEBSOCKET") is not None


def test_answers_are_counted_and_expire() -> None:
    now = 100.0
    answers = Responses(ResponseRule(max_messages=2, expires_s=10.0), lambda: now)
    answers.delivered([b"r.1", b"", b"r.2"])
    assert answers.may_answer(b"r.1")
    assert answers.may_answer(b"r.1")
    assert not answers.may_answer(b"r.1")
    assert not answers.may_answer(b"")
    assert not answers.may_answer(b"r.3")
    now = 110.5
    assert not answers.may_answer(b"r.2")
    for i in range(5000):
        answers.delivered([b"x.%d" % i])
    assert len(answers._seen) == 4096
    assert not answers.may_answer(b"x.0")
    assert answers.may_answer(b"x.4999")


def test_answers_without_publish_rules_are_all_one_may_publish() -> None:
    assert not Permissions(responses=ResponseRule()).may_publish(b"a")
    assert Permissions(publish_allow=["a"], responses=ResponseRule()).may_publish(b"a")


def test_wildcards_in_published_subjects_are_only_characters() -> None:
    permissions = Permissions(publish_allow=["foo.*", "all.>"], publish_deny=["foo.bar"])
    assert permissions.may_publish(b"foo.>")
    assert permissions.may_publish(b"foo.*")
    assert not permissions.may_publish(b"foo.*.x")
    assert not permissions.may_publish(b"all..x")
    assert Permissions(publish_deny=[">"]).may_publish(b"a..b"), "as nats-server; such a message reaches nobody"


def test_a_subscription_wider_than_a_star_is_refused() -> None:
    """nats-server takes the last token of foo.> for a literal, which foo.* matches."""
    assert not Permissions(subscribe_allow=["foo.*"]).may_subscribe(b"foo.>", b"")


def test_a_deny_entry_with_a_queue_filters_only_that_queue() -> None:
    permissions = Permissions(subscribe_deny=["foo v1"])
    assert permissions.may_receive(b"foo", b"")
    assert permissions.may_receive(b"foo", b"v2")
    assert not permissions.may_receive(b"foo", b"v1")


def test_an_entry_with_a_queue_restricts_the_queues_of_one_without() -> None:
    permissions = Permissions(subscribe_allow=["baz", "baz q1"])
    assert permissions.may_subscribe(b"baz", b"")
    assert permissions.may_subscribe(b"baz", b"q1")
    assert not permissions.may_subscribe(b"baz", b"q2")
