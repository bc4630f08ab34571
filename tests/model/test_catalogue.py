"""Goal: sums and overlaps that are kept as streams come, change and go are those that a look at all of them finds."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from jetstore.meta.catalogues import Catalogues
from jetstore.meta.state import MetaState, encode_create, encode_delete, encode_update
from jetstore.meta.stream_key import GLOBAL_ACCOUNT, account_of, name_of, stream_key
from jetstore.model.catalogue import Catalogue
from jetstore.model.infos import tier_of
from jetstore.model.source_checks import origins_of
from jetstore.model.stream import StorageType, StreamConfig, StreamSource
from jetstore.model.subject_index import SubjectIndex
from jetstore.model.subjects import collides_any, is_valid_subject
from jetstore.types import GroupUid, Nanos, RaftIndex, Term

ACCOUNTS = (GLOBAL_ACCOUNT, "A", "B")
NAMES = ("K", "L", "M")
subjects = st.lists(st.sampled_from(("a", "b", "c", "*", ">")), min_size=1, max_size=4).map(".".join)
valid_subjects = subjects.filter(is_valid_subject)
origins = st.sampled_from(NAMES).map(lambda name: StreamSource(name=name))


@st.composite
def configs(draw: st.DrawFn) -> StreamConfig:
    """Also such as no check would let pass: what is kept must not depend on that."""
    return StreamConfig(
        subjects=tuple(draw(st.lists(valid_subjects, max_size=3))),
        max_bytes=draw(st.sampled_from((-1, 0, 1, 10, 100))),
        storage=draw(st.sampled_from(StorageType)),
        num_replicas=draw(st.integers(0, 3)),
        mirror=draw(st.none() | origins),
        sources=tuple(draw(st.lists(origins, max_size=2))),
    )


QUERIES = (">", "*", "a.>", "a", "a.b", "*.b.>")
changes = st.lists(st.tuples(st.sampled_from(ACCOUNTS), st.sampled_from(NAMES), st.none() | configs()), max_size=25)


def walked(existing: Mapping[str, StreamConfig], catalogue: Catalogue, subject: str) -> None:
    """Everything that the catalogue says, found once more the long way."""
    assert dict(catalogue) == dict(existing)
    assert catalogue.names() == tuple(sorted(existing))
    for tier in ("", "R1", "R2", "R3"):
        of_tier = {n: c for n, c in existing.items() if tier in ("", tier_of(c.num_replicas))}
        for but in ("", *NAMES):
            others = [config for name, config in of_tier.items() if name != but]
            assert catalogue.count(tier, but=but) == len(others)
            for storage in StorageType:
                sizes = [max(config.max_bytes, 0) for config in others if config.storage is storage]
                assert catalogue.reserved(storage, tier, but=but) == sum(sizes)
    for query in (subject, *QUERIES):
        assert set(catalogue.colliding(query)) == {n for n, c in existing.items() if collides_any(query, c.subjects)}
    for name in NAMES:
        copies = {n for n, c in existing.items() if any(origin.name == name for origin in origins_of(c))}
        assert set(catalogue.copies_of(name)) == copies


@given(changes=changes, subject=valid_subjects, asked_at=st.integers(0, 25))
def test_what_is_kept_is_what_a_walk_finds(
    changes: list[tuple[str, str, StreamConfig | None]], subject: str, asked_at: int
) -> None:
    state = MetaState()
    keys: dict[str, StreamConfig] = {}
    for number, (account, name, config) in enumerate(changes):
        key, index = stream_key(account, name), RaftIndex(number + 1)
        if number == asked_at:
            state.catalogues.of("A", with_plain=True)  # from now on it is kept, too
        if config is None:
            entry = encode_delete(key)
            keys.pop(key, None)
        else:
            config = config.model_copy(update={"name": name})
            fields = config.to_json()
            entry = encode_update(key, fields) if key in keys else encode_create(key, fields, Nanos(0), state.next_uid)
            keys[key] = config
        state.apply(index, Term(1), entry)
        own = state.catalogues.of(account)  # asked now, so that what is remembered is seen to be forgotten
        assert own.names() == tuple(sorted(own))
        assert {key: config for key, config in keys.items() if account_of(key) == account} == {
            stream_key(account, each): own[each] for each in own
        }
    for each in (state, MetaState.restore(state.checkpoint().head)):
        judged(each.catalogues, keys, subject)


def judged(catalogues: Catalogues, keys: Mapping[str, StreamConfig], subject: str) -> None:
    of = {a: {name_of(key): config for key, config in keys.items() if account_of(key) == a} for a in ACCOUNTS}
    views = [(account, False, of[account]) for account in ACCOUNTS]
    views += [(account, True, of[account] | of[GLOBAL_ACCOUNT]) for account in (GLOBAL_ACCOUNT, "A")]
    for account, with_plain, existing in views:
        walked(existing, catalogues.of(account, with_plain=with_plain), subject)
        own = (account, GLOBAL_ACCOUNT) if with_plain else (account,)
        for storage in StorageType:
            elsewhere = [c for key, c in keys.items() if account_of(key) not in own and c.storage is storage]
            found = catalogues.reserved_elsewhere(storage, account, with_plain=with_plain)
            assert found == sum(max(config.max_bytes, 0) for config in elsewhere)


def test_nothing_is_left_of_what_is_gone() -> None:
    index = SubjectIndex()
    for subject in ("a.b", "a.>", ">", "*.b.*"):
        index.add(subject, "K")
        index.remove(subject, "L")
        index.remove(f"x.{subject}", "K")
        assert set(index.colliding("a.b")) | set(index.colliding("a.b.c")) == {"K"}
        index.remove(subject, "K")
    assert index._root.is_unused
    state = MetaState()
    state.apply(RaftIndex(1), Term(1), encode_create("A > K", StreamConfig(name="K").to_json(), Nanos(0), GroupUid(2)))
    state.apply(RaftIndex(2), Term(1), encode_delete("A > K"))
    assert not state.catalogues._by_account
