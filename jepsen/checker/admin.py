"""admin (A1): what is under a name is what the last committed change of it says: one register per name, linearizable.

Operations ``admin``: args ``stream`` (of the workload), ``name``, ``kind`` (``create`` · ``update`` · ``delete`` ·
``look``) and ``version`` (of what is made or changed). Refused ones say with ``there`` what they saw, if they say it.
"""

from __future__ import annotations

from jepsen.checker.linearizable import Step, check_register
from jepsen.checker.tally import compared
from jepsen.history import FAIL, NEVER_NS, OK, History, Operation

KINDS = {"create": "make", "update": "change", "delete": "unmake"}


def check_admin(history: History, stream: str) -> list[str]:
    """Each name by itself."""
    steps: dict[str, list[Step]] = {}
    for operation in history.of("admin"):
        step = _step(operation) if operation.args["stream"] == stream else None
        if step is not None:
            steps.setdefault(operation.args["name"], []).append(step)
    problems = []
    for name, taken in sorted(steps.items()):
        compared("admin", len(taken))
        verdict, told = check_register(taken)
        if verdict is False:
            problems.append(f"admin: {name}: {told}")
        elif verdict is None:
            problems.append(f"admin-unknown: {name}: {told}")
    return problems


def _step(operation: Operation) -> Step | None:
    start, end, told = operation.start_ns, operation.end_ns, operation.result
    kind, version = KINDS.get(operation.args["kind"], ""), operation.args["version"]
    if operation.outcome == FAIL or not kind:
        if "there" not in told:
            return None
        if told["there"] and told.get("shown"):
            return Step("read", told["shown"], None, start, end, operation)
        return Step("present" if told["there"] else "absent", None, None, start, end, operation)
    return Step(kind, version, None, start, end if operation.outcome == OK else NEVER_NS, operation)
