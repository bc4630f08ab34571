"""The API table: for each subject its handler, response type, and the fields an error reply carries besides it.

A subject is ``$JS.API.`` + words + names. Endpoints are found by their words, longest first. What is not in the table
gets no reply at all, not even a 503, as in nats-server; pull requests (``CONSUMER.MSG.NEXT``) are answered by the
delivery code.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from jetstore.model.api_errors import api_error
from jetstore.model.infos import account_info_json
from jetstore.model.times import ZERO_TIME
from server.jsapi import backup, clustering, consumers, messages, streams
from server.jsapi.request import Backend, JsonDict, Request

PREFIX: Final = "$JS.API."
Handler = Callable[[Backend, Request], Awaitable[JsonDict | None]]
ANY: Final = 1_000


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One row."""

    words: str
    response: str
    """Response type without ``io.nats.jetstream.api.v1.`` and ``_response``."""
    handler: Handler
    names_min: int
    names_max: int
    on_error: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON values
    """What stands beside ``error``."""
    audits_success: bool = True
    """Also: counts it."""
    is_tracked: bool = True
    """It is a request to the API; else a consumer answers, and nobody counts or audits it."""
    confirms: bool = False
    """Its answer is of after a moment in which this node was sure to lead the stream: a run of them needs one such."""


async def _account_info(backend: Backend, _request: Request) -> JsonDict:
    return account_info_json(backend.node.account_info(), backend.api_stats(), backend.domain)


async def _not_enabled(_backend: Backend, _request: Request) -> JsonDict:
    raise api_error("JSNotEnabledForAccountErr")


async def _needs_cluster(_backend: Backend, _request: Request) -> JsonDict:
    raise api_error("JSClusterRequiredErr")


_PAGING: Final = {"total": 0, "offset": 0, "limit": 0}

TABLE: Final[tuple[Endpoint, ...]] = (
    Endpoint("INFO", "account_info", _account_info, 0, 0),
    Endpoint("STREAM.CREATE", "stream_create", streams.create_stream, 1, 1),
    Endpoint("STREAM.UPDATE", "stream_update", streams.update_stream, 1, 1),
    Endpoint("STREAM.NAMES", "stream_names", streams.stream_names, 0, 0, {**_PAGING, "streams": None}),
    Endpoint("STREAM.LIST", "stream_list", streams.list_streams, 0, 0, {**_PAGING, "streams": []}),
    Endpoint("STREAM.INFO", "stream_info", streams.stream_info, 1, 1, _PAGING),
    Endpoint("STREAM.DELETE", "stream_delete", streams.delete_stream, 1, 1),
    Endpoint("STREAM.PURGE", "stream_purge", streams.purge_stream, 1, 1, {"purged": 0}),
    Endpoint("STREAM.MSG.GET", "stream_msg_get", messages.get_message, 1, 1, audits_success=False, confirms=True),
    Endpoint("STREAM.MSG.DELETE", "stream_msg_delete", messages.delete_message, 1, 1),
    Endpoint("STREAM.SNAPSHOT", "stream_snapshot", backup.snapshot_stream, 1, 1),
    Endpoint("STREAM.RESTORE", "stream_restore", backup.restore_stream, 1, 1, {"deliver_subject": ""}),
    Endpoint("STREAM.LEADER.STEPDOWN", "stream_leader_stepdown", clustering.step_down_stream, 1, 1),
    Endpoint("STREAM.PEER.REMOVE", "stream_remove_peer", clustering.remove_peer, 1, 1),
    Endpoint("STREAM.PEER.EVACUATE", "stream_evacuate_peer", clustering.remove_peer, 1, 1),
    Endpoint("STREAM.CANCEL_MOVE", "stream_cancel_move", _needs_cluster, 1, 1),
    Endpoint("CONSUMER.CREATE", "consumer_create", consumers.create_consumer, 1, ANY),
    Endpoint("CONSUMER.DURABLE.CREATE", "consumer_create", consumers.create_durable, 2, 2),
    Endpoint("CONSUMER.NAMES", "consumer_names", consumers.consumer_names, 1, 1, {**_PAGING, "consumers": []}),
    Endpoint("CONSUMER.LIST", "consumer_list", consumers.list_consumers, 1, 1, {**_PAGING, "consumers": []}),
    Endpoint("CONSUMER.INFO", "consumer_info", consumers.consumer_info, 2, 2),
    Endpoint("CONSUMER.DELETE", "consumer_delete", consumers.delete_consumer, 2, 2),
    Endpoint(
        "CONSUMER.PAUSE", "consumer_pause", consumers.pause_consumer, 2, 2, {"paused": False, "pause_until": ZERO_TIME}
    ),
    Endpoint("CONSUMER.RESET", "consumer_reset", consumers.reset_consumer, 2, 2, {"reset_seq": 0}, is_tracked=False),
    Endpoint("CONSUMER.UNPIN", "consumer_unpin", consumers.unpin_consumer, 2, 2),
    Endpoint("CONSUMER.LEADER.STEPDOWN", "consumer_leader_stepdown", clustering.step_down_consumer, 2, 2),
    Endpoint("CONSUMER.PEER.REMOVE", "consumer_remove_peer", _needs_cluster, 2, 2),
    Endpoint("CONSUMER.PEER.EVACUATE", "consumer_evacuate_peer", _needs_cluster, 2, 2),
)

