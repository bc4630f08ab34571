"""The ``accounts`` block, ``mappings`` and the system account: who is apart from whom, and what they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from jetstore.model.infos import AccountLimits
from jetstore.model.subjects import is_subset, is_valid_literal, is_valid_subject
from jetstore.model.times import parse_duration
from jetstore.model.transforms import SubjectTransform, TransformError
from server.config.authorization import GLOBAL_ACCOUNT, User, duplicate_user, read_users, with_default
from server.config.latency import LatencyOptions, latency
from server.config.permissions import permissions
from server.config.tree import Entry, kind_of
from server.config.values import (
    INT32_MAX,
    INT64_MAX,
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
    integer,
    refusal,
    text,
)

if TYPE_CHECKING:
    from server.config.activations import Activation, Activators

SYSTEM_ACCOUNT: Final = "$SYS"
RESPONSE_WAIT_NS: Final = 120 * SECOND
PERCENT_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class MappingOptions:
    """Where the messages of one subject go instead: destinations with their percent."""

    source: str
    destinations: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Export:
    """A stream or service that other accounts may import."""

    subject: str
    is_service: bool
    accounts: tuple[str, ...] | None = None
    """Who may; None: everybody."""
    is_single: bool = True
    """One answer a request."""
    threshold_ns: int = 0
    """How long answers may take, and be apart; 0: two minutes."""
    allows_trace: bool = False
    """Of a service: traces of requests from other accounts say what became of them here."""
    latency: LatencyOptions | None = None
    """Of a service: requests from other accounts are measured; None: they are not."""
    account_position: int = 0
    """Which token (from 1) of an import's subject must be the importing account; 0: none."""
    activators: Activators | None = None
    """Whose activation tokens importers need; None: they need none."""


@dataclass(frozen=True, slots=True)
class Import:
    """A stream or service of another account."""

    account: str
    subject: str
    is_service: bool
    local: str = ""
    """Subject here; "": the same."""
    is_shared: bool = False
    """The service learns all about who asks (``Nats-Request-Info``), not just the account."""
    allows_trace: bool = False
    """Of a stream: traces of the exporter's messages say who gets them here."""
    activation: Activation | None = None
    """What the exporter signed for this import, if it did."""


@dataclass(frozen=True, slots=True)
class AccountOptions:
    """One account."""

    name: str
    users: tuple[User, ...] = ()
    jetstream: AccountLimits | None = None
    """None: without JetStream."""
    exports: tuple[Export, ...] = ()
    imports: tuple[Import, ...] = ()
    mappings: tuple[MappingOptions, ...] = ()
    max_connections: int = -1
    max_subscriptions: int = -1
    """Of each connection."""
    max_payload_bytes: int = -1
    trace_dest: str = ""
    """Where traces go of messages with a sampled ``traceparent``; "": nowhere."""
    trace_sampling: int = 0
    """Percent of them that are traced; 0 = all."""
    is_complete: bool = True
    """No import was left out."""


@dataclass(frozen=True, slots=True)
class AccountsOptions:
    """All accounts that the file defines."""

    accounts: tuple[AccountOptions, ...] = ()
    by_name: Mapping[str, AccountOptions] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {account.name: account for account in self.accounts})

    @property
    def users(self) -> tuple[User, ...]:
        """The users of all of them."""
        return tuple(user for account in self.accounts for user in account.users)

    @property
    def has_own(self) -> bool:
        """Whether there is any besides the system account."""
        return any(account.name != SYSTEM_ACCOUNT for account in self.accounts)


# -- JetStream and limits -----------------------------------------------------------------------------------------

