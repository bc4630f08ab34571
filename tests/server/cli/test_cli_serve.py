"""``jetstore serve`` up to the point where the server starts, and the command group."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import structlog
from click.testing import CliRunner

from server.cli.main import COMMANDS, main
from server.config.options import Options
from server.surroundings import Surroundings


class FakeLogging:
    """Stands for ``cli.log.Logging``."""

    def apply(self, _options: Options) -> None: ...
    def reopen(self) -> None: ...


class FakeApp(ModuleType):
    """Stands for ``server.run``: keeps the options it is run with."""

    def __init__(self) -> None:
        super().__init__("server.run")
        self.ran: list[Options] = []

    def run(self, options: Options, around: Surroundings) -> int:
        self.ran.append(options)
        self.around = around
        return 0


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApp]:
    fake = FakeApp()
    monkeypatch.setitem(sys.modules, "server.run", fake)
    monkeypatch.setattr("server.cli.serve.configure_logging", lambda _options: FakeLogging())
    monkeypatch.setattr("server.cli.serve.signal.signal", lambda *_args: None)
    yield fake
    structlog.reset_defaults()


def serve(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["serve", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_runs_with_the_options_of_file_and_flags(app: FakeApp, tmp_path: Path) -> None:
    config = tmp_path / "x.conf"
    config.write_text("port: 1\nserver_name: fromfile\njetstream {store_dir: /a}")
    pid = tmp_path / "pid"
    assert serve("-c", str(config), "-p", "2", "-P", str(pid)) == (0, "")
    (options,) = app.ran
    assert (options.port, options.server_name, options.jetstream.store_dir) == (2, "fromfile", "/a")
    assert pid.read_text() == str(os.getpid())


def test_the_usual_command(app: FakeApp) -> None:
    assert serve("-js", "--cluster_name", "nats-js") == (0, "")
    assert app.ran[0].jetstream.enabled
    assert app.ran[0].cluster_name == "nats-js"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["-h"], 0, "Usage: jetstore serve"),
        (["--help"], 0, "Usage: jetstore serve"),
        (["help"], 0, "Usage: jetstore serve"),
        (["--help_tls"], 0, "cert_file"),
        (["--signal", "foo"], 1, 'unknown signal "foo"'),
        (["-sl", "stop=/nope.pid"], 1, "invalid pid: /nope.pid"),
        (["--signal=reload=0"], 1, "invalid pid: 0"),
        (["--signal=reload=99999999"], 1, 'signal "reload" 99999999: no such process'),
        (["--client_advertise", "a:b"], 1, "client_advertise should be host or host:port, not a:b"),
        (["-v"], 0, "jetstore: v"),
        (["version"], 0, "jetstore: v"),
        (["wat"], 1, 'unrecognized command: "wat"'),
        (["-zzz"], 0, "flag provided but not defined: -zzz"),
        (["--routes", "x"], 1, 'error parsing route url ["x"]'),
        (["-t"], 1, "must specify [-c, --config] option to check configuration file syntax"),
        (["-c", "/nonexistent/x.conf"], 1, "open /nonexistent/x.conf: no such file or directory"),
        (["-n", "a b"], 1, "server name cannot contain spaces"),
    ],
)
def test_without_a_server(app: FakeApp, arguments: list[str], code: int, text: str) -> None:
    got_code, output = serve(*arguments)
    assert got_code == code
    assert text in output
    assert not app.ran


def test_configuration_test(app: FakeApp, tmp_path: Path) -> None:
    config = tmp_path / "x.conf"
    config.write_text("port: 1")
    code, output = serve("-t", "-c", str(config))
    assert code == 0
    assert f"configuration file {config} is valid (sha256:" in output
    config.write_text("\nfoo: 1\n  bar: 2\n")
    code, output = serve("-c", str(config), "-t")
    assert code == 1
    assert output == f'jetstore: {config}:2:1: unknown field "foo"\n{config}:3:3: unknown field "bar"\n\n'
    assert not app.ran


def test_a_reload_reads_the_file_again_and_flags_still_win(app: FakeApp, tmp_path: Path) -> None:
    config = tmp_path / "x.conf"
    config.write_text("port: 1\ndebug: false")
    assert serve("-c", str(config), "-p", "2") == (0, "")
    config.write_text("port: 3\ndebug: true")
    again = app.around.load()
    assert (again.port, again.debug) == (2, True)


def test_every_command_can_be_loaded() -> None:
    runner = CliRunner()
    for name in COMMANDS:
        assert runner.invoke(main, [name, "--help"]).exit_code == 0
    listing = runner.invoke(main, ["--help"]).output
    assert all(name in listing for name in COMMANDS)
    assert runner.invoke(main, ["version"]).output.startswith("jetstore: v")
    assert runner.invoke(main, ["nope"]).exit_code == 2
