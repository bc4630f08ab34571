"""Real processes, a real kernel and real files: what the simulator assumes is proved here.

Works on any server that speaks the NATS protocol (``process.py`` turns a name into a command line), so that the same
rounds run on jetstore and on nats-server. Standard library only, except ``fuse_layer.py`` (mfusepy).

Start with ``process.py`` (a server under test), ``control.py`` (a small blocking client), ``client.py`` (the load),
``load.py`` (the load in its own process), then the tests: ``kill.py``, ``power.py``, ``flip.py``. How to run them and
what they prove: docs/testing.md.
"""
