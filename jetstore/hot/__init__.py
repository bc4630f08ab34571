"""Byte kernels: tight loops over whole batches, no policy, no I/O, no state.

Lives here: the encoding of message batches (``frame.py``) and of the client wire format (``wire.py``). Every kernel
takes and returns columns or bytes; a kernel may later get a compiled twin with the same signature and the same errors.
May import: ``jetstore.limits``, ``types``, ``errors`` and, in ``crc.py``, the ``crc32c`` library; nothing that touches
a clock, a file or a socket. Start with ``columns.py`` (the plain values), then ``frame.py``.
Specified by ``docs/format/segment.md`` (frames) and the NATS client protocol (wire).
"""
