"""What an operator does to a running server: reload its configuration, have it write its files, let it go gently.

``server/run.py`` makes one ``Operation`` per server and calls it when signals come; ``Server.reload`` leads here, too.
"""

from __future__ import annotations

import asyncio
from dataclasses import fields
from pathlib import Path
from random import Random
from typing import Final

import structlog

from jetstore.node.hand_over import hand_over
from server.account_reload import AccountReload, accounts_problem
from server.app import NO_FILE, Server, advertised_address, authenticator, net_options
from server.auth.authenticator import Authenticator
from server.config.errors import ConfigError
from server.config.options import Options, start_problem
from server.config.ports_file import write_ports_file
from server.config.reload import has_other_users, reload_lines
from server.net.tls import context_of
from server.protocol import reasons
from server.protocol.reasons import CloseReason
from server.surroundings import Surroundings

log = structlog.get_logger("server")

CLOSE_INTERVAL_MAX_S: Final = 1.0
"""A lame duck with few clients closes one a second at least."""


class Operation:
    """See the module's docstring."""

    def __init__(self, server: Server, around: Surroundings) -> None:
        self.server = server
        self.around = around
        self.is_lame_duck = False
        self.ports_file: Path | None = None
        self._accounts = AccountReload(server)
        server.reload = self.reload

    # -- files ------------------------------------------------------------------------------------------------------

    def write_ports(self) -> None:
        """The ports file, if one is wanted. Raises ``OSError``."""
        directory = self.server.options.ports_file_dir
        self.ports_file = write_ports_file(directory, listeners(self.server)) if directory else None

    def remove_ports(self) -> None:
        """The ports file goes with a graceful end."""
        if self.ports_file is not None:
            self.ports_file.unlink(missing_ok=True)
            self.ports_file = None

    def reopen_log(self) -> None:
        """After somebody moved the log file away."""
        self.around.reopen_log()
        log.info("File log re-opened")

    # -- reload -----------------------------------------------------------------------------------------------------

    def reload(self) -> str:
        """Read the configuration again and put it in force, all or nothing; "" or why everything is as it was."""
        try:
            self._reload()
        except (ConfigError, OSError, ValueError) as error:
            text = str(error).rstrip()
            log.error(f"Failed to reload server configuration: {text}")
            return text
        return ""

    def _reload(self) -> None:
        server, old = self.server, self.server.options
        if not old.config_file:
            raise ConfigError(NO_FILE)
        new = self.around.load()
        problem = start_problem(new)
        if problem:
            raise ConfigError(problem)
        lines = reload_lines(old, new)
        self._check_journal(new)
        problem = accounts_problem(server, old, new)
        if problem:
            raise ConfigError(problem)
        users = authenticator(new)
        if new.tls is not None:
            context_of(new.tls)
        if new.pid_file and new.pid_file != old.pid_file:
            self.around.write_pid(new.pid_file)
        self.around.apply_log(new)
        # Nothing below can fail.
        server.options = new
        for warning in new.warnings:
            log.warning(warning)
        for line in lines:
            log.info(line)
        self._apply_limits(old, new)
        if has_other_users(old, new):
            self._accounts.apply(old, new)
            self._apply_users(users)
        self._apply_tls(old, new)
        self._apply_info(new)
        if new.ports_file_dir != old.ports_file_dir:
            self.remove_ports()
            try:
                self.write_ports()
            except OSError as error:
                log.error(f"Error writing ports file: {error}")
        server.config_loaded_ns = server.world.clock.wall_ns()
        if server.monitor is not None:
            server.monitor.source = server.monitor_source()
        server.system.reloaded()
        log.info(f"Reloaded server configuration ({new.config_digest})")

    def _check_journal(self, new: Options) -> None:
        """The journal's files were made for the largest message there could be."""
        room = self.server.world.limits.journal_file_bytes
        if self.server.node is not None and new.limits().journal_file_bytes > room:
            raise ConfigError(
                f"config reload not supported for MaxPayload: new={new.max_payload_bytes} needs larger journal files"
            )

    def _apply_limits(self, old: Options, new: Options) -> None:
        clients = self.server.clients
        wanted = net_options(new, clients.options.write_pause_bytes)
        # In place: open connections look here, too.
        for each in fields(wanted.protocol):
            if each.name != "auth_required":
                setattr(clients.options.protocol, each.name, getattr(wanted.protocol, each.name))
        for each in fields(wanted):
            if each.name != "protocol":
                setattr(clients.options, each.name, getattr(wanted, each.name))
        for account in clients.accounts:
            account.router.drops_when_congested = new.no_fast_producer_stall
        open_ones = list(clients.connections.values())
        for connection in open_ones:
            connection.limit_payload()
        if (old.ping_interval_ns, old.ping_max) != (new.ping_interval_ns, new.ping_max):
            for connection in open_ones:
                if connection.protocol is not None:
                    connection.protocol.keepalive.interval_s = new.ping_interval_ns / 1e9
                    connection.protocol.keepalive.max_unanswered = new.ping_max
        for connection in open_ones[new.max_connections :]:
            connection.close(CloseReason.MAXIMUM_CONNECTIONS_EXCEEDED, reasons.MAXIMUM_CONNECTIONS_EXCEEDED)

    def _apply_users(self, users: Authenticator) -> None:
        clients = self.server.clients
        clients.authenticator = users
        clients.options.protocol.auth_required = users.is_required
        clients.info.auth_required = users.is_shown
        for connection in list(clients.connections.values()):
            connection.authorize_again()
        for account in clients.accounts:
            if account.is_overfull:
                inside = [each for each in clients.connections.values() if each.is_in(account)]
                for connection in inside[account.max_connections :]:
                    connection.close(
                        CloseReason.MAXIMUM_ACCOUNT_CONNECTIONS_EXCEEDED, reasons.MAXIMUM_ACCOUNT_CONNECTIONS_EXCEEDED
                    )

    def _apply_tls(self, old: Options, new: Options) -> None:
        """Certificates are read again even where nothing else changed: they are renewed under the same names."""
        clients, info = self.server.clients, self.server.info
        if new.tls is None and old.tls is None:
            return
        before = (info.tls_required, info.tls_available, info.tls_verify)
        try:
            clients.use_tls(new.tls, is_optional=new.allow_non_tls)
            self.server.renew_monitor_certificate(new)
        except OSError as error:  # it was all right a moment ago
            log.error(f"TLS stays as it was: {error}")
        if (info.tls_required, info.tls_available, info.tls_verify) != before:
            clients.broadcast_info()

    def _apply_info(self, new: Options) -> None:
        server, info = self.server, self.server.info
        host, port = advertised_address(new, server.port)
        wanted = (host, port, new.max_payload_bytes, new.cluster_name)
        if (info.host, info.port, info.max_payload, info.cluster) != wanted:
            info.host, info.port, info.max_payload, info.cluster = wanted
            server.clients.broadcast_info()

    # -- lame duck --------------------------------------------------------------------------------------------------

    async def lame_duck(self, rng: Random) -> None:
        """Take no more clients, lead nothing, send the clients away one by one; returns when none is left."""
        self.is_lame_duck = True
        server, clients = self.server, self.server.clients
        log.info("Entering lame duck mode, stop accepting new clients")
        clients.stop_listening()
        server.events.lame_duck()
        node = server.node
        if node is not None and node.cluster is not None and node.cluster.links.connected():
            await hand_over([node.meta, *node.streams.values()], server.world.loop)
        clients.enter_lame_duck()
        if not clients.connections:
            return
        grace_s = server.options.lame_duck_grace_ns / 1e9
        await asyncio.sleep(grace_s)
        remaining = list(clients.connections.values())
        if remaining:
            log.info("Closing existing clients")
        # Spread, so that they do not all come to the next server at once.
        interval_s = (server.options.lame_duck_duration_ns / 1e9 - grace_s) / max(len(remaining), 1)
        interval_s = min(interval_s, CLOSE_INTERVAL_MAX_S)
        for connection in remaining:
            if not connection.is_closed:
                connection.close(CloseReason.SERVER_SHUTDOWN)
                await asyncio.sleep(interval_s * rng.uniform(0.5, 1.0))


def listeners(server: Server) -> dict[str, list[str]]:
    """URLs of what the server listens on, by kind."""
    options = server.options
    found = {"nats": [f"nats://{options.host}:{server.port}"]}
    if server.http_port:
        scheme = "https" if options.https_port else "http"
        found["monitoring"] = [f"{scheme}://{options.http_host or options.host}:{server.http_port}"]
    if server.websocket_port:
        given = options.websocket
        found["websocket"] = [f"{'ws' if given.no_tls else 'wss'}://{given.host}:{server.websocket_port}"]
    if server.node is not None and server.node.cluster is not None:
        found["cluster"] = [f"nats://{options.cluster.host}:{server.node.cluster.port}"]
    return found