_JETSTREAM: Final[Table] = {
    **dict.fromkeys(
        ("max_mem", "max_memory", "mem", "memory"), integer("max_memory", -1, INT64_MAX, sizes_as_text=True)
    ),
    **dict.fromkeys(
        ("max_file", "max_store", "max_disk", "store", "disk"),
        integer("max_storage", -1, INT64_MAX, sizes_as_text=True),
    ),
    **dict.fromkeys(("max_streams", "streams"), integer("max_streams", -1, INT32_MAX)),
    **dict.fromkeys(("max_consumers", "consumers"), integer("max_consumers", -1, INT32_MAX)),
    **dict.fromkeys(("max_bytes_required", "max_stream_bytes", "max_bytes"), boolean("max_bytes_required")),
    **dict.fromkeys(
        ("mem_max_stream_bytes", "memory_max_stream_bytes"),
        integer("memory_max_stream_bytes", -1, INT64_MAX, sizes_as_text=True),
    ),
    **dict.fromkeys(
        ("disk_max_stream_bytes", "store_max_stream_bytes"),
        integer("storage_max_stream_bytes", -1, INT64_MAX, sizes_as_text=True),
    ),
    "max_ack_pending": integer("max_ack_pending", -1, INT32_MAX),
}


def _jetstream(reader: Reader, name: str, entry: Entry) -> Fields:
    value = entry.value
    if isinstance(value, bool):
        return {"jetstream": AccountLimits() if value else None}
    if isinstance(value, str) and value.lower() in ("enabled", "enable"):
        return {"jetstream": AccountLimits()}
    if isinstance(value, str) and value.lower() in ("disabled", "disable"):
        return {"jetstream": None}
    if isinstance(value, str):
        raise Mistake(f"Expected 'enabled' or 'disabled' for string value, got '{value}'")
    refused = frozenset({"cluster_traffic"})
    return {"jetstream": AccountLimits(**reader.block(as_map(name, entry), _JETSTREAM, refused))}


_LIMITS: Final[Table] = {
    **dict.fromkeys(("max_connections", "max_conn"), integer("max_connections", -1, INT32_MAX)),
    **dict.fromkeys(("max_subscriptions", "max_subs"), integer("max_subscriptions", -1, INT32_MAX)),
    **dict.fromkeys(("max_payload", "max_pay"), integer("max_payload_bytes", -1, INT32_MAX)),
}
_LIMITS_REFUSED: Final = frozenset({"max_leafnodes", "max_leafs"})


def _limits(reader: Reader, name: str, entry: Entry) -> Fields:
    return reader.block(as_map(name, entry), _LIMITS, _LIMITS_REFUSED)


# -- mappings -----------------------------------------------------------------------------------------------------


def _weight(entry: Entry) -> int:
    value = entry.value
    if isinstance(value, str) and value.strip().removesuffix("%").isdigit():
        value = int(value.strip().removesuffix("%"))
    if isinstance(value, bool) or not isinstance(value, int):
        raise Mistake(f"Unknown entry type for weight of {kind_of(entry.value)}")
    if not 0 <= value <= 100:
        raise Mistake(f"Invalid weight {value} for mapping destination")
    return value


def _destination(entry: Entry) -> tuple[str, int]:
    block = {key.lower(): each for key, each in as_map("mapping destination", entry).items()}
    if "cluster" in block:
        raise Mistake(refusal("cluster"))
    subject = block.pop("destination", None) or block.pop("dest", None) or block.pop("subject", None)
    if subject is None:
        raise Mistake("Mapping destination is not set")
    weight = _weight(block.pop("weight")) if "weight" in block else 100
    if block:
        raise Mistake(f'unknown field "{next(iter(block))}" parsing mapping destination')
    return as_text("destination", subject), weight


def _mapping(source: str, entry: Entry) -> MappingOptions:
    if not is_valid_subject(source):
        raise Mistake(f"Subject {source!r} is not a valid subject")
    if isinstance(entry.value, str):
        found = [(entry.value, 100)]
    elif isinstance(entry.value, list):
        found = [_destination(item) for item in entry.value]
    else:
        found = [_destination(entry)]
    return checked_mapping(source, found)


