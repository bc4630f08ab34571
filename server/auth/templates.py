"""Permissions with ``{{…}}`` of a scoped signing key: what they are for one user.

An entry becomes one for each combination of what its templates stand for. What is no subject then is left out of what
is allowed; where it was to be denied, the user is not let in. Source: NATS documentation, signing keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import prod
from typing import Final

from jetstore.model.subjects import is_valid_subject
from server.config.claims import AccountClaims
from server.config.jwt import BadToken, Token, strings
from server.config.permissions import PermissionOptions, SubjectRules

SUBJECTS_MAX: Final = 4096
"""That one list may become; above: the user is not let in."""
_TEMPLATE: Final = re.compile(r"\{\{([^}]+)\}\}")
_TAG: Final = "tag("
_ACCOUNT_TAG: Final = "account-tag("
_NOTHING: Final = " "
"""Makes no subject."""


def filled(given: PermissionOptions | None, token: Token, account: AccountClaims) -> PermissionOptions | None:
    """The same permissions without templates. Raises ``BadToken``."""
    if given is None:
        return None
    name = account.options.name
    values: dict[str, Callable[[], str]] = {
        "name()": lambda: token.name,
        "subject()": lambda: token.subject,
        "account-name()": lambda: account.name_tag,
        "account-subject()": lambda: name,
    }
    tags = {_TAG: strings(token.body, "tags"), _ACCOUNT_TAG: account.tags}
    publish, subscribe = (_rules(each, values, tags) for each in (given.publish, given.subscribe))
    return replace(given, publish=publish, subscribe=subscribe)


_Values = Mapping[str, Callable[[], str]]
_Tags = Mapping[str, Sequence[str]]


def _rules(given: SubjectRules, values: _Values, tags: _Tags) -> SubjectRules:
    allow = _filled(given.allow, values, tags, must_be_valid=False)
    deny = _filled(given.deny, values, tags, must_be_valid=True)
    if given.allow and not allow:  # nothing is left that was allowed: nothing is
        deny = (*deny, ">")
    return SubjectRules(allow, deny)


def _filled(given: tuple[str, ...], values: _Values, tags: _Tags, *, must_be_valid: bool) -> tuple[str, ...]:
    if not any(_TEMPLATE.search(each) for each in given):
        return given
    found: list[str] = []
    for each in given:
        templates = [match.group() for match in _TEMPLATE.finditer(each)]
        choices = [_choices(template[2:-2].strip(), values, tags, must_be_valid) for template in templates]
        if len(found) + prod(map(len, choices)) > SUBJECTS_MAX:
            raise BadToken(f"more than {SUBJECTS_MAX} subjects")
        for chosen in product(*choices):
            subject = each
            for template, text in zip(templates, chosen, strict=True):
                subject = subject.replace(template, text)
            if is_valid_subject(subject):
                found.append(subject)
            elif must_be_valid:
                raise BadToken("generated invalid subject")
    return tuple(found)


def _choices(operation: str, values: _Values, tags: _Tags, must_be_valid: bool) -> Sequence[str]:
    known = values.get(operation.lower())
    if known is not None:
        return [known()]
    for kind, given in tags.items():
        if operation.lower().startswith(kind) and operation.endswith(")"):
            prefix = operation.removeprefix(kind).removesuffix(")").lower() + ":"
            found = [tag.removeprefix(prefix) for tag in given if tag.startswith(prefix)]
            if not found and must_be_valid:
                raise BadToken(f'"{operation}" is not defined')
            return found or [_NOTHING]
    raise BadToken(f'template operation "{operation}" is not defined')
