"""Bytes of the NATS client protocol to columns of messages and back: parse PUB/HPUB, format MSG/HMSG and PubAcks.

Policy-free kernels: bytes and ints in, bytes and columns out, no state except bounded caches of small constants.
Everything that is not a plain, complete, well-formed PUB or HPUB is left in the buffer for the protocol's state
machine, which knows about blanks, lower case, limits and errors.

Parsing has three gears, all exact, tried from the fastest:

*stride*  consecutive messages of one shape (same lengths, same constant parts) are cut by one ``struct`` and the
          constant bytes are compared column by column, as strided slices of the buffer;
*records* messages with the same operation and number of arguments: one ``split`` at CR LF and the operation's name,
          one of all their control lines together, and every length checked;
*single*  one message at a time. A fast gear that finds little is not tried again soon, so no input is quadratic.

Source: the public client protocol; ``tests/hot/test_wire.py`` pins the bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import le
from struct import Struct
from typing import NamedTuple

_CACHED_SIZES = 4096
_BULK_PAYLOAD_MAX = 4096
"""Above this a message is parsed on its own: copying it costs more than finding it."""
_BULK_WINDOW = 64 * 1024
"""Bytes the *records* gear looks at in one go, so that a wasted look is cheap."""
_BULK_MIN = 8
"""A fast gear that took fewer messages than this was not worth it."""
_SINGLES_MAX = 512
_UNPACKED = 32
"""Records of one shape that are unpacked together."""
_NO_SIZE = 1 << 62
"""Stands for a size that is not a number: above every limit."""
_TAB, _VT, _FF, _CR, _SPACE = b"\t\x0b\x0c\r "
"""As ints: ``int in bytes`` is one memchr, ``bytes in bytes`` raises and clears an exception inside first."""


class Parsed(NamedTuple):
    """What ``parse_publishes`` found."""

    subjects: list[bytes]
    replies: list[bytes]
    """b"" where the message has no reply subject."""
    header_lens: list[int]
    """Bytes of header block at the start of each payload; empty = no message here has headers."""
    payloads: list[bytes]
    pos: int
    """Where the first byte stands that was not taken."""
    need: int
    """> 0: at ``pos`` an incomplete message begins that has this many bytes. 0: anything else."""


class _SizeOfToken(dict[bytes, int]):
    """Decimal token of 1 to 9 digits → its value; ``_NO_SIZE`` for anything else. Bounded."""

    def __missing__(self, token: bytes) -> int:
        if len(token) > 9 or not token.isdigit():
            return _NO_SIZE
        size = int(token)
        if len(self) < _CACHED_SIZES:
            self[token] = size
        return size


class _TokenOfSize(dict[int, bytes]):
    """Length → ``<length> CR LF``. Bounded."""

    def __missing__(self, size: int) -> bytes:
        token = b"%d\r\n" % size
        if len(self) < _CACHED_SIZES:
            self[size] = token
        return token


class _SizeOfLastToken(_SizeOfToken):
    """The same for the last token of a line, which ends with the line's CR."""

    def __missing__(self, token: bytes) -> int:
        size = _size_of[token[:-1]] if token.endswith(b"\r") else _NO_SIZE
        if size != _NO_SIZE and len(self) < _CACHED_SIZES:
            self[token] = size
        return size


_size_of = _SizeOfToken()
_size_of_last = _SizeOfLastToken()
_size_line = _TokenOfSize()


def size_of(token: bytes) -> int:
    """The value of a size argument (1 to 9 digits), or -1 if it is not one."""
    size = _size_of[token]
    return -1 if size == _NO_SIZE else size


