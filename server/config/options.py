"""``Options``: everything a server can be told, with defaults. What is not here is refused, never ignored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from jetstore.limits import KIB, MIB, Limits, file_bytes_for
from jetstore.model.infos import AccountLimits
from jetstore.model.times import format_duration
from server.config.accounts import SYSTEM_ACCOUNT, AccountsOptions, MappingOptions
from server.config.authorization import GLOBAL_ACCOUNT, AuthorizationOptions, User, duplicate_user, is_bcrypt
from server.config.cluster import ClusterOptions
from server.config.jetstream import JetStreamOptions
from server.config.operator import OperatorOptions
from server.config.tls import TlsOptions
from server.config.values import SECOND
from server.config.websocket import WebSocketOptions

__all__ = ["AuthorizationOptions", "ClusterOptions", "JetStreamOptions", "Options", "User", "start_problem"]

DEFAULT_PORT: Final = 4222
RANDOM_PORT: Final = -1


@dataclass(frozen=True, slots=True)
class Options:
    """One server. Durations in nanoseconds, sizes in bytes; port -1 = any free one."""

    host: str = "0.0.0.0"
    port: int = DEFAULT_PORT
    server_name: str = ""
    """"" = the server's id."""
    server_tags: tuple[str, ...] = ()
    """Words about this server, in lower case."""
    server_metadata: tuple[tuple[str, str], ...] = ()
    """Names and values."""
    client_advertise: str = ""
    """host or host:port that INFO names instead of what the server listens on; "" = that."""
    cluster_name: str = ""
    """Shown only, unless there is a cluster port."""
    http_host: str = ""
    """"" = as ``host``."""
    http_port: int = 0
    """0 = no monitoring without TLS."""
    https_port: int = 0
    """0 = none with the certificate of the ``tls`` block."""
    http_base_path: str = ""
    debug: bool = False
    trace: bool = False
    trace_verbose: bool = False
    """Trace clients of the system account, too."""
    trace_headers: bool = False
    """Of payloads only the headers are traced."""
    traced_bytes_max: int = 0
    """How much of a payload is traced; 0 = all of it."""
    logtime: bool = True
    logtime_utc: bool = False
    log_file: str = ""
    """"" = standard error."""
    syslog: bool = False
    """Lines go to the machine's, where there is no log file."""
    remote_syslog: str = ""
    """``udp://``, ``tcp://`` or ``unix://`` address of one to go to instead."""
    log_file_bytes_max: int = 0
    """At this size the log file is set aside and a new one begun; 0 = never."""
    log_files_max: int = 0
    """How many log files are kept, the current one included; 0 = all."""
    pid_file: str = ""
    ports_file_dir: str = ""
    max_payload_bytes: int = MIB
    max_control_line_bytes: int = 4 * KIB
    max_pending_bytes: int = 64 * MIB
    max_connections: int = 65_536
    max_subscriptions: int = 0
    """Of one connection; 0 = no limit."""
    max_sub_tokens: int = 0
    """Tokens of a subscription's subject; 0 = no limit."""
    max_closed_clients: int = 10_000
    """Closed connections that monitoring remembers."""
    no_header_support: bool = False
    no_fast_producer_stall: bool = False
    """Messages to a congested consumer are dropped; its producers are not slowed down."""
    lame_duck_duration_ns: int = 120 * SECOND
    """How long a lame duck takes to close all its clients, the grace period included."""
    lame_duck_grace_ns: int = 10 * SECOND
    """How long it waits before the first."""
    ping_interval_ns: int = 120 * SECOND
    ping_max: int = 2
    write_deadline_ns: int = 10 * SECOND
    authorization: AuthorizationOptions = field(default_factory=AuthorizationOptions)
    no_auth_user: str = ""
    """The user that clients without credentials become; "" = they are refused where users are configured."""
    tls: TlsOptions | None = None
    """None: clients are not encrypted."""
    allow_non_tls: bool = False
    """Clients may choose."""
    websocket: WebSocketOptions = field(default_factory=WebSocketOptions)
    accounts: AccountsOptions = field(default_factory=AccountsOptions)
    operator: OperatorOptions | None = None
    """None: users are configured here."""
    mappings: tuple[MappingOptions, ...] = ()
    """Of the global account."""
    system_account: str = ""
    """"" = ``$SYS``."""
    cluster: ClusterOptions = field(default_factory=ClusterOptions)
    jetstream: JetStreamOptions = field(default_factory=JetStreamOptions)
    config_file: str = ""
    config_digest: str = ""
    """``sha256:…`` of the file's parsed content."""
    warnings: tuple[str, ...] = ()
    """To be logged at start."""

    @property
    def system_name(self) -> str:
        """The system account's name."""
        return self.system_account or SYSTEM_ACCOUNT

    @property
    def jetstream_account(self) -> tuple[str, AccountLimits | None]:
        """The first account that has JetStream, and its limits: the global one unless the file defines accounts."""
        if not self.accounts.has_own:
            return GLOBAL_ACCOUNT, None
        for account in self.accounts.accounts:
            if account.jetstream is not None:
                return account.name, account.jetstream
        return self.system_name, None

    @property
    def jetstream_accounts(self) -> dict[str, AccountLimits | None]:
        """Every account that has JetStream, in the order of the file, and its limits."""
        if not self.accounts.has_own:
            return {GLOBAL_ACCOUNT: None}
        return {each.name: each.jetstream for each in self.accounts.accounts if each.jetstream is not None}

    def limits(self) -> Limits:
        """The node's bounds with those that options set; journal files that hold the largest message."""
        least = Limits()
        file_bytes = file_bytes_for(
            least.block_bytes_max, least.journal_reappend_bytes, self.max_payload_bytes, least.journal_file_bytes
        )
        return Limits(
            journal_file_bytes=file_bytes,
            journal_bytes_max=max(least.journal_bytes_max, 16 * file_bytes),
            max_payload_bytes=self.max_payload_bytes,
            max_control_line_bytes=self.max_control_line_bytes,
            max_pending_bytes=self.max_pending_bytes,
            max_connections=self.max_connections,
            link_hello_timeout_s=self.cluster.timeout_ns / SECOND,
        )


