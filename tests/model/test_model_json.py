"""Go's JSON: what is written, what is refused and how that is worded."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jetstore.model.consumer import AckPolicy, ConsumerConfig, DeliverPolicy
from jetstore.model.json import DecodeError, decode_fields, encode, encode_indented, parse
from jetstore.model.json_syntax import syntax_error
from jetstore.model.stream import DiscardPolicy, StorageType, StreamConfig

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def test_encoding_escapes_what_go_escapes() -> None:
    assert encode({"a": '<&> \u2028\u2029 é " \\ \n'}) == (
        '{"a":"\\u003c\\u0026\\u003e \\u2028\\u2029 é \\" \\\\ \\n"}'.encode()
    )
    assert encode_indented({"a": [1]}) == b'{\n  "a": [\n    1\n  ]\n}'


@given(json_values)
def test_what_is_encoded_means_the_same(value: object) -> None:
    assert json.loads(encode(value)) == value
    assert b"<" not in encode(value)


def decode(body: str) -> dict[str, object]:
    return decode_fields(StreamConfig, body.encode(), "StreamConfigRequest")


def refusal(body: str) -> str:
    with pytest.raises(DecodeError) as caught:
        decode(body)
    return str(caught.value)


def test_names_match_in_any_letter_case_and_the_last_wins() -> None:
    assert decode('{"NAME":"A","max_MSGS":5}') == {"name": "A", "max_msgs": 5}
    assert decode('{"name":"A","name":"B"}') == {"name": "B"}


def test_null_means_not_given() -> None:
    assert decode('{"name":null,"mirror":null,"max_msgs":null,"metadata":null}') == {}
    assert decode("null") == {}
    assert decode('{"subjects":[null]}') == {"subjects": ("",)}


def test_enumerations() -> None:
    assert decode('{"discard":"NEW","storage":"memory"}') == {
        "discard": DiscardPolicy.NEW,
        "storage": StorageType.MEMORY,
    }
    fields = decode_fields(ConsumerConfig, b'{"ack_policy":"all","deliver_policy":"undefined"}', "ConsumerConfig")
    assert fields == {"ack_policy": AckPolicy.ALL, "deliver_policy": DeliverPolicy.UNDEFINED}


def test_strings_are_made_whole() -> None:
    assert decode('{"description":"a\\ud800b"}') == {"description": "a\ufffdb"}
    assert decode_fields(StreamConfig, b'{"description":"\xff"}', "X") == {"description": "\ufffd"}
    assert decode('{"description":"\\ud83d\\ude00"}') == {"description": "\U0001f600"}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("", "unexpected EOF"),
        ("{", "unexpected EOF"),
        ('{"a":[1,', "unexpected EOF"),
        ("{'a':1}", "invalid character '\\'' looking for beginning of object key string at offset 2"),
        ("NaN", "invalid character 'N' looking for beginning of value at offset 1"),
        ("-Infinity", "invalid character 'I' in numeric literal at offset 2"),
        ("01", "unexpected data after top-level value"),
        ('"\t"', "invalid character '\\t' in string literal at offset 2"),
        ('"\\u12g4"', "invalid character 'g' in \\u hexadecimal character escape at offset 6"),
        ("tru", "unexpected EOF"),
        ("truE", "invalid character 'E' in literal true (expecting 'e') at offset 4"),
        ("[1 2]", "invalid character '2' after array element at offset 4"),
        ("é", "invalid character '\\xc3' looking for beginning of value at offset 1"),
        ("1e", "unexpected EOF"),
        ("1ex", "invalid character 'x' in numeric literal at offset 3"),
    ],
)
def test_syntax_errors(body: str, text: str) -> None:
    assert refusal(body) == text


def test_deep_nesting_and_huge_numbers_are_refused() -> None:
    assert refusal('{"a":' * 100_000) in ("exceeded max depth", "unexpected EOF")
    assert refusal("[" * 100_000 + "]" * 100_000) == "exceeded max depth"
    assert refusal('{"max_msgs":' + "9" * 5000 + "}").startswith("json: cannot unmarshal number 999")


@given(st.binary(max_size=30) | st.text(alphabet='{}[]",:0123tfnulrase \\-.e', max_size=30).map(str.encode))
def test_any_bytes_parse_or_are_refused_with_a_text(body: bytes) -> None:
    try:
        parse(body)
    except DecodeError as error:
        text = str(error)
    else:
        return
    assert text
    assert text == syntax_error(body)


def test_lenient_decoding_ignores_unknown_fields() -> None:
    assert decode_fields(StreamConfig, b'{"zzz":1,"name":"A"}', "X", strict=False) == {"name": "A"}


json_texts = st.text(alphabet=st.characters(codec="utf-8"), max_size=6)


@given(
    st.builds(
        StreamConfig,
        name=json_texts,
        subjects=st.lists(json_texts, max_size=3).map(tuple),
        max_msgs=st.integers(-(2**63), 2**63 - 1),
        discard=st.sampled_from(DiscardPolicy),
        duplicate_window=st.integers(0, 2**63 - 1),
        metadata=st.dictionaries(json_texts, json_texts, max_size=3),
    )
)
def test_configurations_survive_their_json(config: StreamConfig) -> None:
    assert StreamConfig.from_json(json.loads(encode(config.to_json()))) == config


@given(
    st.builds(
        ConsumerConfig,
        name=json_texts,
        backoff=st.lists(st.integers(0, 2**62), max_size=3).map(tuple),
        filter_subjects=st.lists(json_texts, max_size=3).map(tuple),
        opt_start_time=st.integers(0, 2**62),
        ack_policy=st.sampled_from(AckPolicy),
        metadata=st.dictionaries(json_texts, json_texts, max_size=3),
    )
)
def test_consumer_configurations_survive_their_json(config: ConsumerConfig) -> None:
    assert ConsumerConfig.from_json(json.loads(encode(config.to_json()))) == config


def test_field_order_is_the_models() -> None:
    shown = list(StreamConfig(name="A", description="d", first_seq=3, metadata={"a": "b"}).to_json())
    assert shown == [
        *("name", "description", "retention", "max_consumers", "max_msgs", "max_bytes", "max_age"),
        *("max_msgs_per_subject", "discard", "storage", "num_replicas", "compression", "first_seq"),
        *("allow_direct", "mirror_direct", "sealed", "deny_delete", "deny_purge", "allow_rollup_hdrs"),
        *("consumer_limits", "allow_msg_ttl", "metadata"),
    ]