def parse_publishes(buffer: bytes, pos: int, max_control_line: int, max_payload: int, headers: bool = True) -> Parsed:
    """As many complete PUB (and, with ``headers``, HPUB) messages from ``pos`` on as there are, as columns.

    Stops, without taking it, at the first thing that is not one: another operation, an incomplete message, a size
    over ``max_payload``, a line that may be over ``max_control_line``, anything malformed or unusual.
    The columns own their bytes.
    """
    subjects: list[bytes] = []
    replies: list[bytes] = []
    header_lens: list[int] = []
    payloads: list[bytes] = []
    need = 0
    end = len(buffer)
    find, size_of_token = buffer.find, _size_of.__getitem__
    add_subject, add_reply, add_payload = subjects.append, replies.append, payloads.append
    add_header_len = header_lens.append
    # bytes.split() takes VT and FF for blanks too; NATS does not. Lines that have one are for the state machine.
    may_have_odd_blanks = True
    singles, backoff = 1, _BULK_MIN
    while True:
        line_end = find(b"\n", pos)
        if line_end < 0 or line_end - pos > max_control_line:
            break
        line = buffer[pos:line_end]
        if may_have_odd_blanks and (_VT in line or _FF in line):
            break
        args = line.split()
        arg_count = len(args)
        if arg_count == 4 and args[0] == b"PUB":
            _, subject, reply, token = args
            header_len = 0
        elif arg_count == 3 and args[0] == b"PUB":
            _, subject, token = args
            reply = b""
            header_len = 0
        elif headers and 4 <= arg_count <= 5 and args[0] == b"HPUB":
            subject, reply, token = args[1], args[2] if arg_count == 5 else b"", args[-1]
            header_len = size_of_token(args[-2])
        else:
            break
        size = size_of_token(token)
        if size > max_payload or header_len > size or buffer[pos] < 33:
            break
        start = line_end + 1
        stop = start + size
        if stop + 2 > end:
            need = stop + 2 - pos
            break
        if buffer[stop] != 13 or buffer[stop + 1] != 10:
            break
        add_subject(subject)
        add_reply(reply)
        add_header_len(header_len)
        add_payload(buffer[start:stop])
        singles -= 1
        if singles or size > _BULK_PAYLOAD_MAX:
            pos = stop + 2
            singles = singles or 1
            continue
        first = pos
        pos = stop + 2
        if end - pos < pos - first or not buffer.startswith(args[0], pos):
            singles = 1
            continue
        took = _stride(buffer, first, pos, line_end, args, size, subjects, replies, payloads)
        header_lens += [header_len] * took
        pos += took * (pos - first)
        if took < _BULK_MIN and buffer.startswith(args[0] + b" ", pos):
            before = len(payloads)
            pos = _records(
                *(buffer, pos, args[0], arg_count, max_control_line, max_payload),
                *(subjects, replies, header_lens, payloads),
            )
            took = len(payloads) - before
        if took >= _BULK_MIN:
            singles, backoff = 1, _BULK_MIN
        else:
            singles, backoff = backoff, min(backoff * 4, _SINGLES_MAX)
            if may_have_odd_blanks:
                may_have_odd_blanks = find(b"\x0b", pos) >= 0 or find(b"\x0c", pos) >= 0
    return Parsed(subjects, replies, header_lens if any(header_lens) else [], payloads, pos, need)


def _stride(
    buffer: bytes,
    first: int,
    pos: int,
    line_end: int,
    args: list[bytes],
    size: int,
    subjects: list[bytes],
    replies: list[bytes],
    payloads: list[bytes],
) -> int:
    """How many messages from ``pos`` on have exactly the shape of the one at ``first``; they are appended.

    The model message must be written the canonical way (single blanks, CR LF).
    """
    stride = pos - first
    if buffer[pos + stride - 2 : pos + stride] != b"\r\n" or buffer[first:line_end] != b" ".join(args) + b"\r":
        return 0
    count = (len(buffer) - pos) // stride
    if not count:
        return 0
    op, subject = args[0], args[1]
    has_reply = len(args) == (4 if op == b"PUB" else 5)
    subject_at = len(op) + 1
    subject_len = len(subject)
    reply = args[2] if has_reply else b""
    reply_at = subject_at + subject_len + 1
    tail_at = reply_at + len(reply) if has_reply else subject_at + subject_len
    line_len = line_end + 1 - first
    same_subject = buffer.startswith(subject, pos + subject_at)
    same_reply = not has_reply or buffer.startswith(reply, pos + reply_at)
    if has_reply and not same_subject and not same_reply:
        template = f"{subject_at}x{subject_len}sx{len(reply)}s{line_len - tail_at}x{size}s2x"
    elif not same_subject:
        template = f"{subject_at}x{subject_len}s{line_len - reply_at + 1}x{size}s2x"
    elif not same_reply:
        template = f"{reply_at}x{len(reply)}s{line_len - tail_at}x{size}s2x"
    else:
        template = f"{line_len}x{size}s2x"
    # Offsets whose byte must be the model's, the least likely to agree by chance first.
    fixed = [stride - 1, stride - 2, *range(tail_at, line_len), *range(subject_at)]
    fixed.extend(range(subject_at, reply_at) if same_subject else (reply_at - 1,))
    if has_reply and same_reply:
        fixed.extend(range(reply_at, tail_at))
    for offset in fixed:
        at = pos + offset
        column = buffer[at : at + (count - 1) * stride + 1 : stride]
        count -= len(column.lstrip(buffer[first + offset : first + offset + 1]))
        if count <= 0:
            return 0
    columns = _unpack(buffer, pos, stride, count, template, 1 + (not same_subject) + (not same_reply))
    varying = columns[:-1]
    for column_of_tokens in varying:
        joined = b"\n".join(column_of_tokens)
        if _SPACE in joined or _TAB in joined or _CR in joined or joined.count(b"\n") != count - 1:
            return 0
        if _VT in joined or _FF in joined:
            return 0
    if same_subject:
        subjects += [subject] * count
    else:
        subjects += varying[0]
    if same_reply:
        replies += [reply] * count
    else:
        replies += varying[-1]
    payloads += columns[-1]
    return count


