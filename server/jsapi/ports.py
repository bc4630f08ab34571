"""The engine as the ``$JS.API`` table sees it.

Everything refused is an ``ApiError`` (``jetstore.model.api_errors.api_error``); ``NotNow`` and ``DiskFull`` may be
raised by any method and are answered as "temporarily unavailable" / "insufficient resources". A method that changes
something returns only when the change is durable.

Who checks what: the table decodes requests, compares names in subject and body, and calls
``stream_checks.checked_stream`` before ``create_stream``/``update_stream``, so configurations arrive here with their
defaults set and valid in themselves. What depends on *other* assets or on the current state is the node's, inside its
serialised path, by calling ``stream_checks.admit_create`` / ``admit_update`` and ``consumer_checks.checked_consumer`` /
``admit_consumer`` / ``check_reset``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from jetstore.model.consumer import ConsumerAction, ConsumerConfig
from jetstore.model.infos import AccountInfo, ConsumerInfo, PauseState, StreamInfo, StreamState
from jetstore.model.requests import MessageGet, PurgeRequest, StreamInfoRequest
from jetstore.model.stream import Placement, StreamConfig
from jetstore.node.backup.snapshot import SnapshotRequest
from jetstore.store.ports import Message


class ClusterOperations(Protocol):
    """What only a node of a cluster can be asked; 10008 by those that do not lead what it is about."""

    async def step_down_stream(self, stream: str, placement: Placement | None) -> None:
        """Have another member lead; returns when it does. 10005 if there is none as asked for."""

    async def step_down_consumer(self, stream: str, consumer: str, placement: Placement | None) -> None:
        """The same of a consumer."""

    async def step_down_meta(self, placement: Placement | None) -> None:
        """The same of the metadata."""

    async def remove_peer(self, stream: str, peer: str) -> None:
        """Move this server's copy to another. 10040: it has none; 10075: there is nowhere to move it."""

    async def remove_server(self, peer: str, peer_id_given: str = "") -> None:
        """Take a server, by name or by peer id, out of the cluster. 10044 no member, 10202 not now, 10041 unsafe."""


class StreamsElsewhere(Protocol):
    """Streams that other nodes lead."""

    async def stream_info(self, name: str, *, is_dynamic: bool, version: int = 0) -> dict[str, Any]:
        """A stream's info as JSON, from who leads it; 10008 if it cannot be had. ``is_dynamic``: as STREAM.CREATE's.

        ``version``: of its configuration, or a later one.
        """


class JetStreamNode(Protocol):
    """One account's JetStream. Names are plain ``str``; unknown ones raise 10059 (stream) or 10014 (consumer)."""

    @property
    def cluster(self) -> ClusterOperations | None:
        """None: a standalone server."""

    def account_info(self) -> AccountInfo:
        """Usage and limits now."""

    # -- streams --------------------------------------------------------------------------------------------------

    async def create_stream(self, config: StreamConfig) -> StreamInfo:
        """Create it; an identical existing one (``admit_create`` says so) is simply returned."""

    async def update_stream(self, config: StreamConfig, pedantic: bool) -> StreamInfo:
        """Replace the configuration; 10059 if there is no such stream; else as ``admit_update`` decides."""

    async def delete_stream(self, name: str) -> None:
        """Remove the stream, its consumers and its messages."""

    async def delete_streams(self) -> None:
        """Remove all of them. Those that come meanwhile may stay."""

    async def require_streams(self) -> None:
        """Return once ``stream_names`` has everything that was acknowledged before the call; 10008 if it may not."""

    def stream_names(self, subject: str = "") -> Sequence[str]:
        """All streams' names, sorted; of those only that have a subject that can meet this one, if one is given."""

    async def stream_info(self, name: str, request: StreamInfoRequest) -> StreamInfo:
        """Info after everything acknowledged before the call.

        ``deleted_details`` fills ``state.deleted``. A ``subjects_filter`` fills ``subjects_total`` and, in
        ``state.subjects``, the page of at most 100,000 from ``offset`` (sorted by subject).
        """

    async def require_stream(self, name: str) -> None:
        """Return once this node is known to lead it; 10059 unless there is such a stream, 10008 if that is not sure."""

    async def snapshot_stream(
        self, name: str, request: SnapshotRequest, client: dict[str, Any]
    ) -> tuple[StreamConfig, StreamState]:
        """Send the stream as an archive, from the loop's next turn on; its configuration and counters as of now.

        ``client`` is who asked, as advisories show it. 10064 if it cannot be; 10023: too many at once.
        """

    async def restore_stream(self, config: StreamConfig, client: dict[str, Any]) -> bytes:
        """The subject that takes an archive of a new stream, in chunks. 10130: the name is taken; 10023: too many."""

    async def purge_stream(self, name: str, request: PurgeRequest) -> int:
        """How many messages were removed. 10109 sealed, 10110 deny_purge."""

    async def confirm(self, name: str) -> bool:
        """Whether it is sure, in a moment after the call, that this node leads the stream."""

    async def get_message(self, name: str, request: MessageGet, *, is_confirmed: bool = False) -> Message:
        """The selected message; 10037 if there is none. ``is_confirmed``: ``confirm`` said so after the request."""

    async def delete_message(self, name: str, seq: int, no_erase: bool) -> None:
        """Remove one message; 10043 if it is not there; 10109 sealed; 10057 deny_delete."""

    # -- direct reads ---------------------------------------------------------------------------------------------

    def direct_reader(self, name: str) -> str:
        """Who answers direct gets of a stream: itself, if it has ``allow_direct``, a mirror of it, or "": nobody."""

    async def direct_get(self, name: str, request: MessageGet) -> Message:
        """The one selected message; 10037 if there is none."""

    async def direct_get_batch(self, name: str, request: MessageGet) -> tuple[Sequence[Message], int, int]:
        """``batch`` ≥ 1 or ``multi_last``: (messages in order, matched, up_to_seq); interior deletes skipped.

        ``matched`` counts the matching messages from the first one returned on, so message i leaves matched - i - 1.
        ``up_to_seq`` is the sequence up to which a ``multi_last`` answer is valid (else 0). 10037 if
        nothing matches; ApiError with code 413 if ``multi_last`` matches more than 1,024 subjects.
        """

    # -- consumers ------------------------------------------------------------------------------------------------

    async def create_consumer(
        self, stream: str, config: ConsumerConfig, action: ConsumerAction, pedantic: bool
    ) -> ConsumerInfo:
        """Create or update as ``action`` says. ``config`` is as requested (not defaulted) but always has a name;

        run ``consumer_checks.checked_consumer`` and ``admit_consumer`` on it inside the stream's serialised path.
        """

    def consumer_names(self, stream: str) -> Sequence[str]:
        """Names of the stream's consumers (``direct`` ones left out), sorted."""

    async def consumer_info(self, stream: str, consumer: str) -> ConsumerInfo:
        """Info after everything acknowledged before the call."""

    async def delete_consumer(self, stream: str, consumer: str) -> None:
        """Remove the consumer and its state."""

    async def pause_consumer(self, stream: str, consumer: str, pause_until_ns: int) -> PauseState:
        """Pause deliveries until then; 0 or a past time = resume."""

    async def unpin_consumer(self, stream: str, consumer: str, group: str) -> None:
        """Let somebody else of this priority group be pinned. ``consumer_checks.check_priority_group`` refuses."""

    async def reset_consumer(self, stream: str, consumer: str, seq: int) -> tuple[ConsumerInfo, int]:
        """Start again at ``seq`` (0 = just above the ack floor); the info and the sequence it starts from.

        10204 where ``consumer_checks.check_reset`` says so.
        """
