"""Subject transforms: what they make of subjects, and nats-server's words for what cannot be."""

from __future__ import annotations

import pytest

from jetstore.model.transforms import SubjectTransform, TransformError

BAD = "invalid mapping destination: "


@pytest.mark.parametrize(
    ("src", "dest", "subject", "made"),
    [
        ("st.*.*", "st2.{{wildcard(2)}}.{{partition(5,1)}}.{{split(1,-)}}", "st.a-b.c", "st2.c.1.a.b"),
        ("a.*", "b.$1", "a.x", "b.x"),
        ("a.*", "b.$1", "a.x.y", None),
        ("a.*", "b.$1", "c.x", None),
        ("a.*.>", "b.{{Wildcard( 1 )}}.>", "a.x.y.z", "b.x.y.z"),
        ("a.*.>", "b.$1.>", "a.x", None),
        ("", "b.>", "any.thing", "b.any.thing"),
        (">", ">", "same", "same"),
        ("a", "b", "a", "b"),
        ("a.*", "{{splitfromleft(1,3)}}", "a.abcdef", "abc.def"),
        ("a.*", "{{splitfromright(1,2)}}", "a.abcdef", "abcd.ef"),
        ("a.*", "{{splitfromleft(1,9)}}", "a.abc", "abc"),
        ("a.*", "{{slicefromleft(1,2)}}", "a.abcde", "ab.cd.e"),
        ("a.*", "{{slicefromright(1,2)}}", "a.abcde", "a.bc.de"),
        ("a.*", "{{slicefromright(1,2)}}", "a.abcd", "ab.cd"),
        ("a.*", "{{left(1,2)}}.{{right(1,2)}}", "a.abcd", "ab.cd"),
        ("a.*", "x.{{split(1,-)}}", "a.-b--c-", "x.b.c"),
        ("a.*", "x.$1y", "a.b", "x.$1y"),
        ("a.*", "x.{{partition(0)}}", "a.b", "x.0"),
    ],
)
def test_what_a_transform_makes(src: str, dest: str, subject: str, made: str | None) -> None:
    transform = SubjectTransform(src, dest)
    for _ in range(2):
        assert transform.apply(subject.encode()) == (None if made is None else made.encode())


@pytest.mark.parametrize(
    ("src", "dest", "text"),
    [
        ("a.*", "x.*", "invalid subject"),
        ("a.*", "x.>", "invalid subject"),
        ("a.>", "x", "invalid subject"),
        ("a.*", "x.$2", BAD + "wildcard index out of range in $2: [2]"),
        ("a.b", "x.$1", BAD + "wildcard index out of range in $1"),
        ("a.*", "x.{{wildcard()}}", BAD + "not enough arguments passed to the function in {{wildcard()}}"),
        ("a.*", "x.{{wildcard(1,2)}}", BAD + "too many arguments passed to the function in {{wildcard(1,2)}}"),
        ("a.*", "x.{{wildcard(q)}}", BAD + "function argument is invalid or in the wrong format in {{wildcard(q)}}"),
        ("a.*", "x.{{foo(1)}}", BAD + "unknown function in {{foo(1)}}"),
        ("a.*", "x.{{partition(5,3)}}", BAD + "wildcard index out of range in {{partition(5,3)}}: [3]"),
        ("a.*", "x.{{split(1)}}", BAD + "not enough arguments passed to the function in {{split(1)}}"),
        ("a.*", "x.{{random(1,2)}}", BAD + "not enough arguments passed to the function in {{random(1,2)}}"),
        ("a.*", "x y", BAD + "invalid transform"),
        ("a.*", "x..y", BAD + "invalid transform"),
    ],
)
def test_what_is_no_transform(src: str, dest: str, text: str) -> None:
    with pytest.raises(TransformError) as raised:
        SubjectTransform(src, dest)
    assert str(raised.value) == text


def test_random_draws_every_time() -> None:
    drawn = iter((3, 1))
    transform = SubjectTransform("a.*", "x.{{random(5)}}", lambda count: next(drawn))
    assert [transform.apply(b"a.b"), transform.apply(b"a.b")] == [b"x.3", b"x.1"]