def _unpack(buffer: bytes, pos: int, stride: int, count: int, template: str, width: int) -> list[list[bytes]]:
    """The ``width`` fields of ``count`` records, as columns. Many records at a time: a tuple for each costs more."""
    columns: list[list[bytes]] = [[] for _ in range(width)]
    whole = count // _UNPACKED * _UNPACKED
    for unpack, begin, step, end in (
        (Struct(template * _UNPACKED).unpack_from, 0, _UNPACKED, whole),
        (Struct(template * (count - whole)).unpack_from, whole, _UNPACKED, count),
    ):
        for at in range(begin, end, step):
            fields = unpack(buffer, pos + at * stride)
            for i, column in enumerate(columns):
                column += fields[i::width]
    return columns


def _records(
    buffer: bytes,
    pos: int,
    op: bytes,
    arg_count: int,
    max_control_line: int,
    max_payload: int,
    subjects: list[bytes],
    replies: list[bytes],
    header_lens: list[int],
    payloads: list[bytes],
) -> int:
    """Take what stands from ``pos`` on, up to the last ``op`` in a window, as messages of ``arg_count`` arguments.

    The new position: unchanged if anything there is not such a message. The first thing at ``pos`` is an ``op``.
    """
    pieces = buffer[pos + len(op) + 1 : pos + _BULK_WINDOW].split(b"\r\n%b " % op)
    del pieces[-1]  # who knows where it ends
    count = len(pieces)
    if count < _BULK_MIN:
        return pos
    heads, line_ends, bodies = zip(*[piece.partition(b"\n") for piece in pieces], strict=True)
    if line_ends.count(b"\n") != count or max(map(len, heads)) > max_control_line:
        return pos
    joined = b" \n ".join(heads)
    if _TAB in joined or _VT in joined or _FF in joined or joined.count(b"\r") != count:
        return pos
    # Every head must have the same number of tokens, the last a size with the only CR: then the separators and the
    # sizes fall into one column each.
    tokens = joined.split(b" ")
    width = arg_count
    if len(tokens) + 1 != width * count or tokens[width - 1 :: width].count(b"\n") != count - 1:
        return pos
    sizes = list(map(_size_of_last.__getitem__, tokens[width - 2 :: width]))
    if sizes != list(map(len, bodies)) or (max_payload < _BULK_WINDOW and max(sizes) > max_payload):
        return pos
    own_subjects = tokens[0::width]
    is_headed = op == b"HPUB"
    has_reply = arg_count == (5 if is_headed else 4)
    own_replies = tokens[1::width] if has_reply else [b""] * count
    if b"" in own_subjects or (has_reply and b"" in own_replies):
        return pos
    if is_headed:
        own_header_lens = list(map(_size_of.__getitem__, tokens[width - 3 :: width]))
        if not all(map(le, own_header_lens, sizes)):
            return pos
        header_lens += own_header_lens
    else:
        header_lens += [0] * count
    subjects += own_subjects
    replies += own_replies
    payloads += bodies
    return pos + sum(map(len, pieces)) + count * (len(op) + 3)


