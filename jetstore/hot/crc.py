"""``crc32c(data, value)``: CRC-32C of bytes, going on from ``value``; the ``crc32c`` library's compiled function.

The library's compiled module is loaded by itself. Its package would load ``importlib.metadata``, ``email`` and
``argparse`` as well, to know its own version and for a command of its own: 15 ms of CPU at each start of a server, and
at each of its writer process.
"""

from __future__ import annotations

from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from typing import Protocol, cast

from jetstore.types import Buffer


class Crc32c(Protocol):
    """What the library's function takes and returns."""

    def __call__(self, data: Buffer, value: int = 0, /) -> int: ...


def compiled() -> Crc32c:
    """The library's function."""
    package = find_spec("crc32c")  # looks for it, and loads nothing
    if package is None:
        raise ModuleNotFoundError("No module named 'crc32c'", name="crc32c")
    spec = PathFinder.find_spec("_crc32c", package.submodule_search_locations)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError("No module named 'crc32c._crc32c'", name="crc32c._crc32c")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast(Crc32c, module.crc32c)


crc32c = compiled()
