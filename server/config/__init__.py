"""The configuration file: its language, the options it sets, and what is refused.

``parser.py`` turns text into a tree of ``Entry`` values with positions (variables and includes
resolved); ``reader.py`` turns the tree into ``options.Options`` and collects every mistake as FILE:LINE:COL. Each
block has a module (``jetstream.py``, ``cluster.py``, ``authorization.py``; keys outside blocks: ``general.py``) with
its dataclass and its table of keys; ``values.py`` is the machinery they share and says how a block is added.
``operator.py`` reads operators and their accounts; ``jwt.py`` checks signed claims, ``claims.py`` says what they mean.
May import ``jetstore`` only. Start at ``options.py``. Operators' view: ``docs/operations/configuration.md``.
"""