def format_messages(
    sid: bytes,
    subjects: Sequence[bytes],
    replies: Sequence[bytes],
    header_lens: Sequence[int],
    payloads: Sequence[bytes],
) -> bytes:
    """MSG (or HMSG where a header length is not 0) for each message, in order, for one subscription.

    ``replies`` and ``header_lens`` may be empty: none. At least one message.
    """
    if header_lens and any(header_lens):
        return _format_with_headers(sid, subjects, replies, header_lens, payloads)
    count = len(payloads)
    subject = subjects[0]
    same_subject = subjects.count(subject) == count
    sizes = list(map(len, payloads))
    has_replies = bool(replies) and (replies[0] != b"" or replies.count(b"") != count)
    if same_subject and not has_replies and sizes.count(sizes[0]) == count:
        head = b"MSG %b %b %d\r\n" % (subject, sid, sizes[0])
        return b"".join((head, (b"\r\n" + head).join(payloads), b"\r\n"))
    size_lines = map(_size_line.__getitem__, sizes)
    if has_replies and b"" in replies:
        replies = [reply and reply + b" " for reply in replies]
        gap = b""
    else:
        gap = b" "
    if same_subject:
        if not has_replies:
            pieces = [b"\r\nMSG %b %b " % (subject, sid)] * (3 * count)
            pieces[1::3] = size_lines
            pieces[2::3] = payloads
        else:
            pieces = [b"\r\nMSG %b %b " % (subject, sid)] * (5 * count)
            pieces[1::5] = replies
            pieces[2::5] = [gap] * count
            pieces[3::5] = size_lines
            pieces[4::5] = payloads
        pieces[0] = pieces[0][2:]
    elif not has_replies:
        pieces = [b"\r\nMSG "] * (5 * count)
        pieces[1::5] = subjects
        pieces[2::5] = [b" %b " % sid] * count
        pieces[3::5] = size_lines
        pieces[4::5] = payloads
        pieces[0] = b"MSG "
    else:
        pieces = [b"\r\nMSG "] * (7 * count)
        pieces[1::7] = subjects
        pieces[2::7] = [b" %b " % sid] * count
        pieces[3::7] = replies
        pieces[4::7] = [gap] * count
        pieces[5::7] = size_lines
        pieces[6::7] = payloads
        pieces[0] = b"MSG "
    pieces.append(b"\r\n")
    return b"".join(pieces)


def _format_with_headers(
    sid: bytes,
    subjects: Sequence[bytes],
    replies: Sequence[bytes],
    header_lens: Sequence[int],
    payloads: Sequence[bytes],
) -> bytes:
    """``format_messages`` for a run in which some message has a header block."""
    count = len(payloads)
    all_headers = 0 not in header_lens
    if replies:
        replies = [reply and reply + b" " for reply in replies]
    else:
        replies = [b""] * count
    if all_headers:
        arguments: list[object] = [sid] * (6 * count)
        arguments[0::6] = subjects
        arguments[2::6] = replies
        arguments[3::6] = header_lens
        arguments[4::6] = map(len, payloads)
        arguments[5::6] = payloads
        return (b"HMSG %b %b %b%d %d\r\n%b\r\n" * count) % tuple(arguments)
    return b"".join(
        [
            b"HMSG %b %b %b%d %d\r\n%b\r\n" % (subject, sid, reply, header_len, len(payload), payload)
            if header_len
            else b"MSG %b %b %b%d\r\n%b\r\n" % (subject, sid, reply, len(payload), payload)
            for subject, reply, header_len, payload in zip(subjects, replies, header_lens, payloads, strict=True)
        ]
    )


def strip_headers(header_lens: Sequence[int], payloads: Sequence[bytes]) -> Sequence[bytes]:
    """The bodies, for a subscriber that does not understand headers."""
    if not header_lens or not any(header_lens):
        return payloads
    return [payload[n:] if n else payload for n, payload in zip(header_lens, payloads, strict=True)]


def pub_ack_payloads(stream: bytes, seqs: Sequence[int]) -> list[bytes]:
    """``{"stream":"S","seq":N}`` for each sequence. ``stream`` is put in as it is."""
    head = b'{"stream":"%b","seq":' % stream
    return [b"%b%d}" % (head, seq) for seq in seqs]


def format_pub_acks(stream: bytes, replies: Sequence[bytes], sid: bytes, seqs: Sequence[int]) -> bytes:
    """A MSG with a PubAck for each reply subject, in order, for one subscription. No reply may be empty."""
    count = len(replies)
    if count == 1:
        payload = b'{"stream":"%b","seq":%d}' % (stream, seqs[0])
        return b"MSG %b %b %d\r\n%b\r\n" % (replies[0], sid, len(payload), payload)
    fixed = len(b'{"stream":"","seq":}') + len(stream)
    low, high = min(seqs), max(seqs)
    digits = len(b"%d" % high)
    if len(b"%d" % low) == digits:
        template = b'MSG %%b %b %d\r\n{"stream":"%b","seq":%%d}\r\n' % (
            sid.replace(b"%", b"%%"),
            fixed + digits,
            stream.replace(b"%", b"%%"),
        )
        arguments: list[object] = [None] * (2 * count)
        arguments[0::2] = replies
        arguments[1::2] = seqs
        return (template * count) % tuple(arguments)
    return format_messages(sid, replies, (), (), pub_ack_payloads(stream, seqs))
