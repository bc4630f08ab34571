"""Goal: a trial of a message says what apply would, and changes nothing. Method: hypothesis, one stream."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from stream_driver import Driver, Given, columns_of

from jetstore.errors import ApiError
from jetstore.stream.logical import logical_head
from jetstore.stream.outcomes import Duplicate
from jetstore.stream.trial import trial
from jetstore.types import Nanos

SUBJECTS = st.sampled_from(["a", "b", "c.d"])
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Nats-Msg-Id": st.sampled_from(["1", "2"]),
        "Nats-Expected-Stream": st.sampled_from(["S", "T"]),
        "Nats-Expected-Last-Sequence": st.sampled_from(["0", "1", "2", "x"]),
        "Nats-Expected-Last-Subject-Sequence": st.sampled_from(["0", "1"]),
        "Nats-Expected-Last-Msg-Id": st.sampled_from(["1", "2"]),
        "Nats-Rollup": st.sampled_from(["sub", "all", "most"]),
        "Nats-TTL": st.sampled_from(["5s", "soon"]),
        "Nats-Incr": st.just("+1"),
        "Nats-Batch-Id": st.just("b"),
        "Nats-Schedule": st.sampled_from(["@every 5s", "@at x"]),
        "Nats-Schedule-Target": st.sampled_from(["a", "c.d"]),
        "Nats-Scheduler": st.just("a"),
        "Nats-Schedule-Next": st.just("purge"),
    },
)
MESSAGES = st.tuples(SUBJECTS, HEADERS, st.sampled_from(["", "body", "a longer body"]))
CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        "sealed": st.just(True),
        "max_msg_size": st.just(60),
        "allow_rollup_hdrs": st.just(True),
        "allow_msg_ttl": st.just(True),
        "allow_msg_counter": st.just(True),
        "allow_msg_schedules": st.just(True),
        "retention": st.just("interest"),
        "max_msgs_per_subject": st.just(1),
        "max_msgs": st.just(2),
        "duplicate_window": st.sampled_from([0, 1_000_000_000]),
    },
)


@given(config=CONFIGS, before=st.lists(MESSAGES, max_size=4), message=MESSAGES, wait_ns=st.sampled_from([1, 2 * 10**9]))
def test_it_says_what_apply_would(config: dict[str, object], before: list[Given], message: Given, wait_ns: int) -> None:
    is_sealed = config.pop("sealed", False)
    driver = Driver(**config)
    for each in before:
        driver.publish(each)
    if is_sealed:
        driver.configure(sealed=True)
    driver.now_ns += wait_ns
    stream = driver.stream
    subjects, lens, payloads = columns_of([message])
    head, known = logical_head(stream), len(stream.dedupe)
    time_ns = Nanos(max(driver.now_ns, stream.contents.last_time_ns + 1))
    said = trial(stream, subjects[0], lens[0] if lens else 0, payloads[0], time_ns)
    assert (logical_head(stream), len(stream.dedupe)) == (head, known)
    became = driver.publish(message).exceptions.get(0)
    if isinstance(became, ApiError):
        assert isinstance(said, ApiError)
        assert (said.err_code, said.description) == (became.err_code, became.description)
    else:
        assert said == became
        assert said is None or isinstance(said, Duplicate)


def test_it_forgets_no_ids() -> None:
    """That time has passed is for apply to tell: the same on every replica."""
    driver = Driver(duplicate_window=1_000_000_000)
    driver.publish(("a", {"Nats-Msg-Id": "1"}, ""))
    late_ns = Nanos(driver.now_ns + 5 * 10**9)
    columns = columns_of([("a", {"Nats-Msg-Id": "1"}, "")])
    assert trial(driver.stream, b"a", columns.header_lens[0], columns.payloads[0], late_ns) is None
    assert len(driver.stream.dedupe) == 1
