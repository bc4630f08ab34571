"""Whether tests are to run long: ``JETSTORE_DEEP=1``."""

from __future__ import annotations

import os

IS_DEEP = os.environ.get("JETSTORE_DEEP", "") not in ("", "0")
