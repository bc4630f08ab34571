"""A configuration file → ``Options``, with every mistake collected.

The keys of the top level are the tables listed in ``TOP_LEVEL``; each block's keys are in its own module. A row that is
in no table is either known to nats-server (refused by name, ``unsupported.py``) or an unknown field; a key that a
variable used is neither. A feature that we do not have may be switched off explicitly (``false``).
``values.py`` says how a block is added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from server.config import accounts, authorization, cluster, general, jetstream, operator, tls, unsupported, websocket
from server.config.errors import ConfigError, ConfigProblems
from server.config.jetstream import JetStreamOptions
from server.config.options import Options
from server.config.parser import parse_file
from server.config.tree import Entry, digest
from server.config.values import Reader, Table

EMPTY: Final = "config has no values or is empty"
TOP_LEVEL: Final[Table] = {
    **general.TOP_LEVEL,
    **authorization.TOP_LEVEL,
    **accounts.TOP_LEVEL,
    **tls.TOP_LEVEL,
    **websocket.TOP_LEVEL,
    **jetstream.TOP_LEVEL,
    **cluster.TOP_LEVEL,
    **operator.TOP_LEVEL,
}
REFUSED: Final = unsupported.TOP_LEVEL - TOP_LEVEL.keys()


def load_options(path: Path, environment: Mapping[str, str], *, is_test: bool = False) -> Options:
    """The options a file sets. ``ConfigError`` with the text for standard error otherwise.

    ``is_test``: an empty file and whatever would only be a warning are errors.
    """
    tree = parse_file(path, environment)
    reader = Reader(str(path))
    fields = reader.block(tree, TOP_LEVEL, REFUSED)
    if "store_dir" in fields and (twice := _store_dir_of_block(tree)) is not None:
        reader.complain(twice, "Duplicate 'store_dir' configuration")
    if not tree:
        if is_test:
            raise ConfigError(f"{path}: {EMPTY}\n")
        reader.warnings.append(f"{path}: {EMPTY}")
    problems = [*reader.problems, *(reader.soft_problems if is_test else ())]
    if problems:
        raise ConfigProblems(sorted(problems, key=lambda problem: (problem.file != str(path), problem.line)))
    reader.warnings.extend(str(problem) for problem in reader.soft_problems)
    problem = operator.with_operator(fields, reader.warnings.append)
    if problem:
        raise ConfigError(f"{path}: {problem}\n")
    if "store_dir" in fields:
        given = fields.get("jetstream", JetStreamOptions())
        store_dir = fields.pop("store_dir")
        fields["jetstream"] = replace(given, store_dir=given.store_dir or store_dir)
    return Options(**fields, config_file=str(path), config_digest=digest(tree), warnings=tuple(reader.warnings))


def _store_dir_of_block(tree: dict[str, Entry]) -> Entry | None:
    """Where the ``jetstream`` block names a directory."""
    for key, entry in tree.items():
        if key.lower() == "jetstream" and isinstance(entry.value, dict):
            for name, inner in entry.value.items():
                if name.lower() in ("store_dir", "storedir", "store"):
                    return inner
    return None
