"""What a publish stores or is told: every check, its text, and their order; limits and discard policies."""

from __future__ import annotations

import pytest
from stream_driver import SECOND, START_NS, Driver, frames_of

from jetstore.errors import ApiError
from jetstore.limits import Limits
from jetstore.model.stream import StreamConfig
from jetstore.model.stream_checks import checked_stream
from jetstore.stream import entries
from jetstore.stream.outcomes import Duplicate
from jetstore.types import Term


def refusal(outcome: object) -> tuple[int, int, str]:
    assert isinstance(outcome, ApiError), outcome
    return outcome.code, outcome.err_code, outcome.description


def test_a_batch_gets_consecutive_sequences_and_times() -> None:
    driver = Driver()
    outcome = driver.publish("a", "b", "a")
    assert (outcome.first_seq, outcome.count, outcome.exceptions) == (1, 3, {})
    first = driver.stream.contents.read(1)
    third = driver.stream.contents.read(3)
    assert first is not None
    assert third is not None
    assert third.time_ns == first.time_ns + 2
    assert driver.stream.state().num_subjects == 2


def test_times_increase_even_if_entries_overlap() -> None:
    driver = Driver()
    for _ in range(3):
        driver.apply(entries.encode_publish(START_NS, frames_of([(subject, {}, "") for subject in "abcd"], START_NS)))
    times = [meta.time_ns for seq in range(1, 13) if (meta := driver.stream.contents.meta(seq))]
    assert times == sorted(set(times))
    assert len(times) == 12


@pytest.mark.parametrize(("storage", "plain", "with_header"), [("file", 22 + 1 + 4 + 8, 22 + 1 + 4 + 18 + 4 + 8),
                                                               ("memory", 1 + 4 + 16, 1 + 18 + 4 + 16)])  # fmt: skip
def test_stored_sizes(storage: str, plain: int, with_header: int) -> None:
    driver = Driver(storage=storage)
    driver.put("a", "data")
    assert driver.stream.bytes == plain
    driver.put("a", "data", A="b")  # NATS/1.0\r\nA: b\r\n\r\n is 18 bytes
    assert driver.stream.bytes == plain + with_header


REFUSALS = [
    ({}, {"Nats_Expected_Stream": "T"}, (400, 10060, "expected stream does not match")),
    ({}, {"Nats_Expected_Last_Sequence": "7"}, (400, 10071, "wrong last sequence: 2")),
    ({}, {"Nats_Expected_Last_Sequence": "x"}, (400, 10071, "wrong last sequence: 2")),
    ({}, {"Nats_Expected_Last_Subject_Sequence": "0"}, (400, 10071, "wrong last sequence: 1")),
    (
        {},
        {"Nats_Expected_Last_Subject_Sequence": "1", "Nats_Expected_Last_Subject_Sequence_Subject": "*"},
        (400, 10071, "wrong last sequence: 2"),
    ),
    (
        {},
        {"Nats_Expected_Last_Subject_Sequence_Subject": "b"},
        (400, 10193, "missing sequence for expected last sequence per subject"),
    ),
    ({}, {"Nats_Expected_Last_Msg_Id": "x"}, (400, 10070, "wrong last msg ID: two")),
    ({}, {"Nats_Rollup": "sub"}, (500, 10111, "rollup not permitted")),
    ({"allow_rollup_hdrs": True}, {"Nats_Rollup": "Most"}, (500, 10111, 'rollup value invalid: "most"')),
    ({"allow_rollup_hdrs": True, "deny_purge": True}, {"Nats_Rollup": "all"}, (500, 10111, "rollup not permitted")),
    ({}, {"Nats_TTL": "5s"}, (400, 10166, "per-message TTL is disabled")),
    ({}, {"Nats_TTL": "soon"}, (400, 10166, "per-message TTL is disabled")),
    ({"allow_msg_ttl": True}, {"Nats_TTL": "soon"}, (400, 10165, "invalid per-message TTL")),
    ({"allow_msg_ttl": True}, {"Nats_TTL": "0"}, (400, 10165, "invalid per-message TTL")),
    ({"allow_msg_ttl": True}, {"Nats_TTL": "-1"}, (400, 10165, "invalid per-message TTL")),
    ({"allow_msg_ttl": True}, {"Nats_TTL": "999ms"}, (400, 10165, "invalid per-message TTL")),
    ({}, {"Nats_Incr": "+1"}, (400, 10168, "message counters is disabled")),
    ({}, {"Nats_Incr": "one"}, (400, 10171, "message counter increment is invalid")),
    ({}, {"Nats_Batch_Id": "b", "Nats_Batch_Sequence": "1"}, (400, 10174, "atomic publish is disabled")),
    ({}, {"Nats_Schedule": "@every 5s"}, (400, 10188, "message schedules is disabled")),
    ({}, {"Nats_Schedule_Next": "later"}, (400, 10212, "message schedules invalid scheduler")),
    ({}, {"Nats_Scheduler": "b"}, (400, 10212, "message schedules invalid scheduler")),
    ({}, {"Nats_Stream_Source": "S 1 > > a"}, (400, 10227, "message stream source header is not allowed")),
    ({"discard": "new", "max_msgs": 2}, {}, (503, 10077, "maximum messages exceeded")),
    ({"discard": "new", "max_bytes": 170}, {}, (503, 10077, "maximum bytes exceeded")),
    (
        {"discard": "new", "max_msgs_per_subject": 1, "discard_new_per_subject": True},
        {},
        (503, 10077, "maximum messages per subject exceeded"),
    ),
]


