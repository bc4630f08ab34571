"""Server flags: spellings, overriding, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.cli.flags import FLAGS, REFUSED, FlagError, UnknownFlag, apply_flags, parse_flags, usage
from server.config.errors import ConfigError
from server.config.options import AuthorizationOptions, JetStreamOptions, Options
from server.config.tls import TlsOptions


def options(line: str, base: Options | None = None) -> Options:
    return apply_flags(base or Options(), parse_flags(line.split()))


@pytest.mark.parametrize(
    "line",
    ["-p 4333 -js", "--port=4333 --jetstream", "-port 4333 -jetstream=true", "--p=4333 -js=1", "-js --port 4333"],
)
def test_one_dash_or_two_space_or_equals(line: str) -> None:
    assert options(line) == Options(port=4333, jetstream=JetStreamOptions(enabled=True))


def test_all_flags() -> None:
    made = options(
        "-a 127.0.0.1 -p -1 -n s1 -P /tmp/p --ports_file_dir /tmp/d -m 8222 -l /tmp/l -T=false --logtime_utc "
        "-DV -js -sd /data --user u --pass s --cluster_name c"
    )
    assert made == Options(
        host="127.0.0.1",
        port=-1,
        server_name="s1",
        pid_file="/tmp/p",
        ports_file_dir="/tmp/d",
        http_port=8222,
        log_file="/tmp/l",
        logtime=False,
        logtime_utc=True,
        debug=True,
        trace=True,
        jetstream=JetStreamOptions(enabled=True, store_dir="/data"),
        authorization=AuthorizationOptions(user="u", password="s"),
        cluster_name="c",
    )
    assert options("--auth tok").authorization == AuthorizationOptions(token="tok")
    assert (options("-D").debug, options("-D").trace, options("-V").trace) == (True, False, True)


def test_flags_win_over_the_file() -> None:
    base = Options(
        port=1, debug=True, jetstream=JetStreamOptions(True, "/a", 5), authorization=AuthorizationOptions(token="t")
    )
    made = options("-p 2 -D=false -sd /b --user u", base)
    assert made == Options(
        port=2, jetstream=JetStreamOptions(True, "/b", 5), authorization=AuthorizationOptions(user="u")
    )
    assert options("", base) == base
    assert options("-js=false", base).jetstream.enabled is False


def test_tls(tmp_path: Path) -> None:
    for name in ("cert", "key", "ca"):
        (tmp_path / name).write_text("")
    pair = f"--tlscert {tmp_path}/cert --tlskey {tmp_path}/key"
    assert options(f"--tls {pair}").tls == options(pair).tls == TlsOptions(f"{tmp_path}/cert", f"{tmp_path}/key")
    verified = options(f"--tlsverify {pair} --tlscacert {tmp_path}/ca").tls
    assert verified == TlsOptions(f"{tmp_path}/cert", f"{tmp_path}/key", f"{tmp_path}/ca", verify=True)
    base = Options(tls=TlsOptions("c", f"{tmp_path}/key", timeout_ns=5))
    assert options(f"--tlscert {tmp_path}/cert", base).tls == TlsOptions(
        f"{tmp_path}/cert", f"{tmp_path}/key", timeout_ns=5
    )
    assert options("--tls=false", base).tls is None
    for line, text in (
        ("--tls", "TLS Server certificate must be present and valid"),
        ("--tls --tlscert x", "TLS Server private key must be present and valid"),
        (
            "--tlscert /nope --tlskey y",
            "error parsing X509 certificate/key pair: open /nope: no such file or directory",
        ),
    ):
        with pytest.raises(ConfigError, match=text):
            options(line)


def test_tracing_logging_and_advertising() -> None:
    made = options("-VV --log_size_limit 100000 --max_traced_msg_len 7 --client_advertise h:5")
    assert (made.trace, made.trace_verbose, made.debug) == (True, True, False)
    assert (made.log_file_bytes_max, made.traced_bytes_max, made.client_advertise) == (100_000, 7, "h:5")
    made = options("-DVV")
    assert (made.trace, made.trace_verbose, made.debug) == (True, True, True)
    with pytest.raises(ConfigError, match="client_advertise should be host or host:port"):
        options("--client_advertise h:x")


def test_words_end_up_as_words() -> None:
    assert parse_flags(["-js", "help"]).words == ["help"]
    assert parse_flags(["--", "-js"]).words == ["-js"]


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_known_flags_that_are_not_there_are_refused(name: str) -> None:
    for spelling in (f"-{name}", f"--{name}=x"):
        with pytest.raises(FlagError, match=f"flag -{name} is not supported by this version of jetstore"):
            parse_flags([spelling])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-p", "flag needs an argument: -p"),
        ("-p x", 'invalid value "x" for flag -p'),
        ("-p 70000", 'invalid value "70000" for flag -p: port out of range'),
        ("-js=maybe", 'invalid boolean value "maybe" for -js'),
    ],
)
def test_bad_values(line: str, message: str) -> None:
    with pytest.raises(FlagError, match=message):
        parse_flags(line.split())


def test_unknown_flag() -> None:
    with pytest.raises(UnknownFlag, match="flag provided but not defined: -foo"):
        parse_flags(["--foo", "x"])


def test_every_flag_is_in_the_help_and_none_twice() -> None:
    names = [name for flag in FLAGS for name in flag.names]
    assert len(names) == len(set(names))
    assert not set(names) & set(REFUSED)
    for flag in FLAGS:
        assert flag.help in usage()
