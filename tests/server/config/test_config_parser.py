"""The configuration language: separators, values, variables, includes, and where errors point."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.config.errors import ConfigError
from server.config.parser import parse_file, parse_text, scalar
from server.config.tree import plain


def read(text: str, environment: dict[str, str] | None = None) -> object:
    return {key: plain(entry.value) for key, entry in parse_text(text, environment or {}).items()}


@pytest.mark.parametrize(
    "text",
    [
        "port: 4222\ndebug: true",
        "port 4222\ndebug on",
        "port = 4222, debug = yes",
        "port: 4222; debug: TRUE",
        '{"port": 4222, "debug": true}',
        "{\n port: 4222,\n 'debug': true,\n}",
        "# c\nport: 4222 # c\n// d\ndebug: true // e\n",
        "port: 4222\ndebug: true\n}",
        "port: 4222\r\ndebug: true\r\n",
        "port: 4222,\n;debug: On;",
    ],
)
def test_separators_and_comments(text: str) -> None:
    assert read(text) == {"port": 4222, "debug": True}


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1K", 1000),
        ("1KB", 1024),
        ("1ki", 1024),
        ("1KiB", 1024),
        ("2m", 2_000_000),
        ("2MB", 2 * 1024**2),
        ("3g", 3 * 1000**3),
        ("1tib", 1024**4),
        ("1p", 1000**5),
        ("1eb", 1024**6),
        ("-7", -7),
        ("1.5", 1.5),
        ("1e3", "1e3"),
        ("2x", "2x"),
        ("127.0.0.1:4222", "127.0.0.1:4222"),
        ("nats://h:4222", "nats://h:4222"),
        ("OFF", False),
        ("No", False),
        ("2006-01-02T15:04:05Z", "2006-01-02T15:04:05Z"),
        ("foo.>", "foo.>"),
        ("$2a$11$abc", "$2a$11$abc"),
    ],
)
def test_bare_values(word: str, value: object) -> None:
    assert read(f"x: {word}") == {"x": value}


def test_strings() -> None:
    assert read(r'x: "a\tb\x41\"\\\n"') == {"x": 'a\tbA"\\\n'}
    assert read(r"x: 'a\tb'") == {"x": r"a\tb"}
    assert read('x: "$NOT_A_VARIABLE # no comment"') == {"x": "$NOT_A_VARIABLE # no comment"}
    assert read("x: (\n line 1\n line 2\n)\ny: 1") == {"x": "\n line 1\n line 2\n", "y": 1}
    assert read('"foo.>": 1') == {"foo.>": 1}


def test_maps_and_arrays() -> None:
    assert read("a { b: 1, c { d: x } }") == {"a": {"b": 1, "c": {"d": "x"}}}
    assert read("a{b: 1}") == {"a": {"b": 1}}
    assert read("a = [1, 2,\n 3\n {b: 1}, [x, 'y'], ]") == {"a": [1, 2, 3, {"b": 1}, ["x", "y"]]}
    assert read("a: 1\na: 2") == {"a": 2}
    assert read("") == {}
    assert read("# nothing\n") == {}


def test_variables() -> None:
    assert read("X: 5\na { b: $X }") == {"X": 5, "a": {"b": 5}}
    assert read("X: 5\na { X: 6, b: $X }") == {"X": 5, "a": {"X": 6, "b": 6}}
    assert read("P: {publish: 'a'}\nu: [{perm: $P}]")["u"] == [{"perm": {"publish": "a"}}]  # type: ignore[index]
    assert read("a: $HOME_PORT", {"HOME_PORT": "42K"}) == {"a": 42000}
    assert read("a: $S", {"S": '"1e5"'}) == {"a": "1e5"}
    assert read("a: $ONE", {"ONE": "$TWO", "TWO": "2"}) == {"a": 2}
    tree = parse_text("X: 5\nY: 6\na: $X", {})
    assert (tree["X"].is_used, tree["Y"].is_used) == (True, False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: $NOPE", "variable reference for 'NOPE' on line 1 can not be found"),
        ("a: 1\n\nb { c: $NOPE }", "variable reference for 'NOPE' on line 3 can not be found"),
        ("port: 4222 debug: true", "Parse error on line 1: 'Expected a top-level value to end with a new line"),
        ("A {x 1} B {y 2}", "Parse error on line 1: 'Expected a top-level value to end"),
        ("a { b: 1", "Parse error on line 1: 'Expected a map value terminator"),
        ("\na: [1,2", "Parse error on line 2: 'Expected an array value terminator"),
        ("a: [1 2]", "Parse error on line 1: 'Expected an array value terminator"),
        ('a "x', "Parse error on line 1: 'Unexpected EOF.'"),
        ('a: "\\q"', "Parse error on line 1: 'Invalid escape character 'q'"),
        ('a: "\\xzz"', "Parse error on line 1: 'Expected two hexadecimal digits"),
        ("a: (\nx", "Parse error on line 1: 'Unexpected EOF processing block"),
        ("a:", "config is invalid (config:1:2)"),
        ("a:\n1", "Parse error on line 2: 'Expected value but found new line'"),
        ("a", "config is invalid (config:1:1)"),
        ("a: 1\n}}", "config is invalid (config:2:3)"),
        ("a: 1\n]", "config is invalid (config:2:2)"),
        ("a {", "Parse error on line 1: 'Unexpected EOF processing map.'"),
        ("a: [1,,2]", "Parse error on line 1: 'Unexpected array value terminator ','.'"),
        ("a: [,1]", "Parse error on line 1: 'Unexpected array value terminator ','.'"),
        ("a: 99999999999999999999", "integer '99999999999999999999' is out of the range (config:1)"),
        ("a: " + "9" * 5000, "is out of the range"),
        ("a0: [1,1]\n" + "\n".join(f"a{i + 1}: [$a{i},$a{i}]" for i in range(40)), "There are too many values."),
        (": 1", "Parse error on line 1: 'Unexpected key separator ':''"),
        ("include nope.conf", "error parsing include file 'nope.conf', open nope.conf: no such file or directory"),
        ("a: $LOOP", "variable reference cycle for 'LOOP'"),
        ("a" + "{a" * 200, "nested too deeply"),
        ("a: " + "[" * 200, "nested too deeply"),
    ],
)
def test_errors_name_the_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_text(text, {"LOOP": "$LOOP"})
    assert message in str(caught.value)


def test_positions_are_nats_servers() -> None:
    tree = parse_text('foo: 1\n  bar: 2\n"b": {\n\tc: 3 }', {})
    assert (tree["foo"].line, tree["foo"].column) == (1, 0)
    assert (tree["bar"].line, tree["bar"].column) == (2, 3)
    assert (tree["b"].line, tree["b"].column) == (3, 2)
    inner = tree["b"].value
    assert isinstance(inner, dict)
    assert (inner["c"].line, inner["c"].column) == (4, 2)


def test_includes_join_their_block(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "auth.conf").write_text("user: a\ninclude 'more.conf'")
    (tmp_path / "sub" / "more.conf").write_text("pass: b")
    main = tmp_path / "main.conf"
    main.write_text("port: 1\nauthorization { include sub/auth.conf\n timeout: 1 }")
    tree = parse_file(main, {})
    assert plain(tree["authorization"].value) == {"user": "a", "pass": "b", "timeout": 1}
    (tmp_path / "loop.conf").write_text("include loop.conf")
    with pytest.raises(ConfigError, match="nested too deeply"):
        parse_file(tmp_path / "loop.conf", {})
    (tmp_path / "var.conf").write_text("x: $OUTER")
    main.write_text("OUTER: 1\ninclude var.conf")
    with pytest.raises(ConfigError, match="'OUTER'"):
        parse_file(main, {})


@given(st.text(alphabet="a{}[]:=,;\"'\\#/$( )\n\t1K.-x", max_size=40))
def test_any_text_gives_a_tree_or_an_error(text: str) -> None:
    try:
        parse_text(text, {})
    except ConfigError:
        pass


@given(st.integers(min_value=-(2**62), max_value=2**62))
def test_integers_are_themselves(number: int) -> None:
    assert scalar(str(number)) == number
