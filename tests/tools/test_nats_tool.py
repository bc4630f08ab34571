"""The ``nats`` command line says the same about jetstore as about nats-server."""

from __future__ import annotations

import difflib
import json
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from nats_tool import CONFIGURATION, Join, Step, Transcript, find_tool, tool_for

from jepsen.real.process import JETSTORE, NATS_SERVER, ServerProcess, find_nats_server

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

EXPORTED = {
    "name": "FILED",
    "description": "exported",
    "subjects": ["filed.>"],
    "retention": "limits",
    "max_consumers": -1,
    "max_msgs_per_subject": -1,
    "max_msgs": 1000,
    "max_bytes": -1,
    "max_age": 0,
    "max_msg_size": -1,
    "storage": "file",
    "discard": "old",
    "num_replicas": 1,
    "duplicate_window": 120000000000,
    "sealed": False,
    "deny_delete": False,
    "deny_purge": False,
    "allow_rollup_hdrs": True,
    "allow_direct": True,
    "mirror_direct": False,
    "consumer_limits": {},
    "metadata": {"_nats.level": "5", "_nats.req.level": "2", "_nats.ver": "2.15.1"},
    "allow_msg_ttl": True,
    "allow_atomic": True,
    "allow_msg_schedules": True,
}
"""The configuration that ``stream info --json`` shows of a stream of nats-server 2.15.1."""

PRODUCT = "Git Commit|Go Version|Storage Directory|Always sync|Write sync"
"""Lines of ``server info`` that tell one product from the other (docs/compatibility.md)."""