def checked_mapping(source: str, found: Sequence[tuple[str, int]]) -> MappingOptions:
    """Raises ``Mistake`` where a destination does not fit the source, or they share more than there is."""
    if sum(weight for _, weight in found) > 100:
        raise Mistake(f'Error adding mapping for "{source}" : total weight needs to be <= 100')
    for destination, _ in found:
        try:
            SubjectTransform(source, destination)
        except TransformError as error:
            raise Mistake(f'Error adding mapping for "{source}" to "{destination}" : {error}') from None
    return MappingOptions(source, tuple(found))


def _mappings(reader: Reader, name: str, entry: Entry) -> Fields:
    found = []
    for source, item in as_map(name, entry).items():
        try:
            found.append(_mapping(source, item))
        except Mistake as mistake:
            reader.complain(item, str(mistake))
    return {"mappings": tuple(found)}


# -- exports and imports ------------------------------------------------------------------------------------------


def _response_type(_reader: Reader, _name: str, entry: Entry) -> Fields:
    value = as_text("response type", entry).lower()
    if value not in ("single", "singleton", "stream", "chunk", "chunked"):
        raise Mistake(f'Unknown response type: "{entry.value}"')
    return {"is_single": value in ("single", "singleton")}


def _threshold(_reader: Reader, name: str, entry: Entry) -> Fields:
    try:
        return {"threshold_ns": parse_duration(as_text(name, entry))}
    except ValueError:
        raise Mistake(f'Expected response threshold to be a parseable time duration, got "{entry.value}"') from None


def _account_names(reader: Reader, name: str, entry: Entry) -> Fields:
    return {"accounts": tuple(as_text(name, item) for item in as_list(name, entry))}


_EXPORT: Final[Table] = {
    "stream": text("stream"),
    "service": text("service"),
    "accounts": _account_names,
    **dict.fromkeys(("response", "response_type"), _response_type),
    **dict.fromkeys(("threshold", "response_threshold", "response_max_time", "response_time"), _threshold),
    "allow_trace": boolean("allows_trace"),
    "latency": latency,
    "account_token_position": integer("account_position", 0, INT32_MAX),
}


def _export(reader: Reader, entry: Entry) -> Export:
    block = as_map("export", entry)
    fields = reader.block(block, _EXPORT)
    if "stream" in fields and "service" in fields:
        raise Mistake(f'Detected stream "{fields["stream"]}" but already saw a service')
    is_service = "service" in fields
    if not is_service and "stream" not in fields:
        raise Mistake("Expected a stream or a service in an export")
    if not is_service and "is_single" in fields:
        raise Mistake("Detected response directive on non-service")
    if not is_service and "threshold_ns" in fields:
        raise Mistake("Detected response threshold on non-service")
    if not is_service and "allows_trace" in fields:
        raise Mistake("Detected allow_trace directive on non-service")
    if not is_service and "latency" in fields:
        raise Mistake("Detected latency directive on non-service")
    subject = fields.pop("service", "") or fields.pop("stream")
    if not is_valid_subject(subject):
        raise Mistake(f'Error adding export "{subject}": invalid subject')
    return Export(subject, is_service, **fields)


def _source(option: str) -> ReadValue:
    def read(reader: Reader, name: str, entry: Entry) -> Fields:
        table = {"account": text("account"), "subject": text("subject")}
        fields = reader.block(as_map(name, entry), table)
        if not fields.get("account") or not fields.get("subject"):
            raise Mistake("Expect an account name and a subject")
        if not is_valid_subject(fields["subject"]):
            raise Mistake(f'subject "{fields["subject"]}" is not a valid subject')
        return {option: (fields["account"], fields["subject"])}

    return read


_IMPORT: Final[Table] = {
    "stream": _source("stream"),
    "service": _source("service"),
    "prefix": text("prefix"),
    "to": text("to"),
    "share": boolean("share"),
    "allow_trace": boolean("allow_trace"),
}


