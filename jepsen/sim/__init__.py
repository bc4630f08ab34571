"""The simulator: the production node, front end included, on virtual time, a simulated network and a simulated disk.

One seed is one run, bit for bit, under any ``PYTHONHASHSEED``; a failing run prints the one command that replays it.

Start with ``world.py`` (a machine that runs a node, dies and comes back), then ``loop.py`` (virtual-time asyncio),
``network.py`` (in-memory transports), ``vfs.py`` (the disk) and ``run.py`` (what one seed does).
``vfs.py`` stands alone: store tests use it to enumerate crashes.

May import everything in ``jetstore`` and ``server``; nothing there imports this. Specified by ``docs/testing.md``.
"""
