"""The ``jetstore`` command: argument parsing and printing only.

``main.py`` is the group and imports each subcommand's module when it is asked for; ``serve.py`` reads flags
(``flags.py``) and file into ``Options``, sets up logging (``log.py``) and calls ``server.run.run``. May import
everything. A new subcommand is a module with a click command and one line in ``main.COMMANDS``.
"""
