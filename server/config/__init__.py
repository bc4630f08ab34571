"""The configuration file: its language, the options it sets, and what is refused.

``parser.py`` turns text into a tree of ``Entry`` values with positions (variables and includes
resolved); ``reader.py`` turns the tree into ``options.Options`` and collects every mistake as FILE:LINE:COL; the keys
it knows are the tables there, those nats-server knows and we do not have yet are in ``unsupported.py``.
May import ``jetstore`` only. Start at ``options.py``. Operators' view: ``docs/operations/configuration.md``.
"""