def _import(reader: Reader, entry: Entry) -> Import | None:
    found = len(reader.problems)
    fields = reader.block(as_map("import", entry), _IMPORT)
    if len(reader.problems) > found:
        return None
    if ("stream" in fields) == ("service" in fields):
        raise Mistake("Expected a stream or a service in an import, and not both")
    is_service = "service" in fields
    account, subject = fields["service" if is_service else "stream"]
    local = fields.get("to", "")
    if "prefix" in fields:
        if is_service:
            raise Mistake("prefix is for streams; a service has to")
        local = f"{fields['prefix'].rstrip('.')}.{subject}"
    if "share" in fields and not is_service:
        raise Mistake("share is for services")
    if "allow_trace" in fields and is_service:
        raise Mistake("Detected allow_trace directive on a non-stream")
    return Import(account, subject, is_service, local, fields.get("share", False), fields.get("allow_trace", False))


def _each(option: str, read_one: object) -> ReadValue:
    assert callable(read_one)

    def read(reader: Reader, name: str, entry: Entry) -> Fields:
        found = []
        for item in as_list(name, entry):
            try:
                one = read_one(reader, item)
            except Mistake as mistake:
                reader.complain(item, str(mistake))
            else:
                if one is not None:
                    found.append(one)
        return {option: tuple(found)}

    return read


# -- message tracing ----------------------------------------------------------------------------------------------


def _trace_dest(reader: Reader, name: str, entry: Entry) -> Fields:
    found = as_text(name, entry)
    if not is_valid_literal(found):
        raise Mistake(f'Trace destination "{found}" is not valid')
    return {"trace_dest": found}


def _trace_sampling(reader: Reader, name: str, entry: Entry) -> Fields:
    if kind_of(entry.value) not in ("an integer", "a string"):
        raise Mistake(f'"{name}" should be an integer or a percentage, not {kind_of(entry.value)}')
    try:
        percent = int(str(entry.value).removesuffix("%"))
    except ValueError:
        raise Mistake(f'Invalid trace destination sampling value "{entry.value}"') from None
    if not 0 < percent <= PERCENT_MAX:
        raise Mistake(f"Trace destination sampling value {percent} is invalid, needs to be [1..100]")
    return {"trace_sampling": percent}


def _msg_trace(reader: Reader, name: str, entry: Entry) -> Fields:
    if not isinstance(entry.value, dict):
        return _trace_dest(reader, name, entry)
    fields = reader.block(entry.value, {"dest": _trace_dest, "sampling": _trace_sampling})
    if "trace_dest" not in fields and "trace_sampling" in fields:
        raise Mistake("Trace destination sampling without a destination")
    return fields


# -- accounts -----------------------------------------------------------------------------------------------------

_ACCOUNT: Final[Table] = {
    "users": lambda reader, _name, entry: {"users": read_users(reader, entry)},
    "jetstream": _jetstream,
    "exports": _each("exports", _export),
    "imports": _each("imports", _import),
    **dict.fromkeys(("mappings", "maps"), _mappings),
    **dict.fromkeys(("default_permissions", "default_permission", "permissions"), permissions("permissions")),
    "limits": _limits,
    **dict.fromkeys(("msg_trace", "trace_dest"), _msg_trace),
}
_ACCOUNT_REFUSED: Final = frozenset(("nkey",))


def _account(reader: Reader, name: str, entry: Entry) -> AccountOptions:
    if name == GLOBAL_ACCOUNT:
        raise Mistake(f'"{name}" is a Reserved Account')
    if any(character.isspace() for character in name):
        raise Mistake("account name cannot contain spaces")
    if not isinstance(entry.value, dict):
        raise Mistake("Expected map entries for accounts")
    fields = reader.block(entry.value, _ACCOUNT, _ACCOUNT_REFUSED)
    users = with_default(fields.pop("users", ()), fields.pop("permissions", None))
    return AccountOptions(name, users=_in_account(users, name), **fields)


def _in_account(users: Sequence[User], account: str) -> tuple[User, ...]:
    """The users as those of this account."""
    return tuple(replace(user, account=account) for user in users)