S = Step
AREAS: dict[str, list[Step | Join]] = {
    "core": [
        S("context save one --server {url} --description first"),
        S("context select one"),
        S("context ls"),
        S("pub --context one greet hello"),
        S("sub greet --count 2", background="Subscribing"),
        S("pub greet hello"),
        S("pub greet -H Name:value hello"),
        Join(),
        S("reply help 'I can {{.Request}}' --count 2", code=1, background="Listening"),  # so the tool ends
        S("req help fly"),
        S("req help swim --raw"),
        Join(),
        S("req nobody there"),
        S("rtt", drop="<address>|<span>"),
        S("pub greet --count 5 'n {{Count}}'"),
    ],
    "streams": [
        S("stream add --config {home}/exported.json"),
        S("stream add ORDERS --subjects orders.> --defaults"),
        S("stream add ORDERS --subjects orders.> --defaults --max-msgs 5", code=1),
        S("stream add MEM --subjects mem --storage memory --defaults --max-age 1h --dupe-window 10s"),
        S("pub filed.a one -J"),
        S("pub filed.b two -J"),
        S("pub filed.b three -J -H Nats-Msg-Id:3"),
        S("pub filed.b three -J -H Nats-Msg-Id:3"),
        S("stream ls"),
        S("stream ls --names"),
        S("stream info FILED"),
        S("stream info FILED --json", drop='"(ts|created)"'),
        S("stream state FILED"),
        S("stream subjects FILED"),
        S("stream report"),
        S("stream find --subject filed.a"),
        S("stream edit ORDERS --max-msgs 10 -f"),
        S("stream edit ORDERS --retention work -f", code=1),
        S("stream get FILED 1"),
        S("stream get FILED --last-for filed.b"),
        S("stream get FILED 99", code=1),
        S("stream view FILED", terminal=True),
        S("stream view FILED --subject filed.b --raw", terminal=True),
        S("stream copy FILED COPIED --subjects copied.>"),
        S("stream gaps FILED"),
        S("stream backup FILED {home}/backup --no-progress", exit_only=True),
        S("stream rm FILED -f"),
        S("stream restore {home}/backup --no-progress", exit_only=True),
        S("stream info FILED"),
        S("stream rmm FILED 2 -f"),
        S("stream gaps FILED -f"),
        S("stream purge FILED --subject filed.a -f"),
        S("stream purge FILED -f"),
        S("stream seal COPIED -f"),
        S("stream rm ORDERS -f"),
        S("stream info ORDERS", code=1),
        S("stream rm MEM -f"),
        S("stream ls"),
        S("stream rm FILED -f"),
        S("stream rm COPIED -f"),
    ],
    "consumers": [
        S("stream add EVENTS --subjects events.> --defaults"),
        S("pub events.a -J --count 3 'm {{Count}}'"),
        S("consumer add EVENTS PULL --pull --defaults"),
        S("consumer add EVENTS PUSH --target out --filter events.a --ack none --deliver all --defaults"),
        S("consumer ls EVENTS"),
        S("consumer ls EVENTS --names"),
        S("consumer info EVENTS PULL"),
        S("consumer info EVENTS PULL --json", drop='"(ts|created|last_active)"'),
        S("consumer state EVENTS PULL"),
        S("consumer next EVENTS PULL --count 2"),
        S("consumer next EVENTS PULL --no-ack"),
        S("consumer sub EVENTS PUSH", background="Subscribing", code=-2),
        Join(stop=True, until="m 3"),
        S("consumer add EVENTS ACKED --target acked --ack explicit --deliver all --defaults"),
        S("consumer sub EVENTS ACKED --ack", background="Subscribing", code=-2),
        Join(stop=True, until="m 3"),
        S("consumer rm EVENTS ACKED -f"),
        S("consumer report EVENTS"),
        S("consumer find EVENTS --pull"),
        S("consumer edit EVENTS PULL --max-pending 7 -f"),
        S("consumer copy EVENTS PULL PULL2 --max-pending 9"),
        S("consumer pause EVENTS PULL 1h -f"),
        S("consumer info EVENTS PULL"),
        S("consumer resume EVENTS PULL -f"),
        S("consumer info EVENTS PULL"),
        S("consumer add EVENTS PAUSED --pull --pause 1h --defaults"),
        S("consumer resume EVENTS PAUSED -f"),
        S("consumer info EVENTS PAUSED"),
        S("consumer reset EVENTS PULL -f"),
        S("consumer rm EVENTS PULL -f"),
        S("consumer rm EVENTS NONE -f", code=1),
        S("stream rm EVENTS -f"),
    ],
    "kv": [
        S("kv add CFG --history 5 --ttl 1h"),
        S("kv put CFG a 1"),
        S("kv put CFG a 2"),
        S("kv create CFG b 1"),
        S("kv create CFG b 2", code=1),
        S("kv update CFG a 3 2"),
        S("kv update CFG a 4 2", code=1),
        S("kv get CFG a"),
        S("kv get CFG a --raw"),
        S("kv get CFG none", code=1),
        S("kv history CFG a"),
        S("kv revert CFG a 1 --force"),
        S("kv edit CFG --history 7 --description 'seven of each'"),
        S("kv watch CFG", background="PUT", code=-2),
        S("kv put CFG c 5"),
        Join(stop=True, until="c: 5"),
        S("kv ls"),
        S("kv ls CFG", sorted_lines=True),
        S("kv del CFG b -f"),
        S("kv purge CFG a -f"),
        S("kv info CFG"),
        S("kv status CFG"),
        S("kv compact CFG -f"),
        S("kv rm CFG -f"),
        S("kv info CFG", code=1),
    ],
    "object": [
        S("object add FILES --description things"),
        S("object put FILES {home}/exported.json --name one -f --no-progress"),
        S("object put FILES {home}/big.bin --name big -f --no-progress"),
        S("object ls"),
        S("object ls FILES"),
        S("object info FILES"),
        S("object info FILES one"),
        S("object edit FILES --description 'other things'"),
        S("object watch FILES", background="PUT", code=-2),
        S("object put FILES {home}/timed.json --name two -f --no-progress"),
        S("object del FILES two -f"),
        Join(stop=True, until="DEL"),
        S("object get FILES big -O {home}/back.bin -f --no-progress"),
        S("object rm FILES one -f"),
        S("object ls FILES"),
        S("object seal FILES -f"),
        S("object rm FILES -f"),
    ],
    "account": [
        S("stream add ONE --subjects one --defaults"),
        S("account info", drop="Client ID|RTT"),
        S("account report statistics", figures=True),
        S("account report connections", figures=True),
        S("server list", system=True, figures=True),
        S("server info", system=True, figures=True, drop=PRODUCT),
        S("server ping 1", system=True, figures=True),
        S("server report connections", system=True, figures=True),
        S("server report jetstream", system=True, figures=True),
        S("server report accounts", system=True, figures=True),
        S("server report health", system=True),
        S("server report cpu", system=True, exit_only=True),
        S("server report mem", system=True, exit_only=True),
        S("server check connection"),
        S("server check jetstream"),
        S("server check stream --stream ONE"),
        S("server check stream --stream NONE", code=2),
        S("pub one body -J"),
        S("consumer add ONE C --pull --defaults"),
        S("server check consumer --stream ONE --consumer C", figures=True),
        S("server check message --stream ONE --subject one --body-timestamp", code=2, figures=True),
        S("server check kv --bucket NONE", code=2, figures=True),
        S("server check request --subject nobody --payload x", code=2, figures=True),
        S("server check meta --expect 1 --lag-critical 1 --seen-critical 1s", system=True, code=2, figures=True),
        S("server report routes", system=True),
        S("server report gateways", system=True),
        S("server report leafnodes", system=True),
        S("server check server --name n1", system=True, figures=True),
        S("server request variables", system=True, exit_only=True),
        S("server request jetstream", system=True, exit_only=True),
        S("server request subscriptions", system=True, exit_only=True),
        S("server request accounts", system=True, exit_only=True),
        S("server request connections", system=True, exit_only=True),
        S("server account info A", system=True, sorted_lines=True),
        S("server mappings foo.* bar.{{wildcard(1)}} foo.x"),
        S("stream rm ONE -f"),
    ],
    "services": [
        S("service serve echoer", background="Requests Log", code=-2),
        S("service list"),
        S("micro list"),
        S("service info echoer"),
        S("service stats echoer"),
        S("service ping echoer"),
        S("service request echoer echo hi", sorted_lines=True),
        S("service request echoer none hi", code=1),
        Join(stop=True),
    ],
    "events": [
        S("events --js-advisory --no-srv-advisory --short", background="Listening", sorted_lines=True, code=-2),
        S("stream add EV --subjects ev --defaults"),
        S("consumer add EV C --pull --defaults"),
        S("stream rm EV -f"),
        Join(stop=True, until=r"(?s)(?=.*STREAM\.DELETE\.EV)(?=.*Consumer Delete)(?=.*Stream Delete)"),
        S("events --short", system=True, background="CLIENT.AUTH.ERR", figures=True, code=-2),
        S("pub greet hello"),
        Join(stop=True, until=r"\[Disconnection\]"),
    ],
    "schedules": [
        S("stream add TIMED --config {home}/timed.json"),
        S("pub timed.at --schedule-after 1h --schedule-dest timed.out later"),
        S("pub timed.every --schedule-every 1h --schedule-dest timed.out each"),
        S("pub timed.cron --schedule-cron '0 0 5 * * *' --schedule-dest timed.out daily"),
        S("pub timed.wrong --schedule-cron 'x' --schedule-dest timed.out wrong", code=1),
        S("stream get TIMED 1", sorted_lines=True),
        S("pub timed.c --atomic --send-on newline --force-stdin", stdin="a\nb\nc\n"),
        S("stream rm TIMED -f"),
    ],
    "counters": [
        S("stream add COUNTS --subjects counts.> --allow-counter --defaults"),
        S("counter increment counts.a 5"),
        S("counter decrement counts.a 2"),
        S("counter increment counts.b 1"),
        S("counter get counts.a"),
        S("counter view counts.a"),
        S("counter list --stream COUNTS", sorted_lines=True),
        S("stream rm COUNTS -f"),
    ],
    "traces": [
        S("stream add TRACED --subjects traced.> --defaults"),
        S("sub traced.a", background="Subscribing", sorted_lines=True, code=-2),
        S("trace traced.a body", sorted_lines=True),
        S("trace traced.a body --deliver", sorted_lines=True),
        S("trace nobody body"),
        Join(stop=True, until="body"),
        S("stream rm TRACED -f"),
    ],
    "bench": [
        S("bench sub subj --msgs 100 --no-progress", background="expecting", exit_only=True),
        S("bench pub subj --msgs 700 --sleep 1ms --no-progress", exit_only=True),
        Join(),
        S("bench js pub sync bs --create --msgs 50 --no-progress", exit_only=True),
        S("bench js pub async bs --msgs 500 --batch 100 --no-progress", exit_only=True),
        S("bench js pub atomic bs --purge --msgs 500 --batch 50 --no-progress", exit_only=True),
        S("bench js pub fast bs --purge --msgs 500 --batch 50 --no-progress", exit_only=True),
        S("bench js ordered --msgs 500 --no-progress", exit_only=True),
        S("bench js consume --msgs 500 --no-progress", exit_only=True),
        S("consumer rm benchstream nats-bench -f"),
        S("bench js fetch --msgs 500 --no-progress", exit_only=True),
        S("bench js get sync --msgs 50 --no-progress", exit_only=True),
        S("bench kv put --msgs 100 --no-progress", exit_only=True),
        S("bench kv get --msgs 100 --no-progress", exit_only=True),
        S("stream ls --names"),
    ],
}