@pytest.mark.parametrize(("config", "headers", "expected"), REFUSALS)
def test_refusals(config: dict[str, object], headers: dict[str, str], expected: tuple[int, int, str]) -> None:
    driver = Driver(**config)
    driver.put("a", "one", Nats_Msg_Id="one")
    driver.put("b", "two", Nats_Msg_Id="two")
    before = driver.stream.state()
    assert refusal(driver.put("a", "body", **headers)) == expected
    assert driver.stream.state() == before
    assert driver.put("c", "new") == 3 or config.get("discard") == "new"


def test_a_refused_message_takes_no_sequence_and_its_neighbours_do() -> None:
    driver = Driver()
    outcome = driver.publish(
        ("a", {"Nats-Msg-Id": "1"}, ""),
        ("b", {"Nats-Expected-Last-Sequence": "9"}, ""),
        ("c", {"Nats-Msg-Id": "1"}, ""),
        ("d", {"Nats-Expected-Last-Sequence": "1"}, ""),
        ("e", {}, ""),
    )
    assert outcome.first_seq == 1
    assert refusal(outcome.exceptions.pop(1))[2] == "wrong last sequence: 1"
    assert outcome.exceptions == {2: Duplicate(1)}
    assert driver.subjects() == ["a", "d", "e"]
    assert driver.seqs() == [1, 2, 3]


def test_max_msg_size_counts_header_and_body() -> None:
    driver = Driver(max_msg_size=20)
    assert driver.put("a", "x" * 20) == 1
    assert driver.put("a", "xx", A="b") == 2
    for outcome in (driver.put("a", "x" * 21), driver.put("a", "xxx", A="b")):
        assert refusal(outcome) == (400, 10054, "message size exceeds maximum allowed")


def test_a_record_too_large() -> None:
    driver = Driver(limits=Limits(record_bytes_max=1000))
    assert driver.put("a", "x" * 900) == 1
    assert refusal(driver.put("a", "x" * 1000)) == (503, 10077, "message too large")


def test_sealed() -> None:
    driver = Driver()
    driver.put("a")
    driver.configure(sealed=True)
    assert refusal(driver.put("a")) == (400, 10109, "invalid operation on sealed stream")


def test_without_a_configuration_nothing_is_stored() -> None:
    driver = Driver()
    driver.stream.config_version = 0
    assert refusal(driver.put("a"))[1] == 10008
    assert driver.stream.messages == 0


# -- order of checks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "err_code"),
    [
        ({"Nats_Expected_Stream": "T", "Nats_TTL": "1h"}, 10060),
        ({"Nats_TTL": "1h", "Nats_Msg_Id": "one"}, 10166),
        ({"Nats_Stream_Source": "S 1", "Nats_Expected_Last_Sequence": "9"}, 10227),
        ({"Nats_Expected_Last_Sequence": "9", "Nats_Schedule": "@every 1s"}, 10071),
        ({"Nats_Expected_Last_Subject_Sequence": "9", "Nats_Rollup": "x"}, 10071),
        ({"Nats_Schedule": "@every 1s", "Nats_Rollup": "sub"}, 10188),
        ({"Nats_Rollup": "sub", "Nats_Expected_Last_Msg_Id": "x"}, 10111),
        ({"Nats_Incr": "1", "Nats_Expected_Stream": "T"}, 10168),
    ],
)
def test_order_of_checks(headers: dict[str, str], err_code: int) -> None:
    driver = Driver()
    driver.put("a", Nats_Msg_Id="one")
    assert refusal(driver.put("a", **headers))[1] == err_code


def test_a_retry_of_a_success_is_a_duplicate_although_its_expectation_is_now_wrong() -> None:
    driver = Driver()
    assert driver.put("a", Nats_Msg_Id="x", Nats_Expected_Last_Sequence="0") == 1
    assert driver.put("a", Nats_Msg_Id="x", Nats_Expected_Last_Sequence="0") == Duplicate(1)


