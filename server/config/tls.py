"""The ``tls`` block: how clients are encrypted, and what they must prove."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from jetstore.model.times import parse_duration
from server.config.tree import Entry
from server.config.values import (
    SECOND,
    Fields,
    Mistake,
    Reader,
    ReadValue,
    Table,
    as_list,
    as_map,
    as_text,
    boolean,
    seconds,
    text,
)

AUTO_WAIT_NS: Final = SECOND // 20
"""How long ``handshake_first: auto`` waits for a client that begins with its handshake."""


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """TLS of one listener."""

    cert_file: str
    key_file: str
    ca_file: str = ""
    """Who signs clients' certificates; "" = the system's authorities."""
    verify: bool = False
    """Clients need a certificate."""
    verify_and_map: bool = False
    """It names the user."""
    timeout_ns: int = 2 * SECOND
    """For the handshake."""
    min_version: str = "1.2"
    handshake_first: bool = False
    """Nothing is said before the handshake."""
    first_wait_ns: int = 0
    """> 0: so long it is waited for a handshake, then INFO goes out in clear."""
    pinned_certs: frozenset[str] = frozenset()
    """SHA-256 (hex) of the public keys that are let in; empty = all."""


def _file(option: str) -> ReadValue:
    def read(_reader: Reader, name: str, entry: Entry) -> Fields:
        return {option: as_text(name, entry)}

    return read


def _handshake_first(_reader: Reader, name: str, entry: Entry) -> Fields:
    value = entry.value
    if isinstance(value, bool):
        return {"handshake_first": value, "first_wait_ns": 0}
    given = as_text(name, entry)
    if given.lower() == "auto":
        return {"handshake_first": True, "first_wait_ns": AUTO_WAIT_NS}
    try:
        return {"handshake_first": True, "first_wait_ns": parse_duration(given)}
    except ValueError:
        raise Mistake(f'field "{name}"\'s value "{given}" is invalid') from None


def _min_version(_reader: Reader, name: str, entry: Entry) -> Fields:
    value = as_text(name, entry) if isinstance(entry.value, str) else str(entry.value)
    if value not in ("1.2", "1.3"):
        raise Mistake(f"unsupported TLS version: {value}")
    return {"min_version": value}


def _pinned_certs(_reader: Reader, name: str, entry: Entry) -> Fields:
    found = set()
    for item in as_list(name, entry):
        value = as_text(name, item).lower()
        if len(value) != 64 or not all(character in "0123456789abcdef" for character in value):
            raise Mistake(f"error parsing 'pinned_certs' key {value} does not match hex-encoded sha256")
        found.add(value)
    return {"pinned_certs": frozenset(found)}


_TLS: Final[Table] = {
    "cert_file": _file("cert_file"),
    "key_file": _file("key_file"),
    "ca_file": text("ca_file"),
    "verify": boolean("verify"),
    "verify_and_map": boolean("verify_and_map"),
    "timeout": seconds("timeout_ns", "tls"),
    "min_version": _min_version,
    **dict.fromkeys(("handshake_first", "first", "immediate"), _handshake_first),
    "pinned_certs": _pinned_certs,
}
REFUSED: Final = frozenset(
    (
        *("verify_cert_and_check_known_urls", "cipher_suites", "curve_preferences", "allow_insecure_cipher_suites"),
        *("insecure", "connection_rate_limit", "certs", "certificates", "ocsp_peer", "cert_store", "cert_match_by"),
        *("cert_match", "ca_certs_match", "cert_match_skip_invalid"),
    )
)


def tls(option: str) -> ReadValue:
    """A TLS block, as ``TlsOptions``. Its files must be there."""

    def read(reader: Reader, name: str, entry: Entry) -> Fields:
        if entry.value is False:
            return {}
        fields = reader.block(as_map(name, entry), _TLS, REFUSED)
        for needed in ("cert_file", "key_file"):
            if not fields.get(needed):
                raise Mistake(f"missing '{needed}' in TLS configuration")
        if fields.get("verify_and_map"):
            fields["verify"] = True
        made = TlsOptions(**fields)
        if problem := file_problem(made):
            raise Mistake(problem)
        return {option: made}

    return read


def file_problem(options: TlsOptions) -> str:
    """Which of the files cannot be read; "" if all can."""
    for file, what in (
        (options.cert_file, "error parsing X509 certificate/key pair"),
        (options.key_file, "error parsing X509 certificate/key pair"),
        (options.ca_file, "error parsing root CA certificate"),
    ):
        problem = _unreadable(file) if file else ""
        if problem:
            return f"{what}: open {file}: {problem}"
    return ""


def _unreadable(file: str) -> str:
    try:
        with Path(file).open("rb"):
            return ""
    except OSError as error:
        return "no such file or directory" if error.errno == errno.ENOENT else str(error.strerror).lower()


TOP_LEVEL: Final[Table] = {"tls": tls("tls"), "allow_non_tls": boolean("allow_non_tls")}
