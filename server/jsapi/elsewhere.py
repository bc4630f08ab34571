"""API requests that another node of the cluster answers, and what its answers need of other nodes.

Who leads the metadata answers what is about streams as such, who leads a stream everything about it and its
consumers. A request that a client sends anywhere is passed on there, with its reply subject: the answer goes to the
client straight from where it is made. While nobody leads, or nobody who does can be reached, it is answered where it
is, with 10008.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from jetstore.errors import ApiError, JetstoreError
from jetstore.model.api_errors import api_error
from jetstore.model.consumer import ConsumerConfig
from jetstore.model.json import encode
from jetstore.node.link.ports import NodeLinks, RequestRefused
from jetstore.node.ports import Inbound
from jetstore.node.whereabouts import HOPS_MAX, Whereabouts
from server.jsapi.request import JsonDict
from server.jsapi.table import PREFIX, SYSTEM_TABLE, find_endpoint

ABOUT_STREAMS: Final = frozenset(
    [
        *("INFO", "STREAM.CREATE", "STREAM.UPDATE", "STREAM.DELETE", "STREAM.NAMES", "STREAM.LIST"),
        *("STREAM.RESTORE", "STREAM.PEER.REMOVE", "STREAM.PEER.EVACUATE", "STREAM.CANCEL_MOVE"),
    ]
)
"""What is for who leads the metadata."""
METHOD: Final = "jsapi.stream"
ASK_WAIT_S: Final = 2.0
ASKED_AT_ONCE_MAX: Final = 512
_DIRECT: Final = (PREFIX + "DIRECT.GET.").encode()

PassOn = Callable[[str, Inbound, int], bool]
"""Send requests to the API of a node, with how many nodes have passed them on; False: there is no way there."""


class Elsewhere:
    """Where requests are answered. One for all accounts of a server."""

    def __init__(self, where: Whereabouts, links: NodeLinks, leading: Callable[[JsonDict], Awaitable[Any]]) -> None:
        """``leading`` answers what is asked of a stream that is led here. Any: a JSON value."""
        self._where = where
        self._links = links
        self._leading = leading
        links.register(METHOD, self._answer, concurrent_max=ASKED_AT_ONCE_MAX)

    def place(self, subject: bytes, *, is_system: bool = False) -> str:
        """The node that answers a request on this subject; "" = this one."""
        if subject.startswith(_DIRECT):
            return self._where.of_stream(subject[len(_DIRECT) :].decode("utf-8", "replace").partition(".")[0])
        found = find_endpoint(subject.decode("utf-8", "replace"), is_system=is_system)
        if found is None:
            return ""
        endpoint, names = found
        if is_system and endpoint not in SYSTEM_TABLE:
            return ""
        if is_system or not names or endpoint.words in ABOUT_STREAMS:
            return self._where.of_meta()
        return self._where.of_stream(names[0])

    def pass_on(self, batch: Inbound, hops: int, send: PassOn, *, is_system: bool = False) -> Inbound | None:
        """Send away what others answer; what is left to be answered here, if anything is."""
        if hops >= HOPS_MAX:
            return batch
        places = [self.place(subject, is_system=is_system) for subject in batch.subjects]
        if not any(places):
            return batch
        here = [at for at, place in enumerate(places) if not place]
        for place in dict.fromkeys(places):
            if place:
                positions = [at for at, other in enumerate(places) if other == place]
                if not send(place, _pick(batch, positions), hops + 1):
                    here += positions
        return _pick(batch, sorted(here)) if here else None

    # -- infos ------------------------------------------------------------------------------------------------------

    async def stream_info(self, name: str, *, is_dynamic: bool, version: int = 0) -> JsonDict:
        """Of a stream that another node leads, with this version of its configuration or a later one.

        Raises ``ApiError``: 10008 if it cannot be had.
        """
        info: JsonDict = await self._ask({"stream": name, "is_dynamic": is_dynamic, "version": version, "hops": 0})
        return info

    async def consumer_configs(self, name: str) -> list[ConsumerConfig]:
        """Of all consumers of a stream that another node leads. Raises ``ApiError``."""
        configs = await self._ask({"stream": name, "consumers": True, "hops": 0})
        return [ConsumerConfig.from_json(config) for config in configs]

    async def _ask(self, asked: JsonDict) -> Any:  # Any: a JSON value
        node_id = self._where.of_stream(asked["stream"])
        if not node_id or asked["hops"] >= HOPS_MAX:
            raise api_error("JSClusterNotAvailErr")
        payload = encode({**asked, "hops": asked["hops"] + 1})
        try:
            async with asyncio.timeout(ASK_WAIT_S):
                return json.loads(await self._links.request(node_id, METHOD, payload))
        except RequestRefused as refusal:
            what = "JSStreamNotFoundErr" if refusal.code == 10059 else "JSClusterNotAvailErr"
            raise api_error(what) from None
        except (JetstoreError, TimeoutError):
            raise api_error("JSClusterNotAvailErr") from None

    async def _answer(self, _node_id: str, payload: bytes) -> bytes:
        asked = json.loads(payload)
        try:
            if self._where.of_stream(asked["stream"]):
                return encode(await self._ask(asked))
            return encode(await self._leading(asked))
        except ApiError as error:
            raise RequestRefused(error.err_code, error.description) from None


def _pick(batch: Inbound, positions: Sequence[int]) -> Inbound:
    return Inbound(
        [batch.subjects[at] for at in positions],
        [batch.replies[at] for at in positions],
        [batch.header_lens[at] for at in positions] if batch.header_lens else (),
        [batch.payloads[at] for at in positions],
        batch.account,
        batch.client,
    )
