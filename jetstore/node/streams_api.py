"""What the ``$JS.API`` table asks of the engine (``server/jsapi/ports.py``), answered from one node's groups.

Every change goes the same way: checked under a lock against what exists, proposed, and answered after it is applied.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from jetstore.consumer.entries import encode_delete, encode_pause, encode_reset, encode_set
from jetstore.errors import ApiError, Corruption, LedElsewhere, NotNow, OutcomeUnknown
from jetstore.meta import state as meta_entries
from jetstore.meta.stream_key import GLOBAL_ACCOUNT, account_of, name_of, stream_key
from jetstore.model.api_errors import api_error
from jetstore.model.catalogue import Catalogue
from jetstore.model.consumer import ConsumerAction, ConsumerConfig
from jetstore.model.consumer_checks import (
    admit_consumer,
    check_priority_group,
    check_reset,
    checked_consumer,
)
from jetstore.model.infos import (
    AccountInfo,
    AccountLimits,
    ConsumerInfo,
    PauseState,
    StreamInfo,
    StreamState,
    tier_of,
)
from jetstore.model.requests import MessageGet, PurgeRequest, StreamInfoRequest
from jetstore.model.server_limits import ServerLimits
from jetstore.model.source_checks import follow_origin
from jetstore.model.stream import StorageType, StreamConfig
from jetstore.model.stream_checks import admit_create, admit_update
from jetstore.node.advisories import StreamAdvisories
from jetstore.node.backup.snapshot import SnapshotRequest
from jetstore.node.certainty import certain, confirm_leading, decided
from jetstore.node.cluster_api import ClusterApi
from jetstore.node.cluster_info import stream_cluster
from jetstore.node.node import Node
from jetstore.node.sourcing import direct_mirror
from jetstore.node.stream_group import StreamGroup
from jetstore.store.ports import Message
from jetstore.stream.entries import encode_delete as encode_delete_message
from jetstore.stream.entries import encode_purge

P = ParamSpec("P")
R = TypeVar("R")

_ROOM = (10027, 10028, 10047, 10113, 10122)
"""Codes of refusals for want of room: a restore is told them at once, and as they are."""


def _by_metadata(
    method: Callable[Concatenate[StreamsApi, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[StreamsApi, P], Coroutine[Any, Any, R]]:
    """What the metadata decides: refused as ``certain`` says."""

    @wraps(method)
    async def asked(self: StreamsApi, /, *args: P.args, **kwargs: P.kwargs) -> R:
        async with certain(self._node.meta):
            return await method(self, *args, **kwargs)

    return asked


class StreamsApi:
    """One account's streams and consumers."""

    def __init__(
        self,
        node: Node,
        server_limits: ServerLimits,
        account_limits: AccountLimits | None = None,
        account: str = GLOBAL_ACCOUNT,
        *,
        is_only: bool = False,
    ) -> None:
        """``server_limits``: what the operator allows, all accounts together; ``account``: whose streams these are.

        ``is_only``: no other account has JetStream, so streams with a plain key are this one's, too.
        """
        self._node = node
        self._account = account
        self._is_only = is_only
        self._all_limits = server_limits
        self._account_limits = account_limits or AccountLimits()
        self.consumers_elsewhere: Callable[[str], Awaitable[list[ConsumerConfig]]] | None = None
        """Asks who leads a stream for its consumers' configurations; None: there are no other nodes."""
        self.cluster = ClusterApi(node, node.cluster, self._found) if node.cluster is not None else None
        """What only a node of a cluster can be asked."""

    def limit(self, account_limits: AccountLimits | None, *, is_only: bool) -> None:
        """From now on these hold; what is there already stays."""
        self._account_limits = account_limits or AccountLimits()
        self._is_only = is_only

    # -- lookups ------------------------------------------------------------------------------------------------------

    def key(self, name: str) -> str:
        """What the metadata calls a stream, or would."""
        if self._is_only and name in self._node.meta.machine.streams:
            return name
        return stream_key(self._account, name)

    def _is_own(self, key: str) -> bool:
        account = account_of(key)
        return account == self._account or (self._is_only and account == GLOBAL_ACCOUNT)

    def _group(self, name: str) -> StreamGroup:
        key = self.key(name)
        group = self._node.streams.get(key)
        if group is None:
            meta = self._node.meta
            if key in self._node.lost or not meta.serves or key in meta.machine.streams:  # elsewhere it may exist
                raise api_error("JSClusterNotAvailErr")
            raise api_error("JSStreamNotFoundErr")
        if group.is_restoring:
            raise api_error("JSStreamNotFoundErr")
        return group

    async def _found(self, name: str) -> StreamGroup:
        """The same; that there is none is said only when it is sure that this node knows."""
        group = self._node.streams.get(self.key(name))
        if group is not None and not group.is_restoring:
            return group
        async with certain(self._node.meta):
            return self._group(name)

    def _is_restoring(self, name: str) -> bool:
        """Whether it is there, but nobody may see it."""
        assignment = self._node.meta.machine.streams.get(self.key(name))
        return assignment is not None and assignment.is_restoring

    @property
    def _own(self) -> Catalogue:
        """Desired configurations of the account's streams, lost ones included: their subjects stay taken."""
        return self._node.meta.machine.catalogues.of(self._account, with_plain=self._is_only)

    @property
    def _server_limits(self) -> ServerLimits:
        """What the operator allows, less what the streams of other accounts have reserved."""
        limits, catalogues = self._all_limits, self._node.meta.machine.catalogues
        memory, storage = (
            catalogues.reserved_elsewhere(each, self._account, with_plain=self._is_only)
            for each in (StorageType.MEMORY, StorageType.FILE)
        )
        return replace(
            limits,
            max_memory_bytes=limits.max_memory_bytes and max(limits.max_memory_bytes - memory, 1),
            max_storage_bytes=limits.max_storage_bytes and max(limits.max_storage_bytes - storage, 1),
        )

    def _require_meta(self) -> None:
        """Only who leads the metadata knows what exists now. Raises 10008 elsewhere."""
        if not self._node.meta.serves:
            raise api_error("JSClusterNotAvailErr")

    def account_info(self) -> AccountInfo:
        """Usage and limits now, as this node knows them."""
        limits = self._account_limits
        total = self._usage()
        if not limits.tiers:
            return total
        return replace(total, tiers={tier: self._usage(tier, limits.tiers[tier]) for tier in limits.tiers})

    def _usage(self, tier: str = "", limits: AccountLimits | None = None) -> AccountInfo:
        """Of the account's streams, or of those in one tier."""
        memory = storage = reserved_memory = reserved_storage = consumers = 0
        for group in self._node.streams.values():
            if not self._is_own(group.key):
                continue
            config = group.stream.config
            if config is None or (tier and tier != tier_of(config.num_replicas)):
                continue
            reserved = max(config.max_bytes, 0)
            if config.storage is StorageType.MEMORY:
                memory += group.stream.bytes
                reserved_memory += reserved
            else:
                storage += group.stream.bytes
                reserved_storage += reserved
            consumers += len(group.stream.consumers)
        return AccountInfo(
            memory=memory,
            storage=storage,
            reserved_memory=reserved_memory,
            reserved_storage=reserved_storage,
            streams=self._own.count(tier),
            consumers=consumers,
            limits=limits or self._account_limits,
        )

    # -- streams ------------------------------------------------------------------------------------------------------

    @_by_metadata
    async def create_stream(self, config: StreamConfig) -> StreamInfo:
        """Create it; an identical existing one is returned as it is."""
        node = self._node
        self._require_meta()
        async with node.meta_lock:
            if self._is_restoring(config.name):
                raise api_error("JSStreamNameExistErr")
            config = follow_origin(config, self._own)
            if not admit_create(config, self._own, self._account_limits, self._server_limits):
                return await self._existing(config.name)
            group = await self._add(config)
        group.advisories.tell("CREATED", "stream_action", action="create")
        with decided(f"{config.name} was created"):
            return self._shown(group, StreamInfoRequest())

    async def _existing(self, name: str) -> StreamInfo:
        await confirm_leading(self._node.meta)
        group = self._node.streams.get(self.key(name))
        if self._node.cluster is not None and (group is None or not group.serves):
            raise LedElsewhere(name)
        return await self.stream_info(name, StreamInfoRequest())

    async def _add(self, config: StreamConfig, *, is_restoring: bool = False) -> StreamGroup:
        """Create an admitted stream; holding ``meta_lock``."""
        node = self._node
        if len(node.meta.machine.streams) >= node.limits.streams_max:
            raise api_error("JSMaximumStreamsLimitErr")
        refusal = node.admission()
        if refusal is not None:
            raise refusal
        uid = node.meta.machine.next_uid
        members = node.members_for(config.num_replicas)
        if is_restoring:
            node.backups.restoring.add(uid)
        try:
            assignment = await node.meta.call(
                meta_entries.encode_create(
                    self.key(config.name),
                    config.to_json(),
                    node.clock.wall_ns(),
                    uid,
                    members,
                    is_restoring=is_restoring,
                )
            )
            group = node.streams.get(self.key(config.name))
            if group is None:
                raise OutcomeUnknown(f"{config.name} was created, and is not here")
            await group.configured(assignment.version)
        except BaseException:
            node.backups.restoring.discard(uid)
            node.assignments.give_up_restores()
            raise
        return group

    @_by_metadata
    async def restore_stream(self, config: StreamConfig, client: dict[str, Any]) -> bytes:
        """The subject that takes the archive. What nats-server finds out at the end is refused there. Any: JSON."""
        self._require_meta()
        try:
            admit_create(config, self._own, self._account_limits, self._server_limits, replaces=True)
        except ApiError as error:
            if error.err_code in _ROOM:
                raise
        if self.key(config.name) in self._node.meta.machine.streams:
            raise api_error("JSStreamNameExistRestoreFailedErr")
        return self._node.backups.start_restore(self.key(config.name), lambda: self._open_restored(config), client)

    @_by_metadata
    async def _open_restored(self, config: StreamConfig) -> StreamGroup:
        """The new stream, which nobody sees. Raises ``ApiError``."""
        self._require_meta()
        try:
            async with self._node.meta_lock:
                if self.key(config.name) in self._node.meta.machine.streams:
                    raise api_error("JSStreamNameExistRestoreFailedErr")
                config = follow_origin(config, self._own)
                admit_create(config, self._own, self._account_limits, self._server_limits)
                return await self._add(config, is_restoring=True)
        except ApiError as error:
            if error.err_code in (*_ROOM, 10008, 10023, 10130):
                raise
            text = f"error adding stream: {error.description} ({error.err_code})"
            raise api_error("JSStreamRestoreErrF", err=text) from None

    @_by_metadata
    async def update_stream(self, config: StreamConfig, pedantic: bool) -> StreamInfo:
        """Replace the configuration."""
        node = self._node
        self._require_meta()
        async with node.meta_lock:
            group = node.streams.get(self.key(config.name))
            if group is None and self._is_held_elsewhere(config.name):
                assert self.consumers_elsewhere is not None
                current, consumers = self._own[config.name], await self.consumers_elsewhere(config.name)
            else:
                group = self._group(config.name)
                stream = group.require_serving() if node.cluster is None else group.stream
                if stream.config is None or group.is_faulty:
                    raise api_error("JSClusterNotAvailErr")
                current, consumers = stream.config, [consumer.config for consumer in stream.consumers.values()]
            config = admit_update(
                current,
                follow_origin(config, self._own),
                self._own,
                consumers=consumers,
                pedantic=pedantic,
                account=self._account_limits,
                server=self._server_limits,
            )
            update = meta_entries.encode_update(self.key(config.name), config.to_json())
            if group is None:
                assignment = await node.meta.call(update)
                self._advisories(config.name).tell("UPDATED", "stream_action", action="modify")
                raise LedElsewhere(config.name, assignment.version)
            async with group.lock:
                assignment = await node.meta.call(update)
                await group.configured(assignment.version)
        group.advisories.tell("UPDATED", "stream_action", action="modify")
        with decided(f"{config.name} was updated"):
            return self._shown(group, StreamInfoRequest())

    def _is_held_elsewhere(self, name: str) -> bool:
        """Whether it is there, and this node has no copy."""
        node = self._node
        return (
            self.consumers_elsewhere is not None
            and self.key(name) in node.meta.machine.streams
            and self.key(name) not in node.lost
            and not self._is_restoring(name)
        )

    def _advisories(self, name: str) -> StreamAdvisories:
        """What tells of a stream, also where it has no copy."""
        node = self._node
        group = node.streams.get(self.key(name))
        if group is not None:
            return group.advisories
        return StreamAdvisories(node.outlet_of(self._account), node.clock, node.parts.rng, name)

    def consumer_configs(self, stream: str) -> list[ConsumerConfig]:
        """Of all consumers of a stream that this node leads."""
        return [consumer.config for consumer in self._group(stream).require_serving().consumers.values()]

    @_by_metadata
    async def delete_stream(self, name: str) -> None:
        """Remove the stream, its consumers and its messages."""
        node = self._node
        self._require_meta()
        async with node.meta_lock:
            if self.key(name) not in node.meta.machine.streams or self._is_restoring(name):
                raise api_error("JSStreamNotFoundErr")
            advisories = self._advisories(name)
            await node.meta.call(meta_entries.encode_delete(self.key(name)))
        advisories.tell("DELETED", "stream_action", action="delete")

    async def delete_streams(self) -> None:
        """Remove all streams of the account, in as few blocks as there is room in them."""
        node = self._node
        self._require_meta()
        async with node.meta_lock:
            keys = [key for key in node.meta.machine.streams if self._is_own(key)]
            told = [self._advisories(name_of(key)) for key in keys]
            await asyncio.gather(*[node.meta.call(meta_entries.encode_delete(key)) for key in keys])
        for advisories in told:
            advisories.tell("DELETED", "stream_action", action="delete")

    def groups(self) -> dict[str, StreamGroup]:
        """What this node has of the account's streams, by name; restores are left out."""
        return {
            group.name: group
            for key, group in self._node.streams.items()
            if self._is_own(key) and not group.is_restoring
        }

    def group(self, name: str) -> StreamGroup | None:
        """The same of one stream, a restore included."""
        return self._node.streams.get(self.key(name))

    async def require_streams(self) -> None:
        """Return once ``stream_names`` has everything that was acknowledged before the call. Raises 10008."""
        await confirm_leading(self._node.meta)

    def stream_names(self, subject: str = "") -> Sequence[str]:
        """All streams' names, sorted; of those only that have a subject that can meet this one, if one is given."""
        self._require_meta()
        own = self._own
        names = sorted(set(own.colliding(subject))) if subject else own.names()
        if self._node.meta.machine.restoring:
            return [name for name in names if not self._is_restoring(name)]
        return names

    def stream_configs(self) -> Sequence[StreamConfig]:
        """All streams' configurations, sorted by name."""
        own = self._own
        return [own[name] for name in self.stream_names()]

    async def stream_info(self, name: str, request: StreamInfoRequest, version: int = 0) -> StreamInfo:
        """Info after everything acknowledged before the call, and this version of the configuration."""
        group = await self._found(name)
        if version:
            await group.configured(version)
        await confirm_leading(group)
        return self._info(group, request)

    def _info(self, group: StreamGroup, request: StreamInfoRequest | None = None) -> StreamInfo:
        group.require_serving()
        return self._shown(group, request or StreamInfoRequest())

    def _shown(self, group: StreamGroup, request: StreamInfoRequest) -> StreamInfo:
        info = group.info(request)
        return info if self._node.cluster is None else replace(info, cluster=stream_cluster(self._node, group))

    async def require_stream(self, name: str) -> None:
        """Return once this node is known to lead the stream; 10059 unless there is such a stream."""
        await confirm_leading(await self._found(name))

    async def snapshot_stream(
        self, name: str, request: SnapshotRequest, client: dict[str, Any]
    ) -> tuple[StreamConfig, StreamState]:
        """Send it as an archive; its configuration and counters. Any: JSON values."""
        group = await self._found(name)
        await confirm_leading(group)
        config = group.require_serving().config
        assert config is not None
        return config, self._node.backups.start_snapshot(group, request, client)

    async def purge_stream(self, name: str, request: PurgeRequest) -> int:
        """How many messages were removed."""
        group = await self._found(name)
        group.require_serving()
        outcome = await group.call(encode_purge(request))
        return int(outcome.purged)

    async def confirm(self, name: str) -> bool:
        """Whether it is sure, in a moment after the call, that this node leads the stream."""
        try:
            await self._group(name).confirm()
        except (ApiError, NotNow):
            return False
        return True

    async def get_message(self, name: str, request: MessageGet, *, is_confirmed: bool = False) -> Message:
        """The selected message; 10037 if there is none. ``is_confirmed``: ``confirm`` said so after the request."""
        group = await self._found(name)
        try:
            if 0 < request.seq <= group.stream.log.last_seq and not request.next_by_subj and group.is_faulty:
                return group.stream.get_message(request)  # by sequence, reads go on up to the fault; beyond, who knows
            if not is_confirmed:
                await confirm_leading(group)
            return group.require_serving().get_message(request)
        except Corruption as error:
            group.note_damage(error)
            raise

    async def delete_message(self, name: str, seq: int, no_erase: bool) -> None:
        """Remove one message."""
        group = await self._found(name)
        group.require_serving()
        await group.call(encode_delete_message(seq))

    # -- direct reads -------------------------------------------------------------------------------------------------

    def direct_reader(self, name: str) -> str:
        """Who answers direct gets of a stream: itself, a mirror, or "": nobody."""
        group = self._node.streams.get(self.key(name))
        config = group.stream.config if group is not None and not group.is_restoring else None
        if config is not None and config.allow_direct:
            return name
        copies = (self._node.assignments.find_stream(self.key(copy)) for copy in self._own.copies_of(name))
        return direct_mirror((copy for copy in copies if copy is not None), name)

    async def direct_get(self, name: str, request: MessageGet) -> Message:
        """The one selected message; 10037 if there is none. As this member knows it: leadership is not confirmed."""
        group = await self._found(name)
        try:
            if group.is_faulty:
                return await self.get_message(name, request)
            return group.require_serving().get_message(request)
        except Corruption as error:
            group.note_damage(error)
            raise

    async def direct_get_batch(self, name: str, request: MessageGet) -> tuple[Sequence[Message], int, int]:
        """Several messages; see ``server/jsapi/ports.py``."""
        group = await self._found(name)
        try:
            return group.require_serving().get_batch(request)
        except Corruption as error:
            group.note_damage(error)
            raise

    # -- consumers ----------------------------------------------------------------------------------------------------

    async def create_consumer(
        self, stream: str, config: ConsumerConfig, action: ConsumerAction, pedantic: bool
    ) -> ConsumerInfo:
        """Create or update as ``action`` says."""
        group = await self._found(stream)
        async with certain(group), group.lock:
            state = group.require_serving()
            assert state.config is not None
            limits = self._account_limits.of(state.config.num_replicas)
            if limits is None:
                raise api_error("JSNoLimitsErr")
            checked = checked_consumer(config, state.config, pedantic=pedantic, account=limits, server=self._all_limits)
            existing = {name: consumer.config for name, consumer in state.consumers.items()}
            current = existing.get(checked.name)
            in_use = bool(
                current is not None
                and current.deliver_subject
                and group.outlet.has_interest(current.deliver_subject.encode(), current.deliver_group.encode())
            )
            admitted = admit_consumer(
                checked,
                state.config,
                existing,
                action,
                is_deliver_subject_in_use=in_use,
                account=limits,
            )
            if admitted is not None:
                await group.call(encode_set(admitted.name, group.now_ns(), admitted.to_json()))
                with decided(f"{checked.name} of {stream} was set"):
                    return self._consumer_info(group, checked.name)
        return await self.consumer_info(stream, checked.name)

    def consumer_names(self, stream: str) -> Sequence[str]:
        """Names of the stream's consumers (``direct`` ones left out), sorted."""
        consumers = self._group(stream).require_serving().consumers
        return sorted(name for name, consumer in consumers.items() if not consumer.config.direct)

    async def consumer_info(self, stream: str, consumer: str) -> ConsumerInfo:
        """Info after everything acknowledged before the call."""
        group = await self._found(stream)
        await confirm_leading(group)
        return self._consumer_info(group, consumer)

    def _consumer_info(self, group: StreamGroup, consumer: str) -> ConsumerInfo:
        self._require_consumer(group, consumer)
        info = group.delivery.consumer_info(consumer)
        return info if self._node.cluster is None else replace(info, cluster=stream_cluster(self._node, group))

    def _require_consumer(self, group: StreamGroup, consumer: str) -> None:
        if consumer not in group.require_serving().consumers:
            raise api_error("JSConsumerNotFoundErr")

    async def delete_consumer(self, stream: str, consumer: str) -> None:
        """Remove the consumer and its state."""
        group = await self._found(stream)
        async with certain(group), group.lock:
            self._require_consumer(group, consumer)
            await group.call(encode_delete(consumer, group.now_ns()))

    async def pause_consumer(self, stream: str, consumer: str, pause_until_ns: int) -> PauseState:
        """Pause deliveries until then; 0 or a past time = resume."""
        group = await self._found(stream)
        async with certain(group), group.lock:
            self._require_consumer(group, consumer)
            now_ns = group.now_ns()
            await group.call(encode_pause(consumer, now_ns, pause_until_ns))
        return PauseState(pause_until_ns > now_ns, pause_until_ns, max(pause_until_ns - now_ns, 0))

    async def unpin_consumer(self, stream: str, consumer: str, group: str) -> None:
        """Whoever is pinned is pinned no more."""
        leading = await self._found(stream)
        async with certain(leading):
            self._require_consumer(leading, consumer)
            check_priority_group(group, leading.stream.consumers[consumer].config)
        leading.delivery.unpin(consumer)

    async def reset_consumer(self, stream: str, consumer: str, seq: int) -> tuple[ConsumerInfo, int]:
        """Start again at ``seq`` (0 = just above the ack floor)."""
        group = await self._found(stream)
        async with certain(group), group.lock:
            self._require_consumer(group, consumer)
            state = group.stream.consumers[consumer]
            first = group.stream.contents.seq_at_time(state.config.opt_start_time) if state.config.opt_start_time else 0
            check_reset(state.config, seq, first)
            outcome = await group.call(encode_reset(consumer, group.now_ns(), seq))
            with decided(f"{consumer} of {stream} was reset"):
                return self._consumer_info(group, consumer), outcome.result.seq
