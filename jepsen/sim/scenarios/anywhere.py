"""Clients that are connected to any server, while leaders go, links are cut and machines die under them."""

from __future__ import annotations

from jepsen.sim.run import Run
from jepsen.sim.scenarios.stage import Scenario, a_while, isolate, join, leader_of, serving


async def any_server(run: Run) -> None:
    """Whoever leads, or anybody else, is cut off, killed, stands still or loses power; requests go through the rest."""
    links = run.world.links
    for _ in range(5):
        await a_while(run, 1)
        machine = leader_of(run) if run.rng.random() < 0.6 else run.rng.choice(run.world.machines)
        others = [other for other in run.world.machines if other is not machine]
        how = run.rng.choice(("isolate", "bridge", "kill", "pause", "power", "restart"))
        run.tell(f"{how}: {machine.name}")
        if how == "isolate":
            isolate(run, [machine])
        elif how == "bridge":  # the others reach it, and not each other
            links.partition([others[0].name], [others[1].name])
        elif how == "kill":
            machine.kill(2.0)
        elif how == "pause":
            machine.pause(3.0)
        elif how == "restart":
            machine.restart(0.5)
        else:
            machine.power_cut(2.0)
        await a_while(run, 3)
        join(run)
        await serving(run, *run.world.machines)


SCENARIOS = (Scenario("any-server", 3, any_server, ("A", "B", "D", "G"), clients_anywhere=True),)
