"""Activation tokens: what an account may import of another's private exports, signed by that one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from jetstore.model.subjects import is_subset, is_valid_subject
from server.config import nkey
from server.config.jwt import BadToken, decode, value

ANYBODY: Final = "*"
"""Key of a revocation that is about all accounts."""


@dataclass(frozen=True, slots=True)
class Activation:
    """Claims whose signature has been checked. Times in seconds, 0 = none."""

    issuer: str
    """The key that signed it."""
    exporter: str
    """For whom; "": for itself."""
    issued_s: int = 0
    expires_s: int = 0
    not_before_s: int = 0

    def is_valid_at(self, now_s: float) -> bool:
        """Whether it is in force."""
        return not (0 < self.expires_s <= now_s or now_s < self.not_before_s)


@dataclass(frozen=True, slots=True)
class Activators:
    """What a private export asks for: an activation token that one of these keys signed and nobody revoked."""

    exporter: str
    keys: tuple[str, ...] = ()
    """That may sign for the exporter."""
    revocations: tuple[tuple[str, int], ...] = ()
    """Importers, and until when tokens that were issued to them do not count (seconds)."""

    def allow(self, given: Activation | None, importer: str) -> bool:
        """Whether an account may import what its token is for. What time says of the token is another question."""
        if given is None or (given.exporter and given.issuer not in self.keys):
            return False
        revoked = [until_s for key, until_s in self.revocations if key in (importer, ANYBODY)]
        return given.issued_s > max(revoked, default=-1)


def activation(text: str, importer: str, exporter: str, subject: str, *, is_service: bool) -> Activation:
    """What the token of an import says. Raises ``BadToken`` where it is none, or is for something else."""
    about = f'activation token of the import of "{subject}"'
    try:
        token = decode(text, "activation")
    except BadToken as error:
        raise BadToken(f"{about}: {error}") from None
    of, allowed = value(token.body, "issuer_account", ""), value(token.body, "subject", "")
    kind = value(token.body, "kind" if token.version > 1 else "type", "")
    if exporter not in (token.issuer, of):
        raise BadToken(f"{about} is not of the account that exports it")
    if of and nkey.public_key(of, nkey.ACCOUNT) is None:
        raise BadToken(f"{about}: issuer_account is not the public key of an account")
    if token.subject != importer:
        raise BadToken(f"{about} is for another account")
    if kind != ("service" if is_service else "stream"):
        raise BadToken(f"{about} is for another kind of import")
    if not is_valid_subject(allowed) or not is_subset(subject, allowed):
        raise BadToken(f'{about} is for "{allowed}"')
    return Activation(token.issuer, of, token.issued_s, token.expires_s, token.not_before_s)


def revocations(given: Mapping[str, object]) -> tuple[tuple[str, int], ...]:
    """An export's. Raises ``BadToken``."""
    return tuple((key, value(given, key, 0)) for key in given)


def activators(exporter: str, signing_keys: Sequence[str], given: Mapping[str, object]) -> Activators:
    """Of one of an account's exports. Raises ``BadToken``."""
    return Activators(exporter, (exporter, *signing_keys), revocations(given))