def start_problem(options: Options) -> str:
    """Why a server cannot start with options that are valid one by one; "" if it can."""
    if options.max_payload_bytes > options.max_pending_bytes:
        return (
            f"max_payload ({options.max_payload_bytes}) cannot be higher than max_pending ({options.max_pending_bytes})"
        )
    if options.http_port and options.https_port:
        return f"can't specify both HTTP ({options.http_port}) and HTTPs ({options.https_port}) ports"
    if options.https_port and options.tls is None:
        return "TLS cert and key required for HTTPS"
    if options.remote_syslog and (problem := _syslog_problem(options.remote_syslog)):
        return problem
    if options.authorization.token and options.accounts.users:
        return "Can not have a token and accounts"
    if options.system_account not in ("", SYSTEM_ACCOUNT, *options.accounts.by_name):
        return "error resolving system account: account missing"
    if options.websocket.port and not options.websocket.no_tls and options.websocket.tls is None:
        return "websocket requires TLS configuration"
    if options.websocket.jwt_cookie and options.operator is None:
        return (
            "trusted operators or trusted keys configuration is required for JWT authentication via cookie"
            f' "{options.websocket.jwt_cookie}"'
        )
    with_jetstream = [account.name for account in options.accounts.accounts if account.jetstream is not None]
    if options.system_name in with_jetstream:
        return "Not allowed to enable JetStream on the system account"
    if len(with_jetstream) > 1 and options.cluster.port:
        names = ", ".join(with_jetstream)
        return f"JetStream in several accounts ({names}) of a cluster is not supported by this version of jetstore"
    if (problem := _domain_problem(options.jetstream.domain)) != "":
        return problem
    if (duplicate := duplicate_user((*options.authorization.users, *options.accounts.users))) != "":
        return f'Duplicate user "{duplicate}" detected'
    known = {user.user for user in (*options.authorization.users, *options.accounts.users)}
    if options.no_auth_user and options.no_auth_user not in known:
        return (
            f'no_auth_user: "{options.no_auth_user}" not present as user or nkey in authorization block'
            " or account configuration"
        )
    if options.lame_duck_grace_ns >= options.lame_duck_duration_ns:
        return (
            f"lame duck grace period ({format_duration(options.lame_duck_grace_ns)}) should be strictly lower than"
            f" lame duck duration ({format_duration(options.lame_duck_duration_ns)})"
        )
    if any(character.isspace() for character in options.server_name):
        return "server name cannot contain spaces"
    if any(character.isspace() for character in options.cluster_name):
        return "cluster name cannot contain spaces"
    return _cluster_problem(options)


def _domain_problem(domain: str) -> str:
    if any(character.isspace() for character in domain):
        return f'invalid domain name: derived "$JS.{domain}.API.>" is not a valid subject'
    return "invalid domain name: may not contain ., * or >" if set(".*>") & set(domain) else ""


def _cluster_problem(options: Options) -> str:
    cluster = options.cluster
    if not cluster.port:
        return "solicited routes require cluster capabilities, e.g. --cluster" if cluster.routes else ""
    if is_bcrypt(cluster.password):
        return "bcrypt passwords are not supported by this version of jetstore"
    if not options.jetstream.enabled:
        return "a cluster without JetStream is not supported by this version of jetstore: add -js"
    if not options.server_name:
        return "jetstream cluster requires `server_name` to be set"
    if not options.cluster_name:
        return "jetstream cluster requires `cluster.name` to be set"
    if not cluster.others:
        return "JetStream cluster requires configured routes or solicited leafnode for the system account"
    return ""


def _syslog_problem(where: str) -> str:
    """What is wrong with the address of a syslog; "" if nothing is."""
    parts = urlsplit(where)
    if parts.scheme not in ("udp", "tcp", "unix"):
        return f'error invalid network type: "{parts.scheme}"'
    if (parts.scheme == "unix") != bool(parts.path) or (parts.scheme != "unix" and not parts.hostname):
        return f'"{where}" names no syslog'
    return ""
