"""What one seed does: workloads, kinds of faults, sizes and limits, all drawn from it (a swarm of small worlds)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from random import Random

from jepsen.nemesis.damage import FILE_CLASSES
from jepsen.nemesis.damage import KINDS as DAMAGE_KINDS
from jepsen.nemesis.schedule import CLOCK_KINDS, Strike, draw_kinds, draw_strikes
from jepsen.nemesis.storm import STORM, storms
from jepsen.workload.acks import Acks
from jepsen.workload.admin import Admin
from jepsen.workload.append import Append
from jepsen.workload.base import Setting, Workload
from jepsen.workload.batch import Batch
from jepsen.workload.copies import Copies
from jepsen.workload.counter import Counter
from jepsen.workload.fast import Fast
from jepsen.workload.idempotent import Idempotent
from jepsen.workload.limits import Limits as KeptLimits
from jepsen.workload.queue import WorkQueue
from jepsen.workload.register import Register
from jepsen.workload.removal import Removal
from jepsen.workload.timed import Timed
from jetstore.limits import KIB, MIB, Limits

READ_KINDS = frozenset(["read-error", "open-error"])
"""What could not be read once counts as damaged until the next start."""
WORKLOADS: dict[str, Callable[[Setting], Workload]] = {
    "A": Append,
    "B": Register,
    "C": WorkQueue,
    "D": Idempotent,
    "E": Batch,
    "F": Copies,
    "G": Acks,
    "H": Admin,
    "I": Removal,
    "J": Counter,
    "K": KeptLimits,
    "L": Fast,
    "T": Timed,
}
DRAWN = ("A", "B", "C", "D", "G", "I")
"""What the dice for workloads choose from; the others join by dice of the seed's own (``join_workloads``)."""
JOINING = (("join", ("E",), 0.2), ("more 233664", ("F", "H", "J", "K", "T"), 0.35), ("fast 4022", ("L",), 0.12))
"""Which others join (one of the names), how often, and the word that their dice begin with: a set that was there keeps
its word, so that a seed that draws nothing of a new one is the run that it always was. Words are such that none of the
committed seeds (``tests/sim/seeds.txt``) draws any."""


LOOK_S = 0.001
"""What a look at the clock costs in a quarter of the seeds: code that limits its own slices does so then."""
LOOK_OF_MANY_S = 0.0003
"""The same with five machines. All machines share one processor, and five have more than five times the looks of one,
for their links: at ``LOOK_S`` they took up to 99 % of the time, and whatever is to come soon came late."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One run."""

    nodes: int
    workloads: tuple[str, ...]
    duration_s: float
    strikes: tuple[Strike, ...]
    kinds: frozenset[str]
    limits: Limits
    capacity_bytes: int
    pace_s: float
    publishes_max: int
    time_cost_s: float
    damage: tuple[tuple[str, str, int], ...]
    """(file class, kind, dice) struck once before the last start of a lone server; the run then expects named loss,
    never wrong answers."""
    last_end: str
    """How the server goes before the final reads: ``none`` · ``restart`` · ``kill`` · ``power``."""

    @property
    def events(self) -> int:
        """How many events ``only`` counts: strikes, damages, the last end."""
        return len(self.strikes) + len(self.damage) + 1

    def only(self, events: Collection[int]) -> Plan:
        """The same run with just these events, by number."""
        strikes = tuple(strike for number, strike in enumerate(self.strikes) if number in events)
        damage = tuple(struck for number, struck in enumerate(self.damage, len(self.strikes)) if number in events)
        reads_fail = not self.kinds.isdisjoint(READ_KINDS)
        last_end = self.last_end if reads_fail or self.events - 1 in events else "none"
        return replace(self, strikes=strikes, damage=damage, last_end=last_end)

    @property
    def clocks_jump(self) -> bool:
        return bool(self.kinds & CLOCK_KINDS)


