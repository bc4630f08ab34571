"""Durable bytes: the only room that knows what a disk holds.

``ports`` are the seams that the rest of the engine builds against, ``vfs`` the file port (``os_vfs`` the real one).
``journal/`` is the log of all groups, ``checkpoint_files`` and ``identity`` small files that exist twice, the segment
and index modules hold a stream's messages. ``writer`` executes every durable write; ``disk`` decides where: in a
process of its own (``writer_process``, spoken to in ``frames``) or, in the simulator, on the loop. ``lock`` keeps a
second server out.

May import ``jetstore.hot`` and below; only ``disk`` knows asyncio. Start at ``ports.py``, then
``journal/__init__.py``. Specified in ``docs/format/*.md``.
"""
