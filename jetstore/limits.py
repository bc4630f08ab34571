"""Every bound in one place, with its unit, what happens at the bound, and the relations between bounds.

``Limits`` is an object (not module constants) so that the simulator can draw tiny ones from a seed.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

SECTOR_BYTES = 512
"""What a disk writes whole or not at all."""
SEQUENCE_MAX = 2**62
"""Where a client may have a stream's sequences begin: what is counted on from there still has room in 64 bits."""
BLOCK_ALIGN_BYTES = 4 * KIB
"""Journal blocks start on this boundary."""
STREAM_TABLE_BYTES = 4 * KIB
"""Of a journal file for each stream: twice what eight lines of the group table take, each of them in both copies of a
block's head and repeated in the next block's."""

COMPRESSED_FRAME_BYTES_MAX = 8 * MIB
"""Plain payload of a compressed frame; a larger one stays plain (it would keep the event loop for more than 10 ms), and
a stored frame that claims more is damage."""


def file_bytes_for(block_bytes: int, reappend_bytes: int, entry_bytes: int, least_bytes: int) -> int:
    """Size of journal files, ``least_bytes`` doubled as often as needed, in which every block finds room.

    A group adds to a full block what it writes again and one entry. With its lines, in two copies and repeated, and
    behind the group table that must fit into an empty file: a block that fits nowhere would end the node.
    """
    file_bytes = least_bytes
    while file_bytes < 2 * (block_bytes + reappend_bytes + entry_bytes):
        file_bytes *= 2
    return file_bytes


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one node. At each bound the stated behaviour, never a surprise."""

    # -- client connections ---------------------------------------------------------------------------------------
    max_payload_bytes: int = MIB
    """Header + body of one message; above: -ERR and close."""
    max_control_line_bytes: int = 4 * KIB
    """Argument part of a protocol line; above: -ERR and close."""
    max_pending_bytes: int = 64 * MIB
    """Unsent output of one connection; above: slow consumer, closed without -ERR."""
    max_connections: int = 65_536
    """Above: -ERR and close."""
    socket_read_bytes: int = 256 * KIB
    """Bytes taken from a socket at once; the size of a natural batch."""
    latency_requests_max: int = 65_536
    """Requests to services that are measured (exports' ``latency``) and wait for answers; above: they go on, not
    measured."""
    write_pause_bytes: int = MIB
    """Unsent output at which JetStream deliveries to that connection pause until it drains."""

    # -- proposing ------------------------------------------------------------------------------------------------
    entry_bytes_max: int = MIB
    """One Raft entry (one batch of one stream), or one message; a larger batch is split."""
    uncommitted_bytes_max: int = 64 * MIB
    """Publishes waiting in one group; above: refused with 429 / err 10167."""
    uncommitted_messages_max: int = 100_000
    """Same, counted in messages."""
    api_requests_max: int = 10_000
    """API requests waiting; above: dropped without reply, as nats-server does."""

    raft_retain_bytes: int = 4 * MIB
    """Applied entries that a member of a larger group keeps in memory for followers; who needs older ones gets a
    checkpoint."""

    # -- journal --------------------------------------------------------------------------------------------------
    journal_file_bytes: int = 16 * MIB
    """Size of one journal file, zeroed in advance; a store keeps the size that it was made with."""
    journal_spare_files: int = 3
    """Zeroed files that exist from birth, so that opening on a full disk needs no allocation."""
    journal_bytes_max: int = GIB
    """Total of journal files that are still needed; at this minus four files new publishes are refused."""
    journal_group_bytes: int = 64 * MIB
    """A group with more journal than this behind its checkpoint is checkpointed."""
    journal_reappend_bytes: int = MIB
    """A group that pins the oldest file with less than this is written again instead of checkpointed."""
    block_bytes_max: int = MIB
    """One journal block, or one message."""
    zeroing_bytes: int = 4 * MIB
    """Zeroed ahead per background step (one sync each)."""
    idle_block_ms: int = 20
    """An idle journal writes an empty block this long after the last one: the second evidence of every entry."""

    # -- segments and index ---------------------------------------------------------------------------------------
    segment_bytes: int = 64 * MIB
    """A segment is sealed (footer written) when it has grown to this."""
    frame_bytes_max: int = 32 * KIB
    """A frame: the unit of checksum and of reads; or one message."""
    segment_flush_bytes: int = 256 * KIB
    """Applied frames of one stream held in memory before they are written to its segment."""
    unflushed_bytes_max: int = 64 * MIB
    """The same over all streams; above: the largest are written."""
    segment_sync_bytes: int = 8 * MIB
    """The writer syncs a segment whenever this much of it is unsynced, so a checkpoint never waits for more."""
    index_tail_rows_max: int = 30_000
    """Index rows changed since the last checkpoint; above: a checkpoint is forced."""

    # -- streams and consumers ------------------------------------------------------------------------------------
    dedupe_ids_max: int = 1_000_000
    """Message ids remembered per stream; above: publishes with an id are refused, never an id forgotten."""
    fast_batches_stream_max: int = 1_000
    """Fast batches of one stream under way; above: 10211."""
    fast_batches_max: int = 50_000
    """The same of one node."""
    fast_batch_flow_max: int = 500
    """Messages between two flow acks, for all fast batches of a stream together; each gets its share."""
    record_bytes_max: int = 32 * MIB
    """One stored message."""
    header_bytes_max: int = 65_535
    """Header block of one stored message."""
    delivery_batch_messages: int = 1_000
    """Messages planned for delivery to one consumer in one step."""
    delivery_batch_bytes: int = MIB
    """Same, in bytes."""
    read_cache_bytes: int = 32 * MIB
    """Decoded frames and footers kept in memory over all streams."""

    # -- archives of streams --------------------------------------------------------------------------------------
    snapshots_max: int = 8
    """Snapshots being sent at once; above: refused with 10023."""
    restores_max: int = 8
    """Restores under way at once; above: refused with 10023."""
    restore_queue_bytes: int = 8 * MIB
    """Chunks of one restore that wait to be read; above: the restore fails (clients wait for each chunk's answer)."""
    archive_consumer_bytes: int = 4 * MIB
    """State of one consumer in an archive (about 60,000 pending messages); above: refused."""
    archive_consumers_bytes: int = 32 * MIB
    """The same of all consumers of an archive, which a restore keeps until the messages are in; above: refused."""

    # -- links between nodes --------------------------------------------------------------------------------------
    link_frame_bytes: int = MIB
    """One frame of a raft link. A single larger message (one entry ≤ ``record_bytes_max``) gets a frame of its own."""
    link_hello_bytes: int = 4 * KIB
    """Largest frame taken from a peer that has not said who it is; above: closed."""
    link_hello_timeout_s: float = 2.0
    """A peer that has not finished its hello by then is closed."""
    link_inbound_max: int = 256
    """Accepted connections that have not finished their hello; above: closed at once."""
    link_peers_max: int = 1024
    """Nodes remembered; above: unknown nodes are refused."""
    link_send_bytes_max: int = 16 * MIB
    """Unsent bytes of one raft link; above: Raft messages are dropped and counted (Raft tolerates loss)."""
    link_ping_s: float = 0.5
    """Between two pings of one connection."""
    link_silence_s: float = 4.0
    """A connection from which nothing came for this long is lost."""
    link_reconnect_min_s: float = 0.02
    """First wait before dialling again; doubles, with jitter."""
    link_reconnect_max_s: float = 1.0
    """Longest such wait."""
    bulk_requests_max: int = 256
    """Requests on their way to one node, each way; above: refused, definitely not sent."""
    bulk_request_bytes: int = 16 * MIB
    """Payload of requests to one node that are not answered yet; above: further ones wait. One alone may be larger."""
    bulk_window_bytes: int = 4 * MIB
    """Bytes of one stream that its reader has not taken yet; at the bound the sending handler waits."""

    peer_interest_max: int = 500_000
    """Subscriptions of one other node that are remembered; above: the others there get nothing from here, logged."""
    peer_unsent_bytes_max: int = 64 * MIB
    """Messages that wait for one other node; above: dropped and counted (a publish is then never acknowledged)."""

    # -- scrub ----------------------------------------------------------------------------------------------------
    scrub_bytes_per_s: int = 8 * MIB
    """Stored bytes read again in the background, at most; 0 = never."""
    scrub_step_bytes: int = 128 * KIB
    """Read at once, between two turns of the event loop."""
    scrub_round_s: float = 3600.0
    """A round over the whole store begins at least this long after the one before."""

    # -- disk room ------------------------------------------------------------------------------------------------
    disk_reserve_bytes: int = GIB
    """Free space below which new publishes are refused with 10023 (reads, acks, deletes go on)."""
    disk_resume_bytes: int = GIB + 256 * MIB
    """Free space above which they are accepted again."""

    @property
    def streams_max(self) -> int:
        """Streams of one node; above: refused with 10027. Their rows in the journal's group table leave half of a
        file for blocks, also when each of them has entries in several files."""
        return self.journal_file_bytes // STREAM_TABLE_BYTES

    def __post_init__(self) -> None:
        assert self.journal_file_bytes % BLOCK_ALIGN_BYTES == 0
        assert self.zeroing_bytes % BLOCK_ALIGN_BYTES == 0
        assert self.block_bytes_max >= 2 * BLOCK_ALIGN_BYTES
        assert self.entry_bytes_max <= self.block_bytes_max
        largest_entry_bytes = max(self.entry_bytes_max, self.max_payload_bytes)
        assert self.journal_file_bytes == file_bytes_for(
            self.block_bytes_max, self.journal_reappend_bytes, largest_entry_bytes, self.journal_file_bytes
        )
        assert self.journal_bytes_max >= 8 * self.journal_file_bytes
        assert self.journal_spare_files >= 1
        assert self.frame_bytes_max <= self.segment_bytes
        assert self.segment_flush_bytes <= self.unflushed_bytes_max
        assert self.disk_resume_bytes >= self.disk_reserve_bytes
        assert self.max_payload_bytes <= self.max_pending_bytes
        assert self.link_hello_bytes <= self.link_frame_bytes <= self.link_send_bytes_max
        assert self.link_ping_s < self.link_silence_s
        assert self.link_reconnect_min_s <= self.link_reconnect_max_s
