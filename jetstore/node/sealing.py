"""Seals what a store held before it had its newest key, while it is served, and has KEYS say when nothing else is left.

Everything goes through what is there anyway, so a kill at any moment leaves a store like every other: segments are
rewritten like those with erased records, one at a time, each followed by a checkpoint that lets the old file go; heads,
chunks and manifests are replaced by the same content, sealed; what lives in older journal files is checkpointed or
appended again, and the files go. A round looks at all of it; what cannot be sealed now (damaged, no room, not open) is
looked at again in the next one, and named in the log. Source: ``docs/format/keys.md``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from jetstore.errors import Corruption, DiskFull, ReadBackFailed
from jetstore.limits import Limits
from jetstore.node.meta_group import MetaGroup
from jetstore.node.opening import QUARANTINE_DIR
from jetstore.node.storage import Storage
from jetstore.node.stream_group import StreamGroup
from jetstore.store.checkpoint_files import (
    GROUPS_DIR,
    HEAD_NAMES,
    KIND_CHUNK,
    KIND_HEAD,
    KIND_MANIFEST,
    TEMP_SUFFIX,
    group_dir,
    sealed_with,
)
from jetstore.store.compaction import Compaction, sealed_places, start_sealing
from jetstore.store.install_manifest import MANIFEST_NAME, received_names
from jetstore.store.journal.files import JOURNAL_DIR, file_numbers
from jetstore.store.message_log import SegmentedLog
from jetstore.store.segment_files import SegmentFile, segments_dir
from jetstore.store.vfs import Vfs
from jetstore.types import META_GROUP, GroupUid

log = structlog.get_logger(__name__)

PAUSE_MIN_S, PAUSE_MAX_S = 0.5, 30.0
"""Between rounds; twice as long after each round that changed nothing."""
SAY_EVERY_S = 10.0
"""How often progress is logged."""
REASONS_SHOWN = 4
SLICE_S = 0.003
"""How long files are looked at before the event loop gets its turn."""
LEAVE_MAX = 256
"""Groups whose entries are moved to newer journal files at once."""

Rewrite = Callable[[StreamGroup, Compaction], Awaitable[bool]]


class Sealing:
    """One node's. ``round`` is called, again and again, by whoever else rewrites segments: never two at once."""

    def __init__(
        self, vfs: Vfs, limits: Limits, storage: Storage, groups: Callable[[], tuple[MetaGroup | StreamGroup, ...]]
    ) -> None:
        """``groups`` gives all open groups as they are now; none: the node is starting."""
        self._vfs = vfs
        self._limits = limits
        self._storage = storage
        self._groups = groups
        self._sealed: set[str] = set()
        """Paths that were looked at and need nothing: whatever is written there from now on is sealed."""
        self._slice_ends_s = 0.0
        self._first_file = 0
        """This journal file and all later ones were begun under the newest key."""
        self._said_at_s = float("-inf")
        self._said: list[str] = []
        self.segments_total = 0
        """Segments rewritten since start."""
        self.files_total = 0
        """Heads, chunks and manifests replaced since start."""
        self.reasons: list[str] = []
        """Why something was left after the last round."""
        self.pause_s = PAUSE_MIN_S
        """Until the next round."""

    @property
    def is_due(self) -> bool:
        """Whether something plain, or under an older key, may be left."""
        return self._vfs.keys is not None and self._vfs.keys.is_due

    async def round(self, rewrite: Rewrite, now_s: float) -> None:
        """Seal what can be sealed now; if nothing else is left, KEYS says so."""
        before = self.segments_total, self.files_total, self.reasons
        self.reasons = []
        try:
            await self._everything(rewrite)
        except OSError as error:
            self.reasons.append(str(error))
        if not self.reasons:
            await self._end()
        has_changed = before != (self.segments_total, self.files_total, self.reasons)
        self.pause_s = PAUSE_MIN_S if has_changed else min(2 * self.pause_s, PAUSE_MAX_S)
        self._say(now_s)

    async def _everything(self, rewrite: Rewrite) -> None:
        groups = self._groups()
        if not groups:
            self.reasons.append("the node is starting")
        for group in groups:
            if isinstance(group, StreamGroup):
                await self._segments(group, rewrite)
        for group in groups:
            await self._breathe()
            await self._files(group)
            if isinstance(group, StreamGroup):
                self._others(group)
        unopened = set(self._vfs.list_dir(GROUPS_DIR)) - {str(group.uid) for group in groups}
        self.reasons += [f"group {name} is not open" for name in sorted(unopened)]
        keys = self._vfs.keys
        assert keys is not None
        if len(keys.data_keys) > 1 and self._vfs.list_dir(QUARANTINE_DIR):
            self.reasons.append(f"{QUARANTINE_DIR} may hold what only older keys open")
        await self._journal()

    async def _breathe(self) -> None:
        """Let others run, if much was looked at since they did."""
        time = asyncio.get_running_loop().time
        if time() > self._slice_ends_s:
            await asyncio.sleep(0)
            self._slice_ends_s = time() + SLICE_S

    def _say(self, now_s: float) -> None:
        if not self.reasons or now_s < self._said_at_s + SAY_EVERY_S or self.reasons == self._said:
            return
        self._said_at_s, self._said = now_s, self.reasons
        log.info(
            "what was stored before there was this key is being encrypted",
            segments=self.segments_total,
            files=self.files_total,
            left=len(self.reasons),
            still="; ".join(self.reasons[:REASONS_SHOWN]),
        )

    # -- segments -----------------------------------------------------------------------------------------------------

    async def _segments(self, group: StreamGroup, rewrite: Rewrite) -> None:
        messages = group.messages
        for segment in messages.segment_files():
            if segment.path in self._sealed or segment.is_dropped:
                continue
            await self._breathe()
            if group.stopped:
                return
            path = segment.path
            try:
                if await self._is_sealed(messages, segment):
                    if segment.is_sealed and segment.table is None and segment.path == path:
                        self._sealed.add(path)
                    continue
            except Corruption as error:
                self.reasons.append(str(error))
                continue
            if not (group.stopped or segment.is_dropped):
                await self._segment(group, segment, rewrite)

    async def _is_sealed(self, messages: SegmentedLog, segment: SegmentFile) -> bool:
        """Whether all that is in its file is under the newest key. Raises ``Corruption`` if nobody knows."""
        keys = self._vfs.keys
        assert keys is not None
        path, places = segment.path, sealed_places(messages, segment)
        if places is None:
            return False
        if len(keys.data_keys) > 1:  # else there is no other one
            for place in places:
                await self._breathe()
                if segment.path != path or messages.reader.byte_at(segment, place) != keys.newest:
                    return False
        return True

    async def _segment(self, group: StreamGroup, segment: SegmentFile, rewrite: Rewrite) -> None:
        path = segment.path
        if group.is_faulty or group.is_torn:
            self.reasons.append(f"{path} waits for its stream to be mended")
            return
        if self._vfs.free_bytes() < self._limits.disk_resume_bytes + segment.file_bytes:
            self.reasons.append(f"no room to write {path} anew")
            return
        compaction = start_sealing(group.messages, segment, self._limits.frame_bytes_max)
        if compaction is None:
            self._storage.flush(group)  # it was ended just now: its footer must be in the file
            self.reasons.append(f"{path} is to be written anew")
        elif await rewrite(group, compaction):
            self.segments_total += 1
            await self._checkpoint(group)
        else:
            self.reasons.append(f"{path} could not be written anew")

    async def _checkpoint(self, group: StreamGroup) -> None:
        """The old file goes before the next one is rewritten: there is room for one."""
        try:
            await self._storage.checkpoint(group, is_forced=True)
        except (DiskFull, ReadBackFailed) as error:
            self.reasons.append(str(error))

    # -- other files of a group ---------------------------------------------------------------------------------------

    async def _files(self, group: MetaGroup | StreamGroup) -> None:
        directory = group_dir(group.uid)
        for name in self._vfs.list_dir(directory):
            if name in HEAD_NAMES:
                await self._file(group, KIND_HEAD, f"{directory}/{name}")
            elif name == MANIFEST_NAME:
                await self._file(group, KIND_MANIFEST, f"{directory}/{name}")
        for name in self._vfs.list_dir(f"{directory}/chunks"):
            if not name.endswith(TEMP_SUFFIX):  # those are of this start
                await self._file(group, KIND_CHUNK, f"{directory}/chunks/{name}")

    async def _file(self, group: MetaGroup | StreamGroup, kind: int, path: str) -> None:
        if path in self._sealed:
            return
        await self._breathe()
        assert self._vfs.keys is not None
        if sealed_with(self._vfs, path) == self._vfs.keys.newest:
            self._sealed.add(path)
            return
        try:
            problem = await self._storage.disk.call("seal_file", group.uid, kind, path)
        except (DiskFull, ReadBackFailed) as error:
            problem = str(error)
        if problem:
            self.reasons.append(problem)
            if kind == KIND_HEAD:
                self._storage.want_checkpoint(group.uid, is_forced=True)  # writes both copies
        else:
            self.files_total += 1

    def _others(self, group: StreamGroup) -> None:
        """Segment files that the log does not have: replaced ones, or what comes from peers."""
        if group.stopped:
            return
        known = {segment.name for segment in group.messages.segment_files()}
        names = set(self._vfs.list_dir(segments_dir(group.uid))) - known
        try:
            names -= received_names(self._vfs, group.uid) if names else set()
        except Corruption as error:
            self.reasons.append(str(error))
        self.reasons += [f"{segments_dir(group.uid)}/{name} is still there" for name in sorted(names)]
        if names and group.messages.has_dropped_files:
            self._storage.want_checkpoint(group.uid, is_forced=True)

    # -- the journal --------------------------------------------------------------------------------------------------

    async def _journal(self) -> None:
        if not self._first_file:
            self._first_file = (await self._storage.disk.call("journal_extents"))[2][-1].number
        uids, is_left = await self._storage.disk.call("leave_older_files", self._first_file)
        self._leave([GroupUid(uid) for uid in uids[:LEAVE_MAX]])
        numbers = file_numbers(self._vfs.list_dir(JOURNAL_DIR))
        if is_left or any(number < self._first_file for number in numbers):
            groups = (
                f", with entries of {len(uids)} groups: {', '.join(map(str, uids[:REASONS_SHOWN]))}" if uids else ""
            )
            self.reasons.append(f"the journal has older files{groups}")

    def _leave(self, uids: Sequence[GroupUid]) -> None:
        self._storage.leave_file(uids)
        if set(uids) - {group.uid for group in self._groups()}:
            self._storage.want_checkpoint(META_GROUP, is_forced=True)  # lets the journal forget deleted ones

    # -- the end ------------------------------------------------------------------------------------------------------

    async def _end(self) -> None:
        try:
            await self._storage.disk.call("end_sealing")
        except (DiskFull, ReadBackFailed) as error:
            self.reasons.append(str(error))
            return
        keys = self._vfs.keys
        assert keys is not None
        keys.all_sealed()
        self._sealed.clear()
        log.info("everything stored is encrypted", segments=self.segments_total, files=self.files_total)
        if self._vfs.list_dir(QUARANTINE_DIR):
            log.warning("quarantined groups are not encrypted, remove what nobody needs", directory=QUARANTINE_DIR)
