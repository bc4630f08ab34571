"""The API of an account without JetStream: every request that is one is answered with 10039."""

from __future__ import annotations

from typing import NoReturn, cast

from jetstore.model.api_errors import api_error
from server.jsapi.ports import JetStreamNode


class _WithoutJetStream:
    """A ``JetStreamNode`` that has nothing and takes nothing."""

    cluster = None

    def __getattr__(self, name: str) -> object:
        def refuse(*_args: object, **_kwargs: object) -> NoReturn:
            raise api_error("JSNotEnabledForAccountErr")

        return refuse


def without_jetstream() -> JetStreamNode:
    """What answers for an account that has no JetStream."""
    return cast(JetStreamNode, _WithoutJetStream())