def draw_plan(
    rng: Random,
    *,
    nodes: int = 1,
    workloads: tuple[str, ...] = (),
    faults: frozenset[str] | None = None,
    damage: bool | None = None,
    is_small: bool = False,
) -> Plan:
    """A plan; ``workloads`` and ``faults`` (names of kinds) narrow it, ``damage`` forces or forbids damage.

    ``is_small``: the same dice, a run of a second or less.
    """
    count = rng.choice((1, 1, 2, 3))
    picked = tuple(sorted(rng.sample(DRAWN, count)))
    duration_s = rng.choice((2.0, 5.0, 10.0))
    publishes_max = rng.choice((100, 300, 1000))
    if nodes > 1:
        publishes_max = min(publishes_max, 1400 // len(picked))
    if is_small:
        picked, duration_s, publishes_max = picked[:2], duration_s / 2, 60
    kinds = draw_kinds(rng, faults, nodes=nodes)
    strikes = draw_strikes(rng, kinds, duration_s)
    is_damaged = rng.random() < 0.15
    last_end = rng.choice(("none", "restart", "kill", "power", "power"))
    if last_end == "none" and any(kind.name in READ_KINDS for kind in kinds):
        last_end = "kill"
    struck = tuple(
        (rng.choice(sorted(FILE_CLASSES)), rng.choice(DAMAGE_KINDS), rng.getrandbits(64))
        for _ in range(rng.choice((1, 1, 1, 2)))
    )
    return Plan(
        nodes=nodes,
        workloads=workloads or picked,
        duration_s=duration_s,
        strikes=tuple(strikes),
        kinds=frozenset(kind.name for kind in kinds),
        limits=draw_limits(rng),
        capacity_bytes=rng.choice((32 * MIB, 256 * MIB)),
        pace_s=rng.choice((0.005, 0.02, 0.1)),
        publishes_max=publishes_max,
        time_cost_s=rng.choice((0.0, 0.0, 0.0, LOOK_S if nodes <= 3 else LOOK_OF_MANY_S)),
        damage=struck if nodes == 1 and (is_damaged if damage is None else damage) else (),
        last_end=last_end,
    )


def join_workloads(plan: Plan, seed: int) -> Plan:
    """The plan with more workloads, for some seeds; a seed without any is the run that it always was."""
    picked = set(plan.workloads)
    for word, names, chance in JOINING:
        dice = Random(f"{word} {seed}")
        if dice.random() < chance:
            picked.add(dice.choice([name for name in names if name != "F" or plan.nodes == 1]))
    return replace(plan, workloads=tuple(sorted(picked)))


def join_storms(plan: Plan, seed: int) -> Plan:
    """The plan with storms (S1), for some seeds; one without any is the run that it always was."""
    joined = [Strike(at_s, STORM, dice) for at_s, dice in storms(seed, plan.duration_s)]
    if not joined:
        return plan
    strikes = sorted((*plan.strikes, *joined), key=lambda strike: strike.at_s)
    return replace(plan, strikes=tuple(strikes), time_cost_s=0.0)  # all machines share one processor: it has its limits


def draw_limits(rng: Random) -> Limits:
    """Tiny bounds, so that every boundary is met within seconds.

    A block may grow beyond its bound by one entry and what one group writes again; two such blocks fit into a file.
    """
    file_bytes = rng.choice((128 * KIB, 256 * KIB, 512 * KIB))
    block_bytes = rng.choice((16 * KIB, 24 * KIB))
    segment_bytes = rng.choice((8 * KIB, 32 * KIB, 256 * KIB))
    return Limits(
        max_payload_bytes=4 * KIB,
        max_pending_bytes=rng.choice((256 * KIB, 4 * MIB)),
        write_pause_bytes=rng.choice((16 * KIB, 128 * KIB)),
        entry_bytes_max=rng.choice((8 * KIB, 12 * KIB)),
        uncommitted_bytes_max=rng.choice((32 * KIB, 4 * MIB)),
        uncommitted_messages_max=rng.choice((50, 100_000)),
        journal_file_bytes=file_bytes,
        journal_spare_files=rng.choice((1, 3)),
        journal_bytes_max=file_bytes * rng.choice((8, 12, 40)),
        journal_group_bytes=rng.choice((16 * KIB, 64 * KIB, MIB)),
        journal_reappend_bytes=rng.choice((4 * KIB, 20 * KIB)),
        block_bytes_max=block_bytes,
        zeroing_bytes=rng.choice((8 * KIB, 64 * KIB)),
        idle_block_ms=rng.choice((5, 20, 100)),
        segment_bytes=segment_bytes,
        frame_bytes_max=rng.choice((512, 4 * KIB)),
        segment_flush_bytes=rng.choice((1, 2 * KIB, 16 * KIB)),
        unflushed_bytes_max=rng.choice((16 * KIB, MIB)),
        segment_sync_bytes=rng.choice((4 * KIB, 64 * KIB)),
        index_tail_rows_max=rng.choice((5, 100_000)),
        dedupe_ids_max=100_000,
        record_bytes_max=MIB,
        delivery_batch_messages=rng.choice((3, 1000)),
        delivery_batch_bytes=rng.choice((2 * KIB, MIB)),
        read_cache_bytes=rng.choice((4 * KIB, MIB)),
        disk_reserve_bytes=MIB,
        disk_resume_bytes=MIB + 256 * KIB,
    )