def test_discard_new_comes_before_the_expected_message_id() -> None:
    driver = Driver(discard="new", max_msgs=1)
    driver.put("a", Nats_Msg_Id="x")
    assert refusal(driver.put("a", Nats_Expected_Last_Msg_Id="y"))[1] == 10077


# -- expectations -------------------------------------------------------------------------------------------------


def test_expectations_see_earlier_messages_of_the_same_entry() -> None:
    driver = Driver()
    outcome = driver.publish(
        ("a", {"Nats-Expected-Last-Subject-Sequence": "0"}, ""),
        ("a", {"Nats-Expected-Last-Subject-Sequence": "1"}, ""),
        ("b", {"Nats-Expected-Last-Sequence": "2"}, ""),
        ("c.x", {"Nats-Expected-Last-Subject-Sequence": "0", "Nats-Expected-Last-Subject-Sequence-Subject": "c.*"}, ""),
        ("c.y", {"Nats-Expected-Last-Subject-Sequence": "4", "Nats-Expected-Last-Subject-Sequence-Subject": "c.*"}, ""),
        ("d", {"Nats-Msg-Id": "i"}, ""),
        ("d", {"Nats-Expected-Last-Msg-Id": "i"}, ""),
    )
    assert outcome.exceptions == {}
    assert driver.seqs() == [1, 2, 3, 4, 5, 6, 7]


def test_an_expectation_sees_what_an_earlier_message_of_the_entry_evicted() -> None:
    driver = Driver(max_msgs=1)
    driver.publish("x")
    outcome = driver.publish("y", ("z", {"Nats-Expected-Last-Subject-Sequence": "1",
                                         "Nats-Expected-Last-Subject-Sequence-Subject": "x"}, ""))  # fmt: skip
    assert refusal(outcome.exceptions[1])[2] == "wrong last sequence: 0"


def test_an_id_less_message_resets_the_last_message_id() -> None:
    driver = Driver()
    driver.put("a", Nats_Msg_Id="x")
    assert driver.put("a", Nats_Expected_Last_Msg_Id="x") == 2
    assert refusal(driver.put("a", Nats_Expected_Last_Msg_Id="x"))[2] == "wrong last msg ID: "


def test_header_names_are_case_sensitive() -> None:
    driver = Driver()
    assert driver.put("a", **{"nats-msg-id": "x"}) == 1
    assert driver.put("a", **{"nats-msg-id": "x"}) == 2


# -- ids ----------------------------------------------------------------------------------------------------------


def test_ids_count_within_the_window_of_logged_time() -> None:
    driver = Driver(duplicate_window=10 * SECOND)
    assert driver.put("a", Nats_Msg_Id="x") == 1
    driver.now_ns += 10 * SECOND - 1
    assert driver.put("a", Nats_Msg_Id="x") == Duplicate(1)
    driver.now_ns += 1
    assert driver.put("a", Nats_Msg_Id="x") == 2
    driver.now_ns += 10 * SECOND - 1
    assert driver.put("a", Nats_Msg_Id="x") == Duplicate(2)


def test_ids_survive_the_removal_of_their_message() -> None:
    driver = Driver(max_msgs=1)
    driver.put("a", Nats_Msg_Id="x")
    driver.publish("b", "c")
    assert driver.put("a", Nats_Msg_Id="x") == Duplicate(1)


def test_ids_are_never_forgotten_early_but_refused() -> None:
    driver = Driver(limits=Limits(dedupe_ids_max=3), duplicate_window=10 * SECOND)
    outcome = driver.publish(*[("a", {"Nats-Msg-Id": str(i)}, "") for i in range(5)])
    assert sorted(outcome.exceptions) == [3, 4]
    assert refusal(outcome.exceptions[3])[1] == 10023
    assert driver.put("a", Nats_Msg_Id="0") == Duplicate(1)
    assert driver.put("a") == 4
    driver.now_ns += 11 * SECOND
    assert driver.put("a", Nats_Msg_Id="9") == 5


# -- limits -------------------------------------------------------------------------------------------------------


def test_discard_old_by_messages_and_bytes() -> None:
    driver = Driver(max_msgs=3)
    driver.publish(*"abcde")
    assert driver.seqs() == [3, 4, 5]
    driver = Driver(max_bytes=100)
    driver.publish(*[("s", {}, "x" * size) for size in (1, 2, 30, 4, 5)])
    assert driver.seqs() == [4, 5]
    assert driver.stream.bytes == 2 * 31 + 9


def test_a_message_larger_than_max_bytes_empties_the_stream() -> None:
    driver = Driver(max_bytes=100)
    driver.publish("a", ("b", {}, "x" * 200))
    state = driver.stream.state()
    assert (state.messages, state.bytes, state.first_seq, state.last_seq) == (0, 0, 3, 2)