def _accounts(reader: Reader, name: str, entry: Entry) -> Fields:
    found: list[AccountOptions] = []
    if isinstance(entry.value, list):
        for item in entry.value:
            account = as_text(name, item)
            if any(each.name == account for each in found):
                raise Mistake(f"Duplicate Account Entry: {account}")
            found.append(AccountOptions(account))
        return {"accounts": AccountsOptions(tuple(found))}
    before = len(reader.problems)
    for account, item in as_map(name, entry).items():
        try:
            found.append(_account(reader, account, item))
        except Mistake as mistake:
            reader.complain(item, str(mistake))
    options = AccountsOptions(tuple(found))
    duplicate = duplicate_user(options.users)
    if duplicate:
        raise Mistake(f'Duplicate user "{duplicate}" detected')
    problem = "" if len(reader.problems) > before else sharing_problem(options)
    if problem:
        raise Mistake(problem)
    return {"accounts": options}


def export_for(options: AccountsOptions, importer: str, wanted: Import) -> Export | None:
    """The export that lets an account have an import; None: there is none."""
    return export_among(options.by_name[wanted.account].exports, importer, wanted)


def export_among(given: Sequence[Export], importer: str, wanted: Import) -> Export | None:
    """The same among an account's exports."""
    exports = [each for each in given if each.is_service is wanted.is_service]
    same = [each for each in exports if each.subject == wanted.subject]
    for export in same or exports:
        if is_subset(wanted.subject, export.subject):
            return export if _may_import(export, importer, wanted) else None
    return None


def _may_import(export: Export, importer: str, wanted: Import) -> bool:
    if export.account_position:
        tokens = wanted.subject.split(".")
        return export.account_position <= len(tokens) and tokens[export.account_position - 1] == importer
    if export.activators is not None:
        return export.activators.allow(wanted.activation, importer)
    return export.accounts is None or importer in export.accounts


def export_problem(exports: Sequence[Export]) -> str:
    """What is wrong with the exports of an account; "" if nothing is."""
    services: list[str] = []
    for each in exports:
        tokens, position = each.subject.split("."), each.account_position
        if position and (position > len(tokens) or tokens[position - 1] != "*"):
            kind = "service" if each.is_service else "stream"
            return f'Error adding {kind} export "{each.subject}": sublist: invalid subject'
        if each.is_service:
            services.append(each.subject)
        problem = each.latency.problem(each.is_single, services) if each.latency is not None else ""
        if each.latency is not None and problem:
            about = f'for "{each.subject}" on subject "{each.latency.subject}"'
            return f"Error adding service latency sampling {about}: {problem}"
    return ""


def sharing_problem(options: AccountsOptions) -> str:
    """What is wrong with the exports and imports of accounts; "" if nothing is."""
    for account in options.accounts:
        problem = export_problem(account.exports)
        if problem:
            return problem
    for account in options.accounts:
        for each in account.imports:
            kind = "service" if each.is_service else "stream"
            if each.account not in options.by_name:
                return f'"{each.account}" account not defined for {kind} import'
            if export_for(options, account.name, each) is None:
                return f'Error adding {kind} import "{each.subject}": {kind} import not authorized'
            if _leads_back(options, account.name, each, account.name, ()):
                return f'Error adding {kind} import "{each.subject}": import forms a cycle'
    return ""


def _leads_back(options: AccountsOptions, importer: str, wanted: Import, start: str, seen: tuple[str, ...]) -> bool:
    """Whether what an import asks for is itself imported, and so on, back to the account it began with."""
    if wanted.account == start:
        return True
    if wanted.account in seen:
        return False
    for each in options.by_name[wanted.account].imports:
        local = each.local or each.subject
        is_same_kind = each.is_service is wanted.is_service
        touches = is_subset(wanted.subject, local) or is_subset(local, wanted.subject)
        is_followed = is_same_kind and touches and each.account in options.by_name
        if is_followed and _leads_back(options, wanted.account, each, start, (*seen, wanted.account)):
            return True
    return False


TOP_LEVEL: Final[Table] = {
    "accounts": _accounts,
    **dict.fromkeys(("mappings", "maps"), _mappings),
    **dict.fromkeys(("system_account", "system"), text("system_account")),
}
