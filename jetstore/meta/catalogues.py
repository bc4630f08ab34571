"""The streams that exist, account by account, as the checks of new ones want them."""

from __future__ import annotations

from typing import Final

from jetstore.meta.stream_key import GLOBAL_ACCOUNT, account_of, name_of
from jetstore.model.catalogue import Catalogue, Fields, Reserved
from jetstore.model.stream import StorageType

_NONE: Final = Catalogue()


class Catalogues:
    """Follows ``MetaState.streams``, key by key."""

    def __init__(self) -> None:
        self._by_account: dict[str, Catalogue] = {}
        self._with_plain: dict[str, Catalogue] = {}
        """Of accounts that streams with plain keys belong to as well: theirs and those, by account."""
        self._all = Reserved()

    def put(self, key: str, fields: Fields) -> None:
        """A stream is there, or has another configuration."""
        account, name = account_of(key), name_of(key)
        own = self._by_account.get(account)
        if own is None:
            own = self._by_account[account] = Catalogue()
        before = own.fields(name)
        if before is fields:
            return
        if before is not None:
            self._all.add(before, -1)
        self._all.add(fields, 1)
        own.put(name, fields)
        self._join(account, name)

    def drop(self, key: str) -> None:
        """A stream is gone."""
        account, name = account_of(key), name_of(key)
        own = self._by_account[account]
        before = own.fields(name)
        assert before is not None
        self._all.add(before, -1)
        own.drop(name)
        if not own:
            del self._by_account[account]
        self._join(account, name)

    def of(self, account: str, *, with_plain: bool = False) -> Catalogue:
        """An account's streams as they are now. ``with_plain``: those with plain keys are its, too, and go before."""
        if not with_plain or account == GLOBAL_ACCOUNT:
            return self._by_account.get(account, _NONE)
        joined = self._with_plain.get(account)
        if joined is None:
            joined = self._with_plain[account] = Catalogue()
            for part in (account, GLOBAL_ACCOUNT):
                for name in self._by_account.get(part, _NONE):
                    self._join(part, name)
        return joined

    def _join(self, changed: str, name: str) -> None:
        for account, joined in self._with_plain.items():
            if changed not in (account, GLOBAL_ACCOUNT):
                continue
            found = [self._by_account.get(part, _NONE).fields(name) for part in (GLOBAL_ACCOUNT, account)]
            fields = next((each for each in found if each is not None), None)
            if fields is not None:
                joined.put(name, fields)
            elif name in joined:
                joined.drop(name)

    def reserved_elsewhere(self, storage: StorageType, account: str, *, with_plain: bool = False) -> int:
        """Bytes that streams of other accounts have set aside in this storage."""
        own = {account, GLOBAL_ACCOUNT} if with_plain else {account}
        return self._all.bytes(storage) - sum(self._by_account.get(each, _NONE).reserved(storage) for each in own)
