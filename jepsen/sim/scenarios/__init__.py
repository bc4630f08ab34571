"""Named stories that once cost somebody data: each a script over a world of several machines, under load.

``python -m jepsen sim --scenario NAME`` plays one with many seeds (``all``: each of them). The numbers are those of the
fault matrix, §5. Start with ``stage.py``; the stories are in ``power.py``, ``damage.py``, ``disks.py`` and
``anywhere.py``.
"""

from __future__ import annotations

from jepsen.sim.scenarios import anywhere, damage, disks, power
from jepsen.sim.scenarios.stage import Outcome, Scenario, play_scenario

__all__ = ["SCENARIOS", "Outcome", "Scenario", "play_scenario"]

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario for scenario in (*power.SCENARIOS, *damage.SCENARIOS, *disks.SCENARIOS, *anywhere.SCENARIOS)
}