@pytest.fixture(scope="module")
def binary() -> str:
    """The tool itself; skips where it is not installed."""
    found = find_tool()
    if found is None:
        pytest.skip("no nats command-line tool in $JETSTORE_NATS_TOOL or on PATH (./dev test installs it where Go is)")
    return found


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ServerProcess]]:
    """jetstore and, where there is one, nats-server, each with a system account."""
    folder = tmp_path_factory.mktemp("tool")
    names = [JETSTORE] + ([NATS_SERVER] if find_nats_server() else [])
    processes = [ServerProcess(name, folder / name, config=CONFIGURATION, monitor=True) for name in names]
    try:
        for process in processes:
            process.start()
        yield processes
    finally:
        for process in processes:
            process.kill()


@pytest.mark.oracle
@pytest.mark.parametrize("area", AREAS)
def test_area(area: str, binary: str, servers: list[ServerProcess], tmp_path: Path) -> None:
    def transcript(server: ServerProcess) -> Transcript:
        home = tmp_path / server.server
        home.mkdir()
        (home / "exported.json").write_text(json.dumps(EXPORTED))
        (home / "timed.json").write_text(json.dumps(EXPORTED | {"name": "TIMED", "subjects": ["timed.>"]}))
        (home / "big.bin").write_bytes(bytes(range(256)) * 1200)
        with tool_for(binary, home, server) as tool:
            return tool.run(AREAS[area])

    with ThreadPoolExecutor(len(servers)) as pool:  # much of the tool's time is waiting
        transcripts = list(pool.map(transcript, servers))
    for server, each in zip(servers, transcripts, strict=True):
        assert not each.failures, "\n".join([f"with {server.server}", *each.failures])
    if len(transcripts) == 1:
        return
    found = []
    for (title, mine), (_, theirs) in zip(*(each.entries for each in transcripts), strict=True):
        there, here = theirs.splitlines(), mine.splitlines()
        if " events" in title:  # what happens at once is told by the tool in any order
            there, here = sorted(there), sorted(here)
        changed = difflib.unified_diff(there, here, "nats-server", "jetstore", lineterm="", n=2)
        found += [f"$ nats {title}", *lines] if (lines := list(changed)) else []
    assert not found, "\n".join(["", *found])


def test_nats_top(servers: list[ServerProcess]) -> None:
    """nats-top reads our monitoring pages: its first screen has the same lines, figures aside."""
    top = find_tool("nats-top")
    if top is None:
        pytest.skip("no nats-top in $JETSTORE_NATS_TOP_TOOL or on PATH (./dev test installs it where Go is)")
    screens = []
    for server in servers:
        command = [top, "-s", "127.0.0.1", "-m", str(server.monitor_port), "-r", "1", "-o", "-"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        lines = [line for line in done.stdout.splitlines() if not line.startswith("  ID:")]
        screens.append([re.sub(r"[\d.]+[KM]?", "#", line).rstrip() for line in lines])
    assert screens[0][0].startswith("NATS server version")
    assert all(screen == screens[0] for screen in screens), screens
