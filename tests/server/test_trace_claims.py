"""What claims say about traces of messages."""

from __future__ import annotations

import pytest
from claims_maker import FREE, Json, account_key, operator_key, token

from server.config.claims import account_claims
from server.config.jwt import BadToken

OPERATOR, A = operator_key(), account_key("a")


def claims(body: Json) -> str:
    return token("account", OPERATOR, A, {"limits": FREE, **body})


def test_where_traces_go_and_who_may_follow() -> None:
    exports = [{"subject": "q", "type": "service", "allow_trace": True}, {"subject": "p", "type": "service"}]
    imports = [{"subject": "s", "account": A.public, "type": "stream", "allow_trace": True}]
    body = {"trace": {"dest": "t", "sampling": 20}, "exports": exports, "imports": imports}
    options = account_claims(claims(body), A.public).options
    assert (options.trace_dest, options.trace_sampling) == ("t", 20)
    assert [each.allows_trace for each in options.exports] == [True, False]
    assert [each.allows_trace for each in options.imports] == [True]
    assert account_claims(claims({"trace": {"sampling": 20}}), A.public).options.trace_dest == ""


@pytest.mark.parametrize(
    ("trace", "complaint"),
    [({"dest": "t.*"}, '"t.\\*" is no subject'), ({"dest": "t", "sampling": 101}, "is not a percentage")],
)
def test_bad_destinations_are_refused(trace: Json, complaint: str) -> None:
    with pytest.raises(BadToken, match=complaint):
        account_claims(claims({"trace": trace}), A.public)
