"""Server flags as nats-server has them: one dash or two, ``-flag value`` or ``-flag=value``, booleans without value.

``parse_flags`` gives what was asked; ``apply_flags`` lays it over options (flags win over the file). Flags that
nats-server knows and this version does not have are refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from server.config.errors import ConfigError
from server.config.options import AuthorizationOptions, ClusterOptions, Options
from server.config.routes import advertised, client_advertised, parse_listen, parse_route
from server.config.tls import TlsOptions, file_problem

TRUE_WORDS: Final = frozenset(("1", "t", "T", "TRUE", "true", "True"))
FALSE_WORDS: Final = frozenset(("0", "f", "F", "FALSE", "false", "False"))


class FlagError(Exception):
    """A command line that cannot be used."""


class UnknownFlag(FlagError):
    """Not a flag of nats-server's: usage is printed."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag: its names without dashes, what it takes, and its line of help."""

    names: tuple[str, ...]
    kind: type[bool] | type[int] | type[str]
    value_name: str
    help: str


FLAGS: Final[tuple[Flag, ...]] = (
    Flag(("a", "addr", "net"), str, "HOST", "Address to listen on (0.0.0.0)"),
    Flag(("p", "port"), int, "PORT", "Port for clients (4222; -1 = any free one)"),
    Flag(("n", "name", "server_name"), str, "NAME", "Server name"),
    Flag(("P", "pid"), str, "FILE", "File to write the process id to"),
    Flag(("ports_file_dir",), str, "DIR", "Directory to write <executable>_<pid>.ports to"),
    Flag(("m", "http_port"), int, "PORT", "Port for monitoring"),
    Flag(("ms", "https_port"), int, "PORT", "Port for monitoring with TLS"),
    Flag(("c", "config"), str, "FILE", "Configuration file"),
    Flag(("t",), bool, "", "Test the configuration file and exit"),
    Flag(("sl", "signal"), str, "VERB[=PID]", "Tell a running server: ldm, stop, quit, term, reopen, reload"),
    Flag(("client_advertise",), str, "ADDRESS", "host[:port] that INFO names instead of the address listened on"),
    Flag(("l", "log"), str, "FILE", "File to log to instead of standard error"),
    Flag(("T", "logtime"), bool, "", "Time in log lines (true)"),
    Flag(("logtime_utc",), bool, "", "UTC time in log lines"),
    Flag(("D", "debug"), bool, "", "Log debugging output"),
    Flag(("V", "trace"), bool, "", "Log every protocol message"),
    Flag(("VV",), bool, "", "-V, of the system account, too"),
    Flag(("DV",), bool, "", "-D and -V"),
    Flag(("DVV",), bool, "", "-D and -VV"),
    Flag(("log_size_limit",), int, "BYTES", "Size at which the log file is set aside (never)"),
    Flag(("max_traced_msg_len",), int, "BYTES", "How much of a payload is traced (all)"),
    Flag(("s", "syslog"), bool, "", "Log to the machine's syslog"),
    Flag(("r", "remote_syslog"), str, "URL", "Log to the syslog at udp://, tcp:// or unix://"),
    Flag(("js", "jetstream"), bool, "", "Enable JetStream"),
    Flag(("sd", "store_dir"), str, "DIR", "Parent directory of the JetStream store"),
    Flag(("user",), str, "USER", "User that clients must present"),
    Flag(("pass",), str, "PASSWORD", "Password that clients must present"),
    Flag(("auth",), str, "TOKEN", "Token that clients must present"),
    Flag(("tls",), bool, "", "Encrypt clients' connections"),
    Flag(("tlscert",), str, "FILE", "Server's certificate"),
    Flag(("tlskey",), str, "FILE", "Its private key"),
    Flag(("tlsverify",), bool, "", "Encrypt, and ask clients for certificates"),
    Flag(("tlscacert",), str, "FILE", "Who signs clients' certificates"),
    Flag(("cluster_name",), str, "NAME", "Cluster name"),
    Flag(("cluster", "cluster_listen"), str, "URL", "[nats://[user:password@]]host:port for other nodes to connect to"),
    Flag(("routes",), str, "URLS", "Comma-separated nats-route://[user:password@]host:port of the other nodes"),
    Flag(("cluster_advertise",), str, "ADDRESS", "host:port that other nodes reach this one at"),
    Flag(("h", "help"), bool, "", "This text"),
    Flag(("v", "version"), bool, "", "Version"),
    Flag(("help_tls",), bool, "", "How TLS is set up"),
)

REFUSED: Final[dict[str, bool]] = {
    # name → takes a value
    "no_advertise": False,
    **dict.fromkeys(("connect_retries", "profile"), True),
}

SIZES: Final = frozenset(("log_size_limit", "max_traced_msg_len"))
"""The integers that are no ports."""
TLS_HELP: Final = """\
TLS is set up in the configuration file:

    tls {
        cert_file: "/etc/jetstore/server-cert.pem"
        key_file:  "/etc/jetstore/server-key.pem"
        ca_file:   "/etc/jetstore/ca.pem"     # with verify: true, whose certificates clients must show
        verify:    true
    }"""
_BY_NAME: Final = {name: flag for flag in FLAGS for name in flag.names}


@dataclass(slots=True)
class Flags:
    """What a command line asks for: values by each flag's first name, and the words after the flags."""

    values: dict[str, bool | int | str] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)

    def text(self, name: str) -> str:
        """A flag's text or ""."""
        return str(self.values.get(name, ""))

    def is_set(self, name: str) -> bool:
        """Whether a boolean flag is on."""
        return self.values.get(name) is True


