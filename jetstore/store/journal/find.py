"""Finding a group's entries in the journal while it is in use: those that memory let go, or that were unreadable.

Blocks are told by their own headers, as in ``reread``; of each only the lines are read, then the bodies asked for. What
is found is proved by each body's crc, not by the fold of a whole recovery: the caller has to know what must come out
(the running hash of a state, or an entry's term), and nothing is concluded from what is not found.
"""

from __future__ import annotations

from collections.abc import Iterator

from jetstore.errors import Corruption
from jetstore.hot.crc import crc32c
from jetstore.limits import SECTOR_BYTES
from jetstore.store.journal import format as fmt
from jetstore.store.journal.entries import iter_entries
from jetstore.store.journal.files import file_path
from jetstore.store.journal.format import Header, Line
from jetstore.store.journal.reread import Extent, headers
from jetstore.store.journal.scan import slice_head
from jetstore.store.keys import shown
from jetstore.store.ports import EntryRef, Kind
from jetstore.store.salvage import pread_salvaged
from jetstore.store.vfs import Vfs
from jetstore.types import Buffer, RaftIndex, Term

_GIVES = (Kind.ENTRIES, Kind.REPAIR)


class EntryFinder:
    """Where the entries of one group's member stand."""

    def __init__(self, vfs: Vfs, journal_id: bytes, file_bytes: int, uid: int, generation: int) -> None:
        """Knows nothing before ``look_through``. Entries of other ``generation``s do not count."""
        self._vfs = vfs
        self._journal_id = journal_id
        self._file_bytes = file_bytes
        self._uid = uid
        self._generation = generation
        self._places: dict[int, tuple[int, Line]] = {}
        self._marks: dict[int, bytes] = {}
        """Of the files' streams, in an encrypted store."""
        self._body: tuple[Line, list[tuple[int, bytes]]] | None = None

    def look_through(self, extent: Extent, step_bytes: int) -> Iterator[int]:
        """Note every line of the group in a file; yields after each read how many bytes it took. Files in order."""
        for item in headers(self._vfs, self._journal_id, self._file_bytes, extent, step_bytes, []):
            if isinstance(item, int):
                yield item
                continue
            self._marks[item.file_number] = item.mark
            own, repeated = self._lines(item)
            for line in repeated:
                self._take(item.previous_file, line)
            for line in own:
                self._take(item.file_number, line)
            yield item.head_bytes

    def _take(self, file: int, line: Line) -> None:
        if line.group != self._uid:
            return
        if line.kind in _GIVES:
            for index in range(line.first_index, line.last_index + 1):
                self._places[index] = file, line  # the later one counts: the same entry, or one that replaced it
        elif line.kind == Kind.GROUP and line.aux != self._generation:
            self._places.clear()

    def _lines(self, header: Header) -> tuple[list[Line], list[Line]]:
        """A block's own lines and those it repeats; none that cannot be read."""
        pieces: list[Buffer | None] = [None] * header.head_sectors
        for start in (header.block_offset, header.second_offset):
            data = self._read(header.file_number, start, header.head_bytes)
            for sector in range(len(data) // SECTOR_BYTES):
                content = data[sector * SECTOR_BYTES : (sector + 1) * SECTOR_BYTES]
                if pieces[sector] is None and fmt.is_good_sector(header, sector, content):
                    pieces[sector] = content[: fmt.PIECE_BYTES]
            if None not in pieces:
                break
        lines_end = fmt.HEADER_BYTES + header.line_count * fmt.LINE_BYTES
        own = slice_head(pieces, fmt.HEADER_BYTES, lines_end)
        repeated = slice_head(pieces, lines_end, lines_end + header.repeat_count * fmt.LINE_BYTES)
        return fmt.unpack_lines(own or b""), fmt.unpack_lines(repeated or b"")

    def entry(self, index: RaftIndex) -> EntryRef:
        """The entry at an index. Raises ``Corruption`` if no line tells of it, or its body is another."""
        place = self._places.get(index)
        if place is None:
            raise Corruption(f"entry {index} of group {self._uid} is not found", file="journal", offset=0)
        file, line = place
        if self._body is None or self._body[0] is not line:  # consecutive entries share it
            body = self._read(file, line.offset, line.length)
            is_hidden = self._vfs.keys is not None and file not in self._marks
            if len(body) != line.length or crc32c(body) != line.crc or is_hidden:
                raise Corruption(
                    f"entries {line.first_index}-{line.last_index} of group {self._uid}",
                    file=file_path(file),
                    offset=line.offset,
                )
            if self._vfs.keys is not None:
                body = shown(self._vfs.keys, self._marks[file], line.offset, body)
            self._body = line, list(iter_entries(body))
        count, data = self._body[1][index - line.first_index]
        return EntryRef(index, Term(line.term), count, data)

    def _read(self, file: int, offset: int, size_bytes: int) -> bytes:
        path = file_path(file)
        try:
            handle = self._vfs.open(path, write=False)
        except OSError as error:
            raise Corruption(f"journal file does not open: {error.strerror}", file=path, offset=0) from None
        try:
            return pread_salvaged(self._vfs, handle, size_bytes, offset)
        finally:
            self._vfs.close(handle)
