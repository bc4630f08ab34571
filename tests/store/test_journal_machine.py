"""A hypothesis machine over the journal: whatever is appended, killed and cut, the model is found again."""

from __future__ import annotations

import errno
from random import Random

from deep import IS_DEEP
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from journal_model import JOURNAL_ID, Model, checkpoint, entries, generation, hard, small_limits

from jepsen.sim.faults import SimCrash, fault
from jepsen.sim.vfs import SimVfs
from jetstore.errors import DiskFull
from jetstore.limits import KIB
from jetstore.store.journal.append import Journal
from jetstore.store.journal.recovery import open_journal
from jetstore.store.ports import Record

LIMITS = small_limits(file_bytes=32 * KIB, block_bytes=8 * KIB, spares=2, zeroing=16 * KIB)
GROUPS = st.integers(1, 4)
SIZES = st.lists(st.sampled_from((0, 1, 300, 511, 512, 3000)), min_size=1, max_size=3)


class JournalMachine(RuleBasedStateMachine):
    """One group's records per block, or several; boundaries of crashes are drawn."""

    journal: Journal

    @initialize()
    def birth(self) -> None:
        self.vfs = SimVfs()
        self.model = Model()
        self.next_block: list[Record] = []
        self.told = Model()
        """The model as it will be once ``next_block`` is durable."""
        self.journal, _ = open_journal(self.vfs, LIMITS, JOURNAL_ID)

    # -- composing a block ------------------------------------------------------------------------------------------

    def _say(self, record: Record) -> None:
        self.next_block.append(record)
        self.told.told([record])

    @rule(group=GROUPS, by=st.integers(1, 3), vote=st.integers(0, 3))
    def new_term(self, group: int, by: int, vote: int) -> None:
        if self.told.generations.get(group, 1):
            self._say(hard(group, self.told.hard.get(group, (0, 0))[0] + by, vote))

    @rule(group=GROUPS, sizes=SIZES, back=st.sampled_from((0, 0, 0, 1, 2)))
    def entry(self, group: int, sizes: list[int], back: int) -> None:
        if not self.told.generations.get(group, 1) or not self.told.hard.get(group, (0, 0))[0]:
            return
        term = self.told.hard[group][0]
        at, at_term, _ = self.told.checkpoints.get(group, (0, 0, 0))
        log = self.told.logs.get(group, {})
        last = max([at, *log])
        first = max(at + 1, last + 1 - back)
        if first <= last and log[first][0] == term:
            first = last + 1  # an entry of this term is never replaced in this term
        prev_term = at_term if first == at + 1 else log[first - 1][0]
        datas = [bytes([index & 0xFF]) * size for index, size in enumerate(sizes, first)]
        self._say(entries(group, term, prev_term, first, datas))

    @rule(group=GROUPS, keep=st.integers(0, 2))
    def checkpoint(self, group: int, keep: int) -> None:
        log = self.told.logs.get(group, {})
        if log and self.told.generations.get(group, 1) and max(log) - keep in log:
            index = max(log) - keep
            self._say(checkpoint(group, log[index][0], index, index * 7))

    @precondition(lambda self: len(self.told.logs) > 1)
    @rule(group=GROUPS, number=st.sampled_from((2, 3, 0)))
    def change_generation(self, group: int, number: int) -> None:
        now = self.told.generations.get(group, 1)
        if group in self.told.logs and now and (number == 0 or number > now):
            self._say(generation(group, number))

    # -- the journal ------------------------------------------------------------------------------------------------

    @rule()
    def append(self) -> None:
        try:
            self.journal.append(self.next_block)
        except DiskFull:
            self.told = self.model.copy()
        else:
            self.model = self.told.copy()
        self.next_block = []

    @rule()
    def idle(self) -> None:
        self.journal.idle()

    @rule(steps=st.integers(1, 8))
    def zero(self, steps: int) -> None:
        for _ in range(steps):
            self.journal.zero_some()

    @rule()
    def full_for_a_while(self) -> None:
        self.vfs.inject(fault("create truncate", error=errno.ENOSPC, sticky=True))
        self.journal.zero_some()
        self.vfs.heal()

    # -- death ------------------------------------------------------------------------------------------------------

    def _reopen(self, models: list[Model]) -> None:
        self.journal, recovery = open_journal(self.vfs, LIMITS, JOURNAL_ID)
        differences = [model.matches(recovery) for model in models]
        assert "" in differences, (differences, recovery.findings)
        self.model = models[differences.index("")].copy()
        self.told = self.model.copy()
        self.next_block = []

    @rule(seed=st.integers(0, 1 << 16), is_power=st.booleans())
    def die_between(self, seed: int, is_power: bool) -> None:
        if is_power:
            self.vfs.crash(Random(seed))
        else:
            self.vfs.kill()
        self._reopen([self.model])

    @rule(seed=st.integers(0, 1 << 16), boundary=st.integers(1, 6))
    def die_while_appending(self, seed: int, boundary: int) -> None:
        self.vfs.crash_at(self.vfs.boundaries + boundary)
        models = [self.model, self.told]
        try:
            self.journal.append(self.next_block)
            models = [self.told]
        except SimCrash:
            pass
        except DiskFull:
            models = [self.model]
        self.vfs.crash(Random(seed))
        self._reopen(models)

    @rule(seed=st.integers(0, 1 << 16), boundary=st.integers(1, 20))
    def die_while_opening(self, seed: int, boundary: int) -> None:
        self.vfs.kill()
        self.vfs.crash_at(self.vfs.boundaries + boundary)
        try:
            self._reopen([self.model])
        except SimCrash:
            self.vfs.crash(Random(seed))
            self._reopen([self.model])
        self.vfs.crash_at(0)

    @invariant()
    def bounded(self) -> None:
        status = self.journal.status
        assert status.used_bytes <= LIMITS.journal_bytes_max + LIMITS.journal_file_bytes
        names = self.vfs.list_dir("journal")
        assert len(names) <= LIMITS.journal_bytes_max // LIMITS.journal_file_bytes + 2 * LIMITS.journal_spare_files + 8


TestJournal = JournalMachine.TestCase
TestJournal.settings = settings(
    max_examples=400 if IS_DEEP else 40,
    stateful_step_count=40,
    deadline=None,
    derandomize=not IS_DEEP,
    suppress_health_check=list(HealthCheck),
)
