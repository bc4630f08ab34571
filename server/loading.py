"""Modules loaded at a start of the server, without what they would do beside that."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, cast

SWITCH_INTERVAL_S = 0.0005
"""How long modules are loaded while another thread waits for the GIL (for a moment only, between system calls)."""


@contextmanager
def loading() -> Iterator[None]:
    """Modules are loaded in here: a thread that opens the store need not wait for them.

    The cyclic collector does not look at what is made, now or later: modules and classes stay anyway.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        sys.setswitchinterval(interval)


def import_structlog() -> None:
    """structlog, without ``rich``: it loads that where it is installed, for a coloured console output that is not used.

    ``rich`` itself stays importable afterwards (the benchmark's tables use it).
    """
    if "structlog" in sys.modules or "rich" in sys.modules:
        return
    modules = cast("dict[str, Any]", sys.modules)  # Any: None is how Python marks a module that is not to be found
    modules["rich"] = None
    try:
        import_module("structlog")
    finally:
        del modules["rich"]
