"""Puts other accounts in force in a running server: who there is, what they share, who has JetStream.

``accounts_problem`` says beforehand what needs a restart; after that nothing here can fail. Accounts that did not
change are not touched. Streams of an account that loses JetStream keep its router, to which nobody is connected then
(as at a start without it), and the account gets another; when it has JetStream again, its connections go to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jetstore.meta.stream_key import GLOBAL_ACCOUNT, account_of
from jetstore.model.stream import StorageType
from jetstore.node.streams_api import StreamsApi
from server.app import Server, room_limits
from server.config.options import Options
from server.net.accounts import all_accounts
from server.protocol.reasons import CloseReason

if TYPE_CHECKING:
    from server.jsapi.handler import ApiHandler
    from server.route.router import Router


def names_of(options: Options) -> list[str]:
    """All accounts of a configuration."""
    return [each.name for each in all_accounts(options.accounts, options.mappings, options.system_name)]


def accounts_problem(server: Server, old: Options, new: Options) -> str:
    """Which change of accounts this server cannot make while it runs; "" if it can make all of them."""
    before, after = set(names_of(old)), set(names_of(new))
    with_before, with_after = set(old.jetstream_accounts), set(new.jetstream_accounts)
    if server.cluster is not None:
        changed = sorted((before ^ after) | (with_before ^ with_after))
        if changed:
            what = "accounts" if changed[0] in before ^ after else "JetStream of accounts"
            return f'config reload not supported for account "{changed[0]}": {what} of a cluster cannot come or go'
        return ""
    owner, before_it = _plain_owner(new), _plain_owner(old)
    keys = server.node.meta.machine.streams if server.node is not None and owner != before_it else {}
    if any(account_of(key) == GLOBAL_ACCOUNT for key in keys):
        return f'config reload not supported for account "{owner}": it would get streams of account "{before_it}"'
    return ""


def _plain_owner(options: Options) -> str:
    """Whose streams with plain keys are: the only account with JetStream has them, else the global one."""
    names = list(options.jetstream_accounts)
    return names[0] if len(names) == 1 else GLOBAL_ACCOUNT


class AccountReload:
    """See the module's docstring. One per server: it remembers what is still ending."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._leaving: list[ApiHandler] = []
        """APIs that take nothing any more and have requests under way."""

    def apply(self, old: Options, new: Options) -> None:
        """Nothing of it can fail; ``accounts_problem`` was asked. ``server.options`` are the new ones."""
        server = self._server
        before, after = names_of(old), names_of(new)
        for name in (each for each in before if each not in after):
            self._drop(name)
        for options in all_accounts(new.accounts, new.mappings, new.system_name):
            if options.name not in before:
                router = self._adopted(options.name, new) or server.new_router(options.name)
                server.prepare(router)
                account = server.accounts.put(options, router, new.jetstream.domain if server.node is not None else "")
                server.system.add(router)
                server.events.add(account)
        if server.node is not None:
            for name in after:
                self._change_router(name, new)
        server.accounts.change(new.accounts, new.mappings, new.system_name)
        if server.node is not None:
            self._change_jetstream(new)

    def _drop(self, name: str) -> None:
        """An account is gone: so are its connections, without a word, as from a nats-server."""
        server = self._server
        for connection in list(server.clients.connections.values()):
            if connection.account.name == name:
                connection.close(CloseReason.CLIENT_CLOSED)
        account = server.accounts.drop(name)
        server.system.remove(account.router)
        self._end_api(name)
        if server.peers is None and self._has_streams(account.router):
            server.outcasts[name] = account.router

    def _has_streams(self, router: Router) -> bool:
        node = self._server.node
        return node is not None and any(group.outlet is router for group in node.streams.values())

    def _adopted(self, name: str, new: Options) -> Router | None:
        """The router that streams of this account have, if there is one and the account has JetStream."""
        if name not in new.jetstream_accounts:
            return None
        router = self._server.outcasts.pop(name, None)
        if router is not None:
            router.mappings = None
        return router

    def _change_router(self, name: str, new: Options) -> None:
        """Connections of an account are where its streams are if it has JetStream, and nowhere near them if not."""
        server = self._server
        account = server.accounts[name]
        if account.is_system:
            return
        home: Router = account.router
        had, has = name in server.jetstreams, name in new.jetstream_accounts
        if had and not has:
            to = server.new_router(name)
            server.outcasts[name] = home
            home.has_jetstream = False
        elif has and not had and name in server.outcasts:
            to = server.outcasts.pop(name)
        else:
            return
        self._end_api(name)
        server.prepare(to)
        server.system.remove(home)
        account.move(to)
        server.system.add(to)
        if name == GLOBAL_ACCOUNT:
            server.router = server.clients.router = to
        for connection in server.clients.connections.values():
            if connection.account is account:
                connection.router = to

    def _change_jetstream(self, new: Options) -> None:
        server = self._server
        assert server.node is not None
        wanted = new.jetstream_accounts
        is_only = len(wanted) == 1
        nobodys = server.jetstreams.pop(new.system_name, None)
        if nobodys is not None:  # no account had it at the start
            nobodys[1].leave()
            server.accounts[new.system_name].router.has_jetstream = False
        for account in list(server.accounts):
            name = account.name
            if account.is_system:
                continue
            if name in wanted and name not in server.jetstreams:
                self._end_api(name)
                server.add_jetstream(name, wanted[name]).start()
            elif name not in wanted and name not in server.refusals:
                self._end_api(name)
                server.refuse_jetstream(name).start()
        for name, limits in wanted.items():
            server.jetstreams[name][0].limit(limits, is_only=is_only)
        if wanted:
            server.streams, server.api = server.jetstreams[new.jetstream_account[0]]
        else:
            server.streams = StreamsApi(server.node, server.world.server_limits, None, new.system_name)
        if server.node.rooms is not None:
            streams = server.node.meta.machine.streams
            server.node.rooms.change(
                room_limits(new), lambda key: streams[key].config.get("storage") == StorageType.MEMORY.value
            )
        self._leaving = [api for api in self._leaving if not api.is_idle]

    def _end_api(self, name: str) -> None:
        """Nobody answers requests of the API there, until somebody else does."""
        found = self._server.jetstreams.pop(name, None)
        for api in (found[1] if found is not None else None, self._server.refusals.pop(name, None)):
            if api is not None:
                api.leave()
                self._leaving.append(api)