SYSTEM_TABLE: Final[tuple[Endpoint, ...]] = (
    Endpoint("META.LEADER.STEPDOWN", "meta_leader_stepdown", clustering.step_down_meta, 0, 0),
    Endpoint("SERVER.REMOVE", "meta_server_remove", clustering.remove_server, 0, 0),
    Endpoint("ACCOUNT.PURGE", "account_purge", clustering.purge_account, 1, 1),
)
"""What is done in the system account, and nowhere else: by who leads the metadata."""
_SYSTEM_REFUSED: Final = (
    Endpoint("INFO", "account_info", _not_enabled, 0, 0),
    *(Endpoint(word, "system", _not_enabled, 0, ANY) for word in ("STREAM", "CONSUMER", "DIRECT")),
)
_OF_CLUSTERS: Final = frozenset(
    (
        *(_needs_cluster, clustering.step_down_stream, clustering.step_down_consumer, clustering.remove_peer),
        *(clustering.step_down_meta, clustering.remove_server),
    )
)

_BY_WORDS: Final = {tuple(endpoint.words.split(".")): endpoint for endpoint in TABLE}
_SYSTEM_BY_WORDS: Final = {tuple(endpoint.words.split(".")): endpoint for endpoint in (*SYSTEM_TABLE, *_SYSTEM_REFUSED)}
_WORDS_MAX: Final = max(len(words) for words in _BY_WORDS)

SUBSCRIBED: Final[tuple[str, ...]] = (
    "$JS.API.INFO",
    "$JS.API.STREAM.>",
    *(f"$JS.API.CONSUMER.{word}.>" for word in ("CREATE", "DURABLE", "NAMES", "LIST", "INFO", "DELETE", "PAUSE")),
    *(f"$JS.API.CONSUMER.{word}.>" for word in ("RESET", "UNPIN", "LEADER", "PEER")),
)
"""Patterns that the handler listens to. Not ``$JS.API.>``: pull requests have their own, hotter way."""

SYSTEM_SUBSCRIBED: Final[tuple[str, ...]] = tuple(
    PREFIX + endpoint.words + {0: "", 1: ".*", ANY: ".>"}[endpoint.names_max]
    for endpoint in (*SYSTEM_TABLE, *_SYSTEM_REFUSED)
)
"""The same of the system account."""

DIRECT_PATTERN: Final = "$JS.API.DIRECT.GET.>"

ANSWERED: Final[tuple[str, ...]] = (*SUBSCRIBED, DIRECT_PATTERN, *SYSTEM_SUBSCRIBED)
"""All patterns that a node's own handlers listen to."""


_UNHEARD: Final = (b"$JS.API.CONSUMER.MSG.NEXT.", b"$JS.API.DIRECT.GET")
_API: Final = PREFIX.encode()


def is_never_answered(subject: bytes) -> bool:
    """Whether it is a request to the API, but no pull and no direct get: where nobody takes those, there is a 503."""
    return subject.startswith(_API) and not subject.startswith(_UNHEARD)


def needs_cluster(endpoint: Endpoint) -> bool:
    """Whether it is refused on a lone server before anything else is looked at."""
    return endpoint.handler in _OF_CLUSTERS


def find_endpoint(subject: str, *, is_system: bool = False) -> tuple[Endpoint, tuple[str, ...]] | None:
    """The row for an API subject and the names in it; None if nobody answers it."""
    by_words = _SYSTEM_BY_WORDS if is_system else _BY_WORDS
    tokens = tuple(subject[len(PREFIX) :].split("."))
    for count in range(min(_WORDS_MAX, len(tokens)), 0, -1):
        endpoint = by_words.get(tokens[:count])
        if endpoint is not None:
            names = tokens[count:]
            return (endpoint, names) if endpoint.names_min <= len(names) <= endpoint.names_max else None
    return None