def test_per_subject_limit_keeps_the_newest() -> None:
    driver = Driver(max_msgs_per_subject=2)
    driver.publish(*"abacaab")
    assert driver.seqs() == [2, 4, 5, 6, 7]
    assert driver.subjects() == ["b", "c", "a", "a", "b"]
    assert driver.stream.state().num_deleted == 1


def test_discard_new_lets_a_replacement_through() -> None:
    driver = Driver(discard="new", max_msgs=2, max_msgs_per_subject=1)
    driver.publish("a", "b")
    assert refusal(driver.put("c"))[2] == "maximum messages exceeded"
    assert driver.put("a") == 3
    assert driver.subjects() == ["b", "a"]


def test_discard_new_by_bytes_lets_a_replacement_of_the_same_size_through() -> None:
    driver = Driver(discard="new", max_bytes=70, max_msgs_per_subject=1)
    driver.publish(("a", {}, "xxx"), ("b", {}, "xxx"))
    assert driver.put("a", "yyy") == 3
    assert refusal(driver.put("a", "yyyyyy"))[2] == "maximum bytes exceeded"


def test_discard_new_fills_up_within_one_entry() -> None:
    driver = Driver(discard="new", max_msgs=3)
    outcome = driver.publish(*"abcde")
    assert sorted(outcome.exceptions) == [3, 4]
    assert driver.seqs() == [1, 2, 3]


def test_discard_new_per_subject_lets_rollups_through() -> None:
    driver = Driver(discard="new", max_msgs_per_subject=1, discard_new_per_subject=True, allow_rollup_hdrs=True)
    driver.put("a")
    assert driver.put("a", Nats_Rollup="sub") == 2
    assert driver.seqs() == [2]


def test_first_seq() -> None:
    driver = Driver(first_seq=100)
    state = driver.stream.state()
    assert (state.first_seq, state.last_seq, state.messages) == (100, 99, 0)
    assert driver.put("a") == 100


# -- rollup -------------------------------------------------------------------------------------------------------


def test_rollup_of_a_subject_and_of_everything() -> None:
    driver = Driver(allow_rollup_hdrs=True)
    driver.publish("a", "b", "a", ("a", {"Nats-Rollup": "SUB"}, ""), "b")
    assert driver.seqs() == [2, 4, 5]
    driver.publish("a", ("c", {"Nats-Rollup": "all"}, ""), "d")
    assert driver.subjects() == ["c", "d"]
    assert driver.stream.state().first_seq == 7


# -- headers as stored --------------------------------------------------------------------------------------------


def test_request_info_and_status_are_not_stored() -> None:
    driver = Driver()
    driver.put("a", "body", Nats_Request_Info="{}", Other="x")
    driver.put("a", "body", Nats_Request_Info="{}")
    stored = [driver.stream.contents.read(seq) for seq in (1, 2)]
    assert stored[0] is not None
    assert stored[1] is not None
    assert stored[0].header == b"NATS/1.0\r\nOther: x\r\n\r\n"
    assert (stored[1].header, stored[1].data) == (b"", b"body")


def test_a_whole_frame_is_stored_as_it_came() -> None:
    driver = Driver()
    outcome = driver.publish("a", ("b", {"Nats-Msg-Id": "1"}, "x"), cached=True)
    assert not outcome.exceptions
    assert driver.seqs() == [1, 2]


@pytest.mark.parametrize("name", ["Nats-Expected-Last-Sequence", "Nats-Expected-Last-Subject-Sequence"])
def test_an_expected_sequence_of_thousands_of_digits_is_another(name: str) -> None:
    driver = Driver()
    outcome = driver.publish(("a", {name: "9" * 5_000}, ""), "a")
    assert refusal(outcome.exceptions.pop(0))[1] == 10071
    assert driver.seqs() == [1]


@pytest.mark.parametrize("ttl", ["9" * 18, "9" * 19, "9" * 4_000, "9" * 5_000, "2562047h47m16s"])
def test_a_time_to_live_beyond_all_clocks_is_for_ever(ttl: str) -> None:
    """Whatever was asked: what apply took can be told by a checkpoint."""
    driver = Driver(allow_msg_ttl=True)
    taken = driver.put("a", "x", Nats_TTL=ttl)
    driver.put("b", "y", Nats_TTL="1s")
    driver.stream.checkpoint(Term(1))
    assert isinstance(taken, ApiError) == (len(ttl) == 5_000)
    assert driver.stream.ttls.next_ns() < 2**62


def test_numbers_of_clients_leave_room_for_those_that_follow() -> None:
    with pytest.raises(ApiError, match="a first sequence above 4611686018427387904 is not supported"):
        checked_stream(StreamConfig(name="S", subjects=("a",), first_seq=2**62 + 1))
    assert checked_stream(StreamConfig(name="S", subjects=("a",), first_seq=2**62)).first_seq == 2**62
