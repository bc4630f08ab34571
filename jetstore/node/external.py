"""Origins in other accounts of this server: what nats-server would reach by messages, found by the same permissions.

A mirror or source with ``external`` sends its requests to the API under a prefix of its own account's, and hears the
messages under another. Here nothing is sent: the origin is whatever stream that request would come to through the
account's imports, provided that what it delivered would be heard, too; then its applied state is read like that of a
stream of the same account, with the same promises. Permission is asked each time, so what is taken away ends copying.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jetstore.errors import ApiError
from jetstore.model.api_errors import api_error
from jetstore.model.source_checks import API_PREFIX
from jetstore.model.stream import StreamSource
from jetstore.node.sourced_consumers import deliver_subject, sourced_consumer_name

if TYPE_CHECKING:
    from jetstore.node.stream_group import StreamGroup

Found = tuple["StreamGroup | None", "ApiError | None"]


class ExternalOrigin:
    """The way from one mirror or source to its origin."""

    def __init__(self, copy: StreamGroup, key: str, source: StreamSource) -> None:
        """``source`` has ``external``."""
        assert source.external is not None
        self._copy = copy
        self._source = source
        own = source.consumer
        self._consumer = own.name if own is not None else sourced_consumer_name(copy.uid, key)
        delivered = own.deliver_subject if own is not None else deliver_subject(copy.uid, key, source.external.deliver)
        self._delivered = delivered.encode()
        transforms = source.subject_transforms
        pattern = transforms[0].src if len(transforms) == 1 else source.filter_subject
        narrowed = f".{self._consumer}.{pattern}" if pattern not in ("", ">") else ""
        self._request = f".CONSUMER.CREATE.{source.name}{narrowed}"
        if own is not None:
            self._request = f".CONSUMER.RESET.{source.name}.{own.name}"
        self.is_silent = False
        """It would take our requests, and nothing that it delivered would come here: there may be no copying."""

    def find(self) -> Found:
        """The origin, or what is wrong with it; neither: nobody answers."""
        self.is_silent = False
        external, name = self._source.external, self._source.name
        assert external is not None
        if not external.api:
            return None, None
        place = self._copy.outlet.destination((external.api + self._request).encode())
        if place is None or not place[0].has_interest(place[1]):
            return None, None
        outlet, subject = place
        if not outlet.has_jetstream:
            return None, api_error("JSNotEnabledForAccountErr")
        if subject != (API_PREFIX + self._request).encode():
            return None, api_error("JSStreamMismatchErr")
        origin = self._copy.find_at(outlet, name)
        if origin is None:
            return None, api_error("JSStreamNotFoundErr")
        self.is_silent = not self._copy.outlet.hears(self._delivered, outlet)
        return origin, None

    def may_settle(self, origin: StreamGroup) -> bool:
        """Whether the origin may be told what is durable here: it hears of that on the subject of its flow control."""
        subject = f"$JS.FC.{self._source.name}.{self._consumer}.1".encode()
        outlet = self._copy.outlet
        place = outlet.destination(subject)
        return place is not None and place == (origin.outlet, subject)
