"""Which seeds run on encrypted stores, by dice of their own; and secrets that change between the starts of a server."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from jetstore.store.keys import Encryption

if TYPE_CHECKING:
    from jepsen.sim.machine import Machine

CHANCE = 0.15
WORD = "encrypted 77504"
"""Such that none of the committed seeds (``tests/sim/seeds.txt``) is drawn, and none below ``UNTOUCHED``."""
UNTOUCHED = 40
"""Hunts for planted defects count on what these seeds do."""
NEW_SECRET_CHANCE = 0.3
PLAIN_CHANCE = 0.4
ROOM_BYTES = 4 << 20
COST = 16
"""Nobody tries secrets here."""


def is_encrypted(seed: int) -> bool:
    """Whether the dice say so."""
    return Random(f"{WORD} {seed}").random() < CHANCE


class Secrets:
    """What a machine's operator has in the configuration, start by start."""

    def __init__(self, rng: Random) -> None:
        """The first secret."""
        self._rng = rng
        self._proven = self._given = 0

    def given(self) -> Encryption:
        """For a start: now and then a new secret, beside the one that is known to open the store."""
        if self._given == self._proven and self._rng.random() < NEW_SECRET_CHANCE:
            self._given += 1
        previous = f"secret {self._proven}" if self._given != self._proven else ""
        return Encryption(f"secret {self._given}", self._rng.choice((None, None, "aes", "chacha")), previous, COST)

    def opened(self) -> None:
        """The store was opened with what was given last: the one before is not needed any more."""
        self._proven = self._given


def encrypt(machines: Iterable[Machine], seed: int) -> None:
    """Their stores, none of which was made yet, are to be encrypted."""
    for machine in machines:
        machine.secrets = Secrets(Random(f"{WORD} {seed} {machine.name}"))


class LateSecrets(Secrets):
    """The store is plain at first; one day, at some start, the operator has a key for it."""

    def __init__(self, rng: Random, has_room: Callable[[], bool]) -> None:
        """Each start is one of the last plain ones with some chance, the first always, and while there is no room."""
        super().__init__(rng)
        self._has_room = has_room
        self._starts = 0
        self.has_begun = False

    def given(self) -> Encryption | None:  # type: ignore[override]  # as one that is not there
        """None: as yet there is no key."""
        self._starts += 1
        if not self.has_begun:
            is_early = self._starts == 1 or self._rng.random() < PLAIN_CHANCE
            if is_early or not self._has_room():
                return None
        self.has_begun = True
        return super().given()


def encrypt_late(machines: Iterable[Machine], seed: int) -> None:
    """Their stores, none of which was made yet, are to be encrypted when something is in them."""
    for machine in machines:
        machine.secrets = LateSecrets(Random(f"{WORD} late {seed} {machine.name}"), partial(_has_room, machine))


def _has_room(machine: Machine) -> bool:
    return machine.vfs.free_bytes() > ROOM_BYTES
