"""A power cut at every boundary of a small journal's life × every subset of what was un-synced; once and twice.

The model knows only which appends were acknowledged. After any cut the recovery must be exactly that model, or that
model plus the whole of the one append that was under way: nothing less, nothing torn, nothing else. Once an opening
returned, what it said must stay true. ``JETSTORE_DEEP=1`` follows every first crash into every second one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from random import Random

import pytest
from deep import IS_DEEP
from journal_model import (
    JOURNAL_ID,
    Model,
    checkpoint,
    entries,
    generation,
    hard,
    reset,
    small_limits,
)

from jepsen.sim.faults import SimCrash, fault
from jepsen.sim.image import Atom
from jepsen.sim.vfs import SimVfs
from jetstore.limits import KIB
from jetstore.store.journal.append import Journal
from jetstore.store.journal.recovery import open_journal
from jetstore.store.ports import JournalRecovery, Record

LIMITS = small_limits(file_bytes=32 * KIB, block_bytes=8 * KIB, spares=2, zeroing=16 * KIB)
SUBSETS_MAX = 1 << (10 if IS_DEEP else 6)
pytestmark = pytest.mark.timeout(1800 if IS_DEEP else 120)

Step = tuple[str, list[Record]]


def story() -> list[Step]:
    """A life: several groups, conflicts, checkpoints, a reset, a tombstone, rolls over files and their reuse."""
    steps: list[Step] = [
        ("append", [generation(1, 1), hard(1, 1), entries(1, 1, 0, 1, [b"a" * 300, b"b" * 900])]),
        ("idle", []),
        ("append", [hard(2, 3, 2), entries(2, 3, 0, 1, [b"c"]), hard(1, 2), entries(1, 2, 1, 2, [b"B" * 700])]),
        ("append", [checkpoint(1, 1, 1), entries(2, 3, 3, 2, [b"d" * 1200])]),
        ("append", [entries(1, 2, 2, 3, [b"e" * 4000])]),
        ("append", [hard(2, 4), entries(2, 4, 3, 2, [b"f", b"g"]), checkpoint(1, 2, 2)]),
        ("zero", []),
        ("append", [checkpoint(1, 2, 3), reset(2, 4, 3)]),
        ("append", [hard(3, 1), entries(3, 1, 0, 1, [b"h" * 100])]),
        ("idle", []),
        ("idle", []),
        ("zero", []),
        ("zero", []),
        ("append", [entries(2, 4, 4, 4, [b"i" * 2000]), generation(3, 0)]),
        ("append", [entries(1, 2, 2, 4, [b"j" * 3000])]),
        ("append", [entries(1, 2, 2, 5, [b"k" * 3000]), checkpoint(2, 4, 4)]),
        ("zero", []),
        ("append", [entries(1, 2, 2, 6, [b"l" * 100]), checkpoint(1, 2, 5)]),
        ("idle", []),
        ("idle", []),
        ("zero", []),
        ("zero", []),
        ("zero", []),
        ("append", [entries(2, 4, 4, 5, [b"m" * 6000])]),
        ("append", [entries(1, 2, 2, 7, [b"n" * 6000]), checkpoint(2, 4, 5)]),
        ("append", [entries(1, 2, 2, 8, [b"o" * 6000])]),
        ("append", [entries(4, 9, 0, 1, [b"p" * 500]), checkpoint(1, 2, 7)]),
        ("idle", []),
        ("zero", []),
    ]
    return steps


class Life:
    """What a machine did until it died, on a disk that is still as it was then."""

    def __init__(self, vfs: SimVfs) -> None:
        self.vfs = vfs
        self.told = Model()
        self.under_way: list[Record] = []

    def open(self) -> tuple[Journal, JournalRecovery]:
        return open_journal(self.vfs, LIMITS, JOURNAL_ID)

    def live(self, steps: list[Step], journal: Journal) -> None:
        for what, records in steps:
            if what == "append":
                self.under_way = records
                journal.append(records)
                self.told.told(records)
                self.under_way = []
            elif what == "idle":
                if journal.wants_idle_block:
                    journal.idle()
            else:
                journal.zero_some()

    def possible(self) -> list[Model]:
        """What may be found now: with or without what was under way."""
        models = [self.told]
        if self.under_way:
            after = self.told.copy()
            after.told(self.under_way)
            models.append(after)
        return models


def matching(recovery: JournalRecovery, models: list[Model]) -> Model:
    """The model that the recovery is."""
    differences = []
    for model in models:
        difference = model.matches(recovery)
        if not difference:
            return model
        differences.append(difference)
    raise AssertionError((differences, recovery.findings))


def relevant(vfs: SimVfs) -> list[Atom]:
    """Un-synced atoms that make a difference (writing zeros over zeros does not)."""
    atoms = vfs.unsynced()
    without, whole = vfs.clone(), vfs.clone()
    without.crash_keep([])
    whole.crash_keep(atoms)
    found = []
    for atom in atoms:
        if atom.kind == "sector" and atom.path in without.files() and atom.path in whole.files():
            before = without.peek(atom.path)[atom.start : atom.end]
            after = whole.peek(atom.path)[atom.start : atom.end]
            if before == after:
                continue
        found.append(atom)
    return found


def subsets(atoms: list[Atom], most: int, rng: Random) -> Iterator[list[Atom]]:
    """Every subset, or if there are more than ``most``: none, all, each alone, each missing, and random ones."""
    if 1 << len(atoms) <= most:
        for bits in product((False, True), repeat=len(atoms)):
            yield [atom for atom, bit in zip(atoms, bits, strict=True) if bit]
        return
    yield []
    yield atoms
    for atom in atoms:
        yield [atom]
        yield [other for other in atoms if other is not atom]
    for _ in range(max(0, most - 2 - 2 * len(atoms))):
        yield [atom for atom in atoms if rng.random() < 0.5]


def crashes(run: Callable[[SimVfs], Life], disk: SimVfs, *, stride: int = 1) -> Iterator[Life]:
    """``run`` on copies of ``disk``, dying before each ``stride``-th boundary; last, the life that did not die."""
    boundary = disk.boundaries
    while True:
        boundary += stride
        vfs = disk.clone()
        vfs.crash_at(boundary)
        life = run(vfs)
        yield life
        if not vfs.is_crashed:
            return


def tell(vfs: SimVfs) -> Life:
    """The whole story on a blank disk, until it ends or the machine dies."""
    life = Life(vfs)
    try:
        journal, recovery = life.open()
        assert recovery.is_new
        life.live(story(), journal)
    except SimCrash:
        pass
    return life


def after_power_cut(life: Life, kept: list[Atom]) -> SimVfs:
    disk = life.vfs.clone()
    disk.crash_keep(kept)
    return disk


def check(disk: SimVfs, models: list[Model]) -> None:
    """Open, compare, go on for a few steps, open again: what the first opening said must stay."""
    vfs = disk.clone()
    journal, recovery = open_journal(vfs, LIMITS, JOURNAL_ID)
    model = matching(recovery, models).copy()
    more = [hard(8, 1), entries(8, 1, 0, 1, [b"more" * 50])]
    journal.append(more)
    model.told(more)
    vfs.crash()
    _, again = open_journal(vfs, LIMITS, JOURNAL_ID)
    matching(again, [model])


def test_a_power_cut_at_every_boundary_times_every_subset(record_property: Callable[[str, object], None]) -> None:
    cases = boundaries = 0
    rng = Random(7)
    for life in crashes(tell, SimVfs()):
        boundaries += 1
        for kept in subsets(relevant(life.vfs), SUBSETS_MAX, rng):
            check(after_power_cut(life, kept), life.possible())
            cases += 1
    record_property("cases", cases)
    assert boundaries >= 80
    assert cases > 800


def test_the_story_reaches_what_it_should() -> None:
    vfs = SimVfs()
    vfs.op_log = []
    life = tell(vfs)
    assert life.told.matches(life.open()[1]) == ""
    ops = {op for op, *_ in vfs.op_log}
    assert {"rename", "create", "truncate"} <= ops, "files are made and recycled"
    assert max(int(path[8:28]) for path in vfs.files()) > 6


def test_a_second_power_cut_at_every_boundary_of_the_opening(record_property: Callable[[str, object], None]) -> None:
    cases = 0
    rng = Random(8)
    stride = 1 if IS_DEEP else 11
    firsts_max, seconds_max = (8, 32) if IS_DEEP else (2, 16)
    for life in crashes(tell, SimVfs(), stride=stride):
        models = life.possible()
        for kept in subsets(relevant(life.vfs), firsts_max, rng):
            disk = after_power_cut(life, kept)

            def reopen(vfs: SimVfs, models: list[Model] = models) -> Life:
                again = Life(vfs)
                try:
                    _, recovery = again.open()
                    again.told = matching(recovery, models)
                except SimCrash:
                    pass
                return again

            for second in crashes(reopen, disk):
                said = [second.told] if not second.vfs.is_crashed else models
                for kept_again in subsets(relevant(second.vfs), seconds_max, rng):
                    check(after_power_cut(second, kept_again), said)
                    cases += 1
    record_property("cases", cases)
    assert cases > 500


def test_a_kill_then_a_power_cut_at_every_boundary(record_property: Callable[[str, object], None]) -> None:
    """The process dies (the page cache stays), the next life says what it saw, then the power goes."""
    cases = 0
    for life in crashes(tell, SimVfs()):
        vfs = life.vfs.clone()
        vfs.kill()
        journal, recovery = open_journal(vfs, LIMITS, JOURNAL_ID)
        model = matching(recovery, life.possible())
        journal.close()
        vfs.crash()
        check(vfs, [model])
        cases += 1
    record_property("cases", cases)
    assert cases >= 80


def test_a_failed_sync_nobody_heard_of(record_property: Callable[[str, object], None]) -> None:
    """The sync of a block fails and the process dies; the next life sees the block in the page cache and answers
    from it; then the power goes. What it answered must still be there."""
    cases = 0
    appends = sum(what == "append" for what, _ in story())
    for nth in range(1, 3 * appends):
        vfs = SimVfs()
        life = Life(vfs)
        journal, _ = life.open()
        vfs.inject(fault("fdatasync", nth=nth))
        try:
            life.live(story(), journal)
        except OSError:
            pass
        else:
            break
        vfs.heal()
        vfs.kill()
        _, recovery = life.open()
        model = matching(recovery, life.possible())
        vfs.crash()
        check(vfs, [model])
        cases += 1
    record_property("cases", cases)
    assert cases >= appends


@pytest.mark.parametrize("seed", range(20 if IS_DEEP else 4))
def test_random_lives(seed: int) -> None:
    """Random appends, idle blocks, zeroing, kills and power cuts with random survival."""
    rng = Random(seed)
    vfs = SimVfs()
    models = [Model()]
    for _ in range(12):
        journal, recovery = open_journal(vfs, LIMITS, JOURNAL_ID)
        model = matching(recovery, models).copy()
        models = [model]
        vfs.crash_at(vfs.boundaries + rng.randint(1, 60))
        under_way: list[Record] = []
        try:
            while True:
                roll = rng.random()
                if roll < 0.15:
                    journal.idle()
                elif roll < 0.3:
                    journal.zero_some()
                else:
                    under_way = random_records(rng, model)
                    journal.append(under_way)
                    model.told(under_way)
                    under_way = []
        except SimCrash:
            pass
        if under_way:
            after = model.copy()
            after.told(under_way)
            models = [model, after]
        if rng.random() < 0.3:
            vfs.kill()
        else:
            vfs.crash(rng)


def random_records(rng: Random, model: Model) -> list[Record]:
    """Records that a correct node might write now."""
    records: list[Record] = []
    for group in rng.sample((1, 2, 3, 4), rng.randint(1, 3)):
        told = model.copy()
        log = told.logs.get(group, {})
        at, at_term, _ = told.checkpoints.get(group, (0, 0, 0))
        last = max([at, *log])
        term, _ = told.hard.get(group, (0, 0))
        if term == 0 or rng.random() < 0.2:
            term += 1
            records.append(hard(group, term, rng.randint(0, 3)))
        first = rng.randint(at + 1, last + 1) if rng.random() < 0.2 else last + 1
        prev_term = at_term if first == at + 1 else log[first - 1][0]
        datas = [rng.randbytes(rng.choice((0, 5, 300, 2000))) for _ in range(rng.randint(1, 3))]
        records.append(entries(group, term, prev_term, first, datas))
        if rng.random() < 0.3:
            index = first + len(datas) - 1
            records.append(checkpoint(group, term, index, rng.randint(1, 99)))
        elif len(log) > 6:
            records.append(checkpoint(group, term, first, 5))
    return records