def parse_flags(arguments: Sequence[str]) -> Flags:
    """The flags and words of a command line. ``FlagError`` otherwise."""
    flags = Flags()
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            flags.words.extend(rest)
            break
        if not argument.startswith("-") or argument == "-":
            flags.words.append(argument)
            continue
        name, equals, value = argument.removeprefix("-").removeprefix("-").partition("=")
        if name in REFUSED:
            raise FlagError(f"flag -{name} is not supported by this version of jetstore")
        flag = _BY_NAME.get(name)
        if flag is None:
            raise UnknownFlag(f"flag provided but not defined: -{name}")
        if flag.kind is bool:
            flags.values[flag.names[0]] = _boolean(name, value) if equals else True
            continue
        if not equals:
            if not rest:
                raise FlagError(f"flag needs an argument: -{name}")
            value = rest.pop(0)
        flags.values[flag.names[0]] = _integer(name, value) if flag.kind is int else value
    return flags


def _boolean(name: str, value: str) -> bool:
    if value not in TRUE_WORDS | FALSE_WORDS:
        raise FlagError(f'invalid boolean value "{value}" for -{name}: parse error')
    return value in TRUE_WORDS


def _integer(name: str, value: str) -> int:
    try:
        number = int(value)
    except ValueError:
        raise FlagError(f'invalid value "{value}" for flag -{name}: parse error') from None
    if name not in SIZES and not -1 <= number <= 65_535:
        raise FlagError(f'invalid value "{value}" for flag -{name}: port out of range')
    return number


def apply_flags(options: Options, flags: Flags) -> Options:
    """The options with everything the flags say."""
    values = flags.values
    plain = {
        "a": "host",
        "p": "port",
        "n": "server_name",
        "P": "pid_file",
        "ports_file_dir": "ports_file_dir",
        "m": "http_port",
        "ms": "https_port",
        "l": "log_file",
        "s": "syslog",
        "r": "remote_syslog",
        "T": "logtime",
        "logtime_utc": "logtime_utc",
        "D": "debug",
        "V": "trace",
        "cluster_name": "cluster_name",
    }
    changes: dict[str, object] = {option: values[name] for name, option in plain.items() if name in values}
    if flags.is_set("VV") or flags.is_set("DVV"):
        changes.update(trace=True, trace_verbose=True)
    if flags.is_set("DV") or flags.is_set("DVV"):
        changes["debug"] = True
    if flags.is_set("DV"):
        changes["trace"] = True
    for name, option in (("log_size_limit", "log_file_bytes_max"), ("max_traced_msg_len", "traced_bytes_max")):
        if name in values:
            changes[option] = max(int(values[name]), 0)
    if "client_advertise" in values:
        try:
            changes["client_advertise"] = client_advertised(flags.text("client_advertise"))
        except ValueError as error:
            raise ConfigError(str(error)) from None
    jetstream = options.jetstream
    if "js" in values:
        jetstream = replace(jetstream, enabled=flags.is_set("js"))
    if "sd" in values:
        jetstream = replace(jetstream, store_dir=flags.text("sd"))
    changes["jetstream"] = jetstream
    if "auth" in values:
        changes["authorization"] = AuthorizationOptions(
            token=flags.text("auth"), timeout_ns=options.authorization.timeout_ns
        )
    elif "user" in values:
        changes["authorization"] = AuthorizationOptions(
            user=flags.text("user"), password=flags.text("pass"), timeout_ns=options.authorization.timeout_ns
        )
    changes["cluster"] = _cluster(options.cluster, flags)
    changes["tls"] = _tls(options.tls, flags)
    return replace(options, **changes)  # type: ignore[arg-type]  # names and types are those of the table above


def _tls(tls: TlsOptions | None, flags: Flags) -> TlsOptions | None:
    """TLS of the file with what the flags say. ``ConfigError`` if it is on and a file is not there."""
    values = flags.values
    if not {"tls", "tlsverify", "tlscert", "tlskey", "tlscacert"} & values.keys():
        return tls
    if values.get("tls") is False:
        return None
    base = tls or TlsOptions("", "")
    made = replace(
        base,
        cert_file=flags.text("tlscert") or base.cert_file,
        key_file=flags.text("tlskey") or base.key_file,
        ca_file=flags.text("tlscacert") or base.ca_file,
        verify=flags.is_set("tlsverify") or base.verify,
    )
    if not made.cert_file:
        raise ConfigError("TLS Server certificate must be present and valid")
    if not made.key_file:
        raise ConfigError("TLS Server private key must be present and valid")
    if problem := file_problem(made):
        raise ConfigError(problem)
    return made


def _cluster(cluster: ClusterOptions, flags: Flags) -> ClusterOptions:
    values = flags.values
    try:
        if "cluster" in values:
            listen = parse_listen(flags.text("cluster"))
            cluster = replace(cluster, host=listen.host, port=listen.port)
            if listen.user:
                cluster = replace(cluster, user=listen.user, password=listen.password)
        if "routes" in values:
            routes = [parse_route(each) for each in flags.text("routes").split(",") if each.strip()]
            cluster = replace(cluster, routes=tuple(routes))
        if "cluster_advertise" in values:
            cluster = replace(cluster, advertise=advertised(flags.text("cluster_advertise")))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return cluster


def usage() -> str:
    """Help on the flags."""
    lines = ["Usage: jetstore serve [flags]", ""]
    for flag in FLAGS:
        names = ", ".join(f"-{name}" if len(name) <= 2 else f"--{name}" for name in flag.names)
        lines.append(f"    {f'{names} {flag.value_name}'.rstrip():34} {flag.help}")
    return "\n".join(lines)
